//! The model watch: vecho asks for texts of its own, and notices when a model's vectors change behind its name.

use std::time::Duration;

use crate::disk::ground::Folder;
use crate::harness::front::{texts_of, tiny};
use crate::harness::stub::{Call, Stub};
use crate::harness::{Behaviour, Front, Inside, eventually};

const HOUR: Duration = Duration::from_hours(1);

/// Settings of a front that checks every hour, with a key of its own.
const WATCHED: [(&str, &str); 2] = [("drift.every", "1h"), ("upstream.api_key", "sk-own")];

/// Returns true for a call with vecho's own texts.
fn is_canary(call: &Call) -> bool {
    call.texts().first().is_some_and(|text| text.starts_with("The quick brown fox"))
}

fn canaries(stub: &Stub) -> usize {
    stub.embedding_calls().iter().filter(|call| is_canary(call)).count()
}

/// Returns the behaviour of a server that keeps the model's name and has other weights.
fn other_weights() -> Behaviour {
    Behaviour::All(vec![Behaviour::OtherModel("retrained".to_owned()), Behaviour::ModelName("tiny".to_owned())])
}

/// Returns the vectors of these other weights.
fn retrained(texts: &[&str]) -> Vec<Vec<f32>> {
    texts.iter().map(|text| Stub::vector("retrained", None, *text)).collect()
}

async fn watching(more: &[(&str, &str)]) -> Front {
    let settings: Vec<_> = WATCHED.iter().chain(more).copied().collect();
    let front = Front::with(&settings).await;
    front.embed(&["a"]).await;
    front.reaches(r#"vecho_model_checks_total{result="first"}"#, 1.0).await;
    front
}

async fn checks(front: &Front, result: &str, count: f64) {
    front.reaches(&format!(r#"vecho_model_checks_total{{result="{result}"}}"#), count).await;
}

#[tokio::test]
async fn an_unchanged_model_is_checked_once_a_period_and_stays_cached() {
    let front = watching(&[("drift.action", "refetch")]).await;
    assert_eq!(canaries(&front.stub), 1);
    front.pass(HOUR);
    checks(&front, "same", 1.0).await;
    assert_eq!(canaries(&front.stub), 2);
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
    assert_eq!(front.metric(r#"vecho_model_drifted{model="tiny"}"#).await.to_bits(), 0.0_f64.to_bits());
    assert!(front.metric("vecho_model_check_tokens_total").await > 10.0);
}

#[tokio::test]
async fn changed_vectors_are_reported_until_the_model_is_purged() {
    let front = watching(&[]).await;
    front.stub.always(other_weights());
    for check in 1..3 {
        front.pass(HOUR);
        checks(&front, "drifted", f64::from(check)).await;
        assert_eq!(front.metric(r#"vecho_model_drifted{model="tiny"}"#).await.to_bits(), 1.0_f64.to_bits());
        assert!(front.metric(r#"vecho_model_difference{model="tiny"}"#).await > 0.1);
    }
    assert_eq!(front.embed(&["a"]).await.vectors(), tiny(&["a"]), "the entry stays");
    assert!(front.health().await.to_string().contains("the vectors of `tiny` have changed"));
    front.purge("?model=tiny").await;
    front.pass(HOUR);
    checks(&front, "first", 2.0).await;
    assert_eq!(front.metric(r#"vecho_model_drifted{model="tiny"}"#).await.to_bits(), 0.0_f64.to_bits());
    assert_eq!(front.embed(&["a"]).await.vectors(), retrained(&["a"]));
}

#[tokio::test]
async fn with_refetch_entries_from_before_a_change_are_fetched_again() {
    let front = watching(&[("drift.action", "refetch")]).await;
    for _ in 0..3 {
        front.embed(&["a", "b"]).await;
    }
    front.stub.always(other_weights());
    front.pass(HOUR);
    checks(&front, "drifted", 1.0).await;
    let mixed = front.embed(&["a", "new", "b"]).await;
    assert_eq!(mixed.vectors(), retrained(&["a", "new", "b"]));
    assert_eq!(mixed.sources(), "upstream=3");
    assert_eq!(front.embed(&["b", "a"]).await.cache(), "hit");
    front.pass(HOUR);
    checks(&front, "same", 1.0).await;
    assert_eq!(front.embed(&["b", "a"]).await.vectors(), retrained(&["b", "a"]));
    assert_eq!(front.metric("vecho_model_drifts_total").await.to_bits(), 1.0_f64.to_bits());
}

#[tokio::test]
async fn entries_from_before_a_change_still_serve_as_stale_ones_but_never_beside_newer_ones() {
    let front = watching(&[("drift.action", "refetch"), ("fallback.mode", "stale")]).await;
    front.stub.always(other_weights());
    front.pass(HOUR);
    checks(&front, "drifted", 1.0).await;
    front.embed(&["new"]).await;
    front.stub.always(Behaviour::HangUp);
    let stale = front.embed(&["a"]).await;
    assert_eq!((stale.cache(), stale.vectors()), ("stale", tiny(&["a"])));
    assert!(front.embed(&["a", "new"]).await.status >= 500, "one answer never holds vectors of both");
}

#[tokio::test]
async fn a_single_odd_answer_is_no_change_of_the_model() {
    let front = watching(&[("drift.action", "refetch")]).await;
    front.stub.next(other_weights());
    front.pass(HOUR);
    checks(&front, "unsteady", 1.0).await;
    assert_eq!(canaries(&front.stub), 3, "the second call decides");
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
}

#[tokio::test]
async fn an_unavailable_upstream_is_not_checked() {
    let front = watching(&[("breaker.failures", "1"), ("breaker.open_for", "1h"), ("breaker.max_open", "1h")]).await;
    front.stub.always(Behaviour::HangUp);
    front.embed(&["x"]).await;
    front.pass(HOUR);
    checks(&front, "skipped", 1.0).await;
    assert_eq!(canaries(&front.stub), 1);
    front.stub.always(Behaviour::Normal);
    front.embed(&["y"]).await;
    front.pass(Duration::from_mins(1));
    checks(&front, "same", 1.0).await;
}

#[tokio::test]
async fn callers_credentials_are_never_used_for_checks() {
    let front = Front::with(&WATCHED[..1]).await;
    front.post(texts_of(&["a"]).to_string()).key("sk-of-a-caller").send().await;
    front.post(texts_of(&["a"]).to_string()).header("api-key", "of-a-caller").send().await;
    front.embed(&["a"]).await;
    checks(&front, "first", 1.0).await;
    let calls = front.stub.embedding_calls();
    let own: Vec<_> = calls.iter().filter(|call| is_canary(call)).collect();
    assert_eq!(own.len(), 1, "a space of callers without credentials is checked");
    assert!(own[0].header("authorization").is_none() && own[0].header("api-key").is_none());
}

#[tokio::test]
async fn checks_are_off_by_default() {
    let front = Front::with(&WATCHED[1..]).await;
    front.embed(&["a"]).await;
    front.pass(HOUR);
    front.embed(&["b"]).await;
    assert_eq!(canaries(&front.stub), 0);
    eventually("the calls are the two requests", async || front.calls() == 2).await;
}

/// Starts a vecho over a folder, at this time, that checks and fetches again.
async fn restarted(stub: &Stub, folder: &Folder, passed: Duration) -> Inside {
    let settings = [("disk.path", folder.text()), ("drift.every", "1h"), ("drift.action", "refetch")];
    let inside = Inside::start(&stub.base_url(), &settings).await;
    inside.clock.advance_ms(u64::try_from(passed.as_millis()).expect("it is short"));
    eventually("the disk tier is open", async || {
        inside.metric(r#"vecho_cache_tier_down{tier="disk"}"#).await.to_bits() == 0.0_f64.to_bits()
    })
    .await;
    inside
}

async fn checked(inside: &Inside, result: &str) {
    let series = format!(r#"vecho_model_checks_total{{result="{result}"}}"#);
    eventually(&series, async || inside.metric(&series).await >= 1.0).await;
}

#[tokio::test]
async fn a_change_while_no_process_ran_is_noticed_after_the_start_and_remembered_by_the_next_one() {
    let (stub, folder) = (Stub::start(), Folder::new());
    let first = restarted(&stub, &folder, Duration::ZERO).await;
    first.embed(texts_of(&["a", "b"])).await;
    checked(&first, "first").await;
    first.stop().await;
    stub.always(other_weights());

    let second = restarted(&stub, &folder, HOUR).await;
    assert_eq!(second.embed(texts_of(&["a"])).await.vectors(), tiny(&["a"]), "nothing is known yet");
    checked(&second, "drifted").await;
    assert_eq!(second.embed(texts_of(&["a"])).await.vectors(), retrained(&["a"]));
    second.stop().await;

    let third = restarted(&stub, &folder, 2 * HOUR).await;
    let answer = third.embed(texts_of(&["a", "b"])).await;
    assert_eq!((answer.sources(), answer.vectors()), ("disk=1, upstream=1", retrained(&["a", "b"])));
    checked(&third, "same").await;
    third.stop().await;
}

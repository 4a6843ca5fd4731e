//! Request controls: standard `cache-control`, ages by a clock that the test advances, and controls without effect.

use std::time::Duration;

use serde_json::{Value, json};

use crate::disk::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::front::{Ask, TINY, texts_of, tiny};
use crate::harness::{Behaviour, Front};

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

fn ask(front: &Front, texts: &[&str], control: &str) -> Ask {
    front.post(texts_of(texts).to_string()).header("cache-control", control)
}

async fn controlled(front: &Front, texts: &[&str], control: &str) -> Answer {
    let answer = ask(front, texts, control).send().await;
    assert_eq!(answer.vectors(), tiny(texts), "{control}");
    answer
}

#[tokio::test]
async fn no_cache_fetches_stored_inputs_again() {
    let front = Front::start().await;
    front.embed(&["a", "b"]).await;
    let answer = controlled(&front, &["a", "b"], "no-cache").await;
    assert_eq!((answer.cache(), answer.sources()), ("miss", "upstream=2"));
    assert_eq!(front.texts_sent(), [["a", "b"], ["a", "b"]]);
}

#[tokio::test]
async fn no_cache_ignores_cached_replies() {
    let front = Front::start().await;
    for _ in 0..3 {
        front.embed(&["a"]).await;
    }
    assert_eq!(controlled(&front, &["a"], "no-cache").await.cache(), "miss");
}

#[tokio::test]
async fn no_cache_refreshes_the_entry_for_all_callers() {
    let front = Front::with(&[("cache.ttl", "60s")]).await;
    front.embed(&["a"]).await;
    front.pass(50 * SECOND);
    controlled(&front, &["a"], "no-cache").await;
    front.pass(50 * SECOND);
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
    assert_eq!(front.calls(), 2);
}

#[tokio::test]
async fn a_refresh_replaces_cached_replies() {
    for control in ["no-cache", "max-age=10"] {
        let front = Front::start().await;
        let old = front.embed(&["a"]).await.vectors();
        for _ in 0..2 {
            assert_eq!(front.embed(&["a"]).await.vectors(), old);
        }
        front.pass(20 * SECOND);
        // A model with the same name and different vectors.
        let (other, name) = (Behaviour::OtherModel("other".to_owned()), Behaviour::ModelName(TINY.to_owned()));
        front.stub.next(Behaviour::All(vec![other, name]));
        let new = ask(&front, &["a"], control).send().await.vectors();
        assert_ne!(new, old);
        let plain = front.embed(&["a"]).await;
        assert_eq!((plain.cache(), plain.vectors()), ("hit", new), "{control}");
    }
}

#[tokio::test]
async fn a_refresh_replaces_cached_replies_of_evicted_entries() {
    for control in ["no-cache", "max-age=10"] {
        let front = Front::with(&[("cache.max_entries", "1")]).await;
        for cache in ["miss", "hit", "hit"] {
            assert_eq!(front.embed(&["a"]).await.cache(), cache);
        }
        assert_eq!(front.metric(r#"vecho_cache_answers_total{result="served"}"#).await.to_string(), "1");
        front.embed(&["b"]).await;
        assert_eq!(ask(&front, &["a", "a"], "only-if-cached").send().await.status, 504, "its vector is gone");
        front.pass(20 * SECOND);
        let (other, name) = (Behaviour::OtherModel("other".to_owned()), Behaviour::ModelName(TINY.to_owned()));
        front.stub.next(Behaviour::All(vec![other, name]));
        let new = ask(&front, &["a"], control).send().await.vectors();
        assert_ne!(new, tiny(&["a"]));
        assert_eq!(front.embed(&["a"]).await.vectors(), new, "{control}");
    }
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_stored_entry() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    front.stub.next(Behaviour::Status { code: 400, headers: Vec::new(), body: "{}".to_owned() });
    assert_eq!(ask(&front, &["a"], "no-cache").send().await.status, 400);
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
}

#[tokio::test]
async fn no_store_leaves_no_entry() {
    let front = Front::start().await;
    for expected_calls in 1..=3 {
        let answer = controlled(&front, &["a"], "no-store").await;
        assert_eq!((answer.cache(), front.calls()), ("miss", expected_calls));
    }
    assert_eq!(front.embed(&["a"]).await.cache(), "miss");
}

#[tokio::test]
async fn no_store_leaves_no_entry_on_disk() {
    let folder = Folder::new();
    let front = Front::with(&[("disk.path", folder.text())]).await;
    controlled(&front, &["a"], "no-store").await;
    front.embed(&["b"]).await;
    front.reaches(r#"vecho_cache_entries{tier="disk"}"#, 1.0).await;
    front.purge("?tier=memory").await;
    assert_eq!(front.embed(&["a", "b"]).await.sources(), "disk=1, upstream=1");
}

#[tokio::test]
async fn no_store_caches_no_reply() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    for _ in 0..2 {
        controlled(&front, &["a"], "no-store").await;
    }
    assert_eq!(front.metric(r#"vecho_cache_entries{tier="answers"}"#).await.to_bits(), 0.0_f64.to_bits());
}

#[tokio::test]
async fn only_if_cached_serves_stored_entries_without_an_upstream_call() {
    let front = Front::start().await;
    front.embed(&["a", "b"]).await;
    let answer = controlled(&front, &["b", "a"], "only-if-cached").await;
    assert_eq!((answer.cache(), front.calls()), ("hit", 1));
}

#[tokio::test]
async fn only_if_cached_is_a_504_in_the_apis_envelope_when_an_input_is_missing() {
    let front = Front::start().await;
    front.embed(&["known"]).await;
    for texts in [vec!["new"], vec!["known", "new"]] {
        let answer = ask(&front, &texts, "only-if-cached").send().await;
        assert_eq!((answer.status, answer.error()), (504, ("invalid_request_error".to_owned(), json!("not_cached"))));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-should-retry"), Some("false"), "SDKs repeat a 504 unless told otherwise");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn only_if_cached_is_a_504_for_requests_that_would_pass_through() {
    let front = Front::start().await;
    let bodies = [r#"{"model":"tiny","input":"a","unknown":1}"#, r#"{"model":"tiny","input":["a",""]}"#, "no json"];
    for body in bodies {
        let answer = front.post(body).header("cache-control", "only-if-cached").send().await;
        assert_eq!((answer.status, answer.error().1), (504, json!("not_cached")), "{body}");
    }
    let plain = front.post("{}").header("content-type", "text/plain").header("cache-control", "only-if-cached");
    assert_eq!(plain.send().await.status, 504);
    assert_eq!(front.calls(), 0);
}

#[tokio::test]
async fn an_entry_older_than_max_age_is_fetched_again() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    front.pass(5 * SECOND);
    assert_eq!(controlled(&front, &["a"], "max-age=10").await.cache(), "hit");
    front.pass(6 * SECOND);
    assert_eq!(controlled(&front, &["a"], "max-age=10").await.cache(), "miss");
    assert_eq!(front.calls(), 2);
    assert_eq!(controlled(&front, &["a"], "max-age=10").await.cache(), "hit", "the fetched one is young again");
}

#[tokio::test]
async fn max_age_of_one_caller_does_not_shorten_the_life_of_an_entry() {
    let front = Front::start().await;
    front.embed(&["a", "b"]).await;
    front.pass(MINUTE);
    ask(&front, &["a"], "max-age=10, only-if-cached").send().await;
    assert_eq!(front.embed(&["a", "b"]).await.cache(), "hit");
}

#[tokio::test]
async fn max_age_applies_to_cached_replies() {
    let front = Front::start().await;
    for _ in 0..3 {
        front.embed(&["a"]).await;
    }
    front.pass(MINUTE);
    assert_eq!(controlled(&front, &["a"], "max-age=10").await.cache(), "miss");
}

#[tokio::test]
async fn max_age_applies_to_each_input() {
    let front = Front::start().await;
    front.embed(&["old"]).await;
    front.pass(MINUTE);
    front.embed(&["young"]).await;
    let answer = controlled(&front, &["old", "young"], "max-age=10").await;
    assert_eq!(answer.sources(), "memory=1, upstream=1");
    assert_eq!(front.texts_sent()[2], ["old"]);
}

#[tokio::test]
async fn max_age_cannot_extend_the_life_of_an_entry() {
    let front = Front::with(&[("cache.ttl", "60s")]).await;
    front.embed(&["a"]).await;
    front.pass(MINUTE);
    assert_eq!(controlled(&front, &["a"], "max-age=3600").await.cache(), "miss");
}

#[tokio::test]
async fn an_entry_is_fetched_again_exactly_when_it_expires() {
    let front = Front::with(&[("cache.ttl", "60s")]).await;
    front.embed(&["a"]).await;
    front.pass(59 * SECOND);
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
    front.pass(SECOND);
    let fetched = front.embed(&["a"]).await;
    assert_eq!((fetched.vectors(), fetched.cache()), (tiny(&["a"]), "miss"));
    assert_eq!((front.embed(&["a"]).await.cache(), front.calls()), ("hit", 2));
}

#[tokio::test]
async fn hits_do_not_extend_the_life_of_an_entry() {
    let front = Front::with(&[("cache.ttl", "60s")]).await;
    front.embed(&["a", "b"]).await;
    for _ in 0..5 {
        front.pass(10 * SECOND);
        assert_eq!(front.embed(&["b", "a"]).await.cache(), "hit");
    }
    front.pass(10 * SECOND);
    assert_eq!(front.embed(&["b", "a"]).await.cache(), "miss");
}

#[tokio::test]
async fn an_invalid_control_is_refused_in_the_apis_envelope() {
    let front = Front::start().await;
    for (name, value) in [
        ("cache-control", "max-age=soon"),
        ("cache-control", "max-age"),
        ("cache-control", "no-cache, max-age=-1"),
        ("x-vecho-fallback", "maybe"),
        ("x-vecho-fallback", ""),
        ("x-vecho-namespace", ""),
        ("x-vecho-namespace", "two words"),
        ("x-vecho-namespace", &"n".repeat(257)),
    ] {
        let answer = front.post(texts_of(&["a"]).to_string()).header(name, value).send().await;
        assert_eq!((answer.status, answer.error().1), (400, json!("invalid_header")), "{name}: {value}");
        assert_eq!(answer.json()["error"]["param"], Value::from(name));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(front.calls(), 0);
}

#[tokio::test]
async fn directives_for_other_caches_are_ignored() {
    let front = Front::start().await;
    for (control, cache) in [("max-stale=60, min-fresh=1", "miss"), ("private, no-transform", "hit"), ("", "hit")] {
        assert_eq!(controlled(&front, &["a"], control).await.cache(), cache);
    }
}

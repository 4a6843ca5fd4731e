//! Behaviour while the upstream is unavailable: fresh, stale, mock, error, in this order. The answer names its source.

use serde_json::{Value, json};

use crate::harness::client::{Answer, raw};
use crate::harness::stub::Call;
use crate::harness::{Behaviour, Client, Inside, Stub, Vecho, ops};

const QUICK: [(&str, &str); 4] =
    [("retry.max_attempts", "1"), ("breaker.failures", "0"), ("cache.ttl", "1h"), ("cache.stale_for", "1h")];
const HOUR_MS: u64 = 3_600_000;

async fn start(stub: &Stub, mode: &str) -> Inside {
    Inside::start(&stub.base_url(), &[&QUICK[..], &[("fallback.mode", mode)]].concat()).await
}

/// Starts a vecho that marks a model as unavailable after one request that failed by status.
async fn start_strict(stub: &Stub, mode: &str) -> Inside {
    let strict = [("fallback.mode", mode), ("breaker.failures", "1"), ("retry.max_attempts", "1")];
    Inside::start(&stub.base_url(), &[&strict[..], &QUICK[2..]].concat()).await
}

fn ask(inputs: &[&str]) -> Value {
    json!({"model": "tiny", "input": inputs})
}

fn real(text: &str) -> Vec<f32> {
    Stub::vector("tiny", None, text)
}

fn down() -> Behaviour {
    Behaviour::Status { code: 503, headers: vec![], body: r#"{"error":"down"}"#.to_owned() }
}

fn cache(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-vecho-cache"))
}

fn assert_unit(vector: &[f32], dimension: usize) {
    let length: f32 = vector.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5 && vector.len() == dimension, "{} {length}", vector.len());
}

#[tokio::test]
async fn fallback_order_is_fresh_then_stale_then_mock() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    assert_eq!(vecho.embed(ask(&["old"])).await.status, 200);
    vecho.clock.advance_ms(HOUR_MS / 2);
    assert_eq!(vecho.embed(ask(&["fresh"])).await.status, 200);
    vecho.clock.advance_ms(HOUR_MS / 2 + 1);
    stub.down().await;
    assert_eq!(cache(&vecho.embed(ask(&["fresh"])).await), (200, Some("hit")));
    let stale = vecho.embed(ask(&["fresh", "old"])).await;
    assert_eq!((cache(&stale), stale.header("x-vecho-sources")), ((200, Some("stale")), Some("memory=1, stale=1")));
    assert_eq!(stale.vectors(), [real("fresh"), real("old")]);
    assert_eq!(stale.json().get("vecho"), None, "real vectors are not marked as mocks");
    let mixed = vecho.embed(ask(&["old", "new", "fresh", "newer", "new"])).await;
    assert_eq!(cache(&mixed), (200, Some("mock")));
    assert_eq!(mixed.header("x-vecho-sources"), Some("memory=1, stale=1, mock=3"));
    assert_eq!(mixed.json()["vecho"], json!({"mock": [1, 3, 4]}));
    let vectors = mixed.vectors();
    assert_eq!((&vectors[0], &vectors[2], &vectors[1]), (&real("old"), &real("fresh"), &vectors[4]));
    assert_ne!(vectors[1], real("new"));
    for vector in &vectors {
        assert_unit(vector, 8);
    }
}

/// Starts a vecho that knows one text of an older model and one of a newer model. The older text is expired; the
/// newer one is expired too if `both` is true.
async fn two_models(stub: &Stub, mode: &str, both: bool) -> Inside {
    let vecho = start(stub, mode).await;
    for (text, model) in [("old", "tiny-v1"), ("new", "tiny-v2")] {
        stub.always(Behaviour::ModelName(model.to_owned()));
        assert_eq!(vecho.embed(ask(&[text])).await.json()["model"], model);
        vecho.clock.advance_ms(HOUR_MS / 2 + 1);
    }
    if both {
        vecho.clock.advance_ms(HOUR_MS / 2);
    }
    stub.down().await;
    vecho
}

#[tokio::test]
async fn stale_vectors_of_two_models_are_never_in_one_answer() {
    for texts in [["old", "new"], ["new", "old"]] {
        let stub = Stub::start();
        let vecho = two_models(&stub, "mock", true).await;
        assert_eq!(cache(&vecho.embed(ask(&["new"])).await), (200, Some("stale")));
        assert_eq!(cache(&vecho.embed(ask(&["old"])).await), (200, Some("stale")), "alone it may stand in");
        let answer = vecho.embed(ask(&texts)).await;
        assert_eq!((cache(&answer), answer.sources()), ((200, Some("mock")), "stale=1, mock=1"));
        assert_eq!(answer.json()["model"], "tiny-v2", "the model that would be asked");
        let strict = vecho.embed_with(&[("x-vecho-fallback", "stale")], ask(&texts)).await;
        assert_eq!(strict.status, 502, "{texts:?}");
    }
}

#[tokio::test]
async fn a_stale_vector_of_an_older_model_is_never_mixed_with_a_fresh_one() {
    let stub = Stub::start();
    let vecho = two_models(&stub, "mock", false).await;
    let answer = vecho.embed(ask(&["old", "new"])).await;
    assert_eq!((cache(&answer), answer.sources()), ((200, Some("mock")), "memory=1, mock=1"));
    assert_eq!((answer.json()["model"].clone(), &answer.vectors()[1]), (json!("tiny-v2"), &real("new")));
    let strict = vecho.embed_with(&[("x-vecho-fallback", "stale")], ask(&["old", "new"])).await;
    assert_eq!(strict.status, 502);
}

#[tokio::test]
async fn a_mock_is_never_stored() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    stub.down().await;
    for _ in 0..2 {
        assert_eq!(cache(&vecho.embed(ask(&["x", "y"])).await), (200, Some("mock")));
    }
    assert!(vecho.metric(r#"vecho_cache_entries{tier="memory"}"#).await.abs() < f64::EPSILON);
    assert!(vecho.metric(r#"vecho_cache_entries{tier="answers"}"#).await.abs() < f64::EPSILON);
    stub.up().await;
    let answer = vecho.embed(ask(&["x", "y"])).await;
    assert_eq!(cache(&answer), (200, Some("miss")));
    assert_eq!(answer.vectors(), [real("x"), real("y")]);
    assert_eq!(answer.json().get("vecho"), None);
}

#[tokio::test]
async fn mocks_have_the_models_dimension_and_are_equal_in_every_process() {
    let stub = Stub::start();
    let (one, other) = (start(&stub, "mock").await, start(&stub, "mock").await);
    stub.down().await;
    let dimensions = [
        (json!({"model": "text-embedding-3-small", "input": "x"}), 1536),
        (json!({"model": "text-embedding-3-large", "input": "x", "encoding_format": "base64"}), 3072),
        (json!({"model": "text-embedding-3-large", "input": [1, 2], "dimensions": 64}), 64),
        (json!({"model": "nobody-knows", "input": "x"}), 1536),
    ];
    for (body, dimension) in dimensions {
        let (here, there) = (one.embed(&body).await, other.embed(&body).await);
        assert_eq!((cache(&here), here.vectors()), ((200, Some("mock")), there.vectors()));
        assert_unit(&here.vectors()[0], dimension);
    }
}

#[tokio::test]
async fn mocks_use_the_learned_dimension_and_are_similar_for_similar_texts() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    assert_eq!(vecho.embed(ask(&["known"])).await.vectors()[0].len(), 8);
    stub.down().await;
    assert_unit(&vecho.embed(ask(&["unknown"])).await.vectors()[0], 8);
    let inputs = ["the cat sat on the mat", "the cat sat on a mat", "quarterly revenue grew sharply"];
    let vectors = vecho.embed(json!({"model": "text-embedding-3-small", "input": inputs})).await.vectors();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let (near, far) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[0], &vectors[2]));
    assert!(near > 0.6 && far < 0.3, "near {near}, far {far}");
}

#[tokio::test]
async fn refusals_and_429_never_cause_a_fallback() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[&QUICK[..], &[("limits.request_timeout", "20s")]].concat()).await;
    vecho.embed(ask(&["old"])).await;
    vecho.clock.advance_ms(HOUR_MS + 1);
    let client_error = |code| Behaviour::Status { code, headers: vec![], body: r#"{"error":"no"}"#.to_owned() };
    let kinds = [client_error(400), client_error(401), client_error(404), client_error(422), Behaviour::Quota];
    for kind in kinds.into_iter().chain([Behaviour::RateLimit { retry_after_ms: 60_000 }]) {
        let shown = format!("{kind:?}");
        stub.always(kind);
        for text in ["old", "new"] {
            let answer = vecho.embed(ask(&[text])).await;
            assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
            assert_eq!(answer.header("x-vecho-cache"), None, "{shown}");
        }
    }
}

#[tokio::test]
async fn each_fallback_mode_serves_only_what_it_allows() {
    for (mode, old, new) in [("error", 503, 503), ("stale", 200, 503), ("mock", 200, 200)] {
        let stub = Stub::start();
        let vecho = start_strict(&stub, mode).await;
        vecho.embed(ask(&["old"])).await;
        vecho.clock.advance_ms(HOUR_MS + 1);
        stub.always(down());
        let (old_answer, new_answer) = (vecho.embed(ask(&["old"])).await, vecho.embed(ask(&["new"])).await);
        assert_eq!((old_answer.status, new_answer.status), (old, new), "{mode}");
        for answer in [old_answer, new_answer].iter().filter(|answer| answer.status == 503) {
            assert_eq!(&answer.body[..], br#"{"error":"down"}"#, "the upstream's own words");
        }
    }
}

#[tokio::test]
async fn a_request_narrows_the_fallback_and_never_widens_it() {
    let words = ["error", "stale", "mock"];
    for (configured, mode) in words.into_iter().enumerate() {
        let stub = Stub::start();
        let vecho = start_strict(&stub, mode).await;
        vecho.embed(ask(&["old"])).await;
        vecho.clock.advance_ms(HOUR_MS + 1);
        stub.always(down());
        for (asked, wish) in words.into_iter().enumerate() {
            let allowed = asked.min(configured);
            let header = [("x-vecho-fallback", wish)];
            let old = vecho.embed_with(&header, ask(&["old"])).await;
            let new = vecho.embed_with(&header, ask(&["new"])).await;
            let expected = [(503, None), (200, Some("stale"))][usize::from(allowed >= 1)];
            assert_eq!(cache(&old), expected, "{mode} narrowed by {wish}");
            let expected = [(503, None), (200, Some("mock"))][usize::from(allowed >= 2)];
            assert_eq!(cache(&new), expected, "{mode} narrowed by {wish}");
        }
    }
    let vecho = start(&Stub::start(), "mock").await;
    let answer = vecho.embed_with(&[("x-vecho-fallback", "perhaps")], ask(&["x"])).await;
    assert_eq!((answer.status, answer.error().1), (400, json!("invalid_header")));
}

#[tokio::test]
async fn no_cache_is_answered_from_the_cache_while_the_upstream_is_down() {
    let stub = Stub::start();
    let vecho = start(&stub, "stale").await;
    vecho.embed(ask(&["known"])).await;
    stub.down().await;
    let answer = vecho.embed_with(&[("cache-control", "no-cache")], ask(&["known"])).await;
    assert_eq!((cache(&answer), answer.vectors()), ((200, Some("stale")), vec![real("known")]));
}

#[tokio::test]
async fn entries_past_their_stale_time_are_not_served_in_an_outage() {
    let stub = Stub::start();
    let vecho = start(&stub, "stale").await;
    vecho.embed(ask(&["old"])).await;
    stub.always(down());
    vecho.clock.advance_ms(2 * HOUR_MS - 1);
    assert_eq!(cache(&vecho.embed(ask(&["old"])).await), (200, Some("stale")));
    vecho.clock.advance_ms(1);
    assert_eq!(vecho.embed(ask(&["old"])).await.status, 503);
}

#[tokio::test]
async fn an_unanswered_call_is_a_502_or_504_envelope() {
    let stub = Stub::start();
    let pairs = [&QUICK[..], &[("fallback.mode", "error"), ("limits.request_timeout", "100ms")]].concat();
    let hasty = Inside::start(&stub.base_url(), &pairs).await;
    stub.always(Behaviour::Gate);
    let late = hasty.embed(ask(&["x"])).await;
    assert_eq!((late.status, late.error()), (504, ("server_error".to_owned(), json!("upstream_timeout"))));
    let vecho = start(&stub, "error").await;
    stub.always(Behaviour::CutBody);
    let cut = vecho.embed(ask(&["x"])).await;
    assert_eq!((cut.status, cut.error()), (502, ("server_error".to_owned(), json!("upstream_unavailable"))));
    stub.down().await;
    let refused = vecho.embed(ask(&["x"])).await;
    assert_eq!((refused.status, refused.error()), (502, ("server_error".to_owned(), json!("upstream_unavailable"))));
}

#[tokio::test]
async fn health_is_degraded_while_mocks_are_served_and_a_minute_after() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    assert_eq!(vecho.health().await["status"], "healthy");
    stub.down().await;
    vecho.embed(ask(&["x"])).await;
    vecho.clock.advance_ms(9_000);
    let health = vecho.health().await;
    assert_eq!(health["status"], "degraded");
    assert!(health["warnings"][0].as_str().is_some_and(|text| text.contains("mocks, since 9 s")), "{health}");
    assert!((vecho.metric(r#"vecho_inputs_total{source="mock"}"#).await - 1.0).abs() < f64::EPSILON);
    stub.up().await;
    vecho.embed(ask(&["x"])).await;
    vecho.clock.advance_ms(60_001);
    assert_eq!(vecho.health().await["status"], "healthy");
}

/// Requests texts that are stored from an older model, and one new text. The new text is answered by another model, so
/// the stored vectors are dropped, and the call for them fails.
async fn dropped_midway(url: &str, stub: &Stub, ask: impl Fn(&[String]) -> Value, count: usize) -> Answer {
    let client = Client::new();
    let mut texts: Vec<String> = (0..count).map(|number| format!("old {number}")).collect();
    stub.always(Behaviour::ModelName("tiny-v1".to_owned()));
    for half in texts.chunks(count / 2) {
        assert_eq!(client.post(url, &ask(half)).await.status, 200);
    }
    let before = stub.embedding_calls().len();
    texts.insert(count / 2, "new".to_owned());
    stub.next(Behaviour::ModelName("tiny-v2".to_owned()));
    stub.always(down());
    let answer = client.post(url, &ask(&texts)).await;
    let calls: Vec<Vec<String>> = stub.embedding_calls()[before..].iter().map(Call::texts).collect();
    assert_eq!(calls[0], ["new"], "the others are at hand");
    assert!(calls.len() > 1 && calls[1].contains(&texts[0]), "the others are asked for again: {calls:?}");
    answer
}

#[tokio::test]
async fn vectors_evicted_during_an_outage_become_mocks() {
    let stub = Stub::start();
    let vecho = start_strict(&stub, "mock").await;
    let answer =
        dropped_midway(&vecho.embeddings_url(), &stub, |texts| json!({"model": "tiny", "input": texts}), 40).await;
    assert_eq!((cache(&answer), answer.sources()), ((200, Some("mock")), "upstream=1, mock=40"));
    let vectors = answer.vectors();
    assert_eq!((vectors.len(), &vectors[20]), (41, &real("new")));
    for vector in &vectors {
        assert_unit(vector, 8);
    }
    let places: Vec<usize> = (0..41).filter(|place| *place != 20).collect();
    assert_eq!(answer.json()["vecho"], json!({"mock": places}));
    assert!(vecho.metric("vecho_vector_bytes_in_flight").await < 1.0, "all memory is released");
}

#[tokio::test]
async fn evicted_vectors_without_memory_for_mocks_are_an_error() {
    let stub = Stub::start();
    // At this limit, a request can reserve memory for about 900 of these vectors.
    let settings =
        [("VECHO_RETRY_MAX_ATTEMPTS", "1"), ("VECHO_BREAKER_FAILURES", "1"), ("VECHO_MEMORY_LIMIT_MB", "64")];
    let vecho = Vecho::start_with(&stub.base_url(), &settings);
    let large =
        |texts: &[String]| json!({"model": "large", "input": texts, "dimensions": 3072, "encoding_format": "base64"});
    let answer = dropped_midway(&format!("{}/embeddings", vecho.base_url()), &stub, large, 1_000).await;
    assert_eq!((answer.status, &answer.body[..]), (503, &br#"{"error":"down"}"#[..]), "the upstream's own words");
    assert_eq!(answer.header("x-vecho-cache"), None);
    assert!(ops::metric(vecho.admin(), "vecho_vector_bytes_in_flight").await < 1.0, "all memory is released");
    let few = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &large(&["a".into(), "b".into()])).await;
    assert_eq!((cache(&few), few.sources()), ((200, Some("mock")), "mock=2"));
}

#[tokio::test]
async fn a_purge_between_lookup_and_outage_does_not_break_the_answer() {
    for header in [("x-none", "x"), ("cache-control", "no-cache")] {
        let stub = Stub::start();
        let vecho = start(&stub, "mock").await;
        assert_eq!(vecho.embed(ask(&["a", "b"])).await.status, 200);
        stub.always(Behaviour::Gate);
        let header = [header];
        let asked = vecho.embed_with(&header, ask(&["a", "new", "b"]));
        let purged = async {
            stub.held(1).await;
            let url = format!("http://{}/api/performance/cache", vecho.admin());
            let purge = raw(http::Method::DELETE, &url, "");
            assert_eq!(vecho.client.send(purge).await.expect("the answer must arrive").status, 200);
            stub.down().await;
        };
        let (answer, ()) = tokio::join!(asked, purged);
        let at_hand = if header[0].1 == "no-cache" { "stale=2" } else { "memory=2" };
        assert_eq!((cache(&answer), answer.sources()), ((200, Some("mock")), &*format!("{at_hand}, mock=1")));
        let vectors = answer.vectors();
        assert_eq!((vectors.len(), &vectors[0], &vectors[2]), (3, &real("a"), &real("b")));
        let after = vecho.embed(ask(&["a", "b"])).await;
        assert_eq!(after.sources(), "mock=2", "nothing of it came back after the purge");
    }
}

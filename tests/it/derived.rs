//! Vectors of fewer dimensions, derived from longer ones in the cache.

use serde_json::{Value, json};

use crate::disk::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::{Behaviour, Front, Stub};

const SMALL: &str = "text-embedding-3-small";
const ON: (&str, &str) = ("cache.derive_dimensions", "true");

fn body(dimensions: Option<usize>, texts: &[&str]) -> Value {
    let mut body = json!({"model": SMALL, "input": texts});
    if let Some(dimensions) = dimensions {
        body["dimensions"] = json!(dimensions);
    }
    body
}

/// Returns the first components of the service's own vector, scaled to unit length.
fn cut(text: &str, own: Option<usize>, dimensions: usize) -> Vec<f32> {
    let kept = Stub::vector(SMALL, own, text)[..dimensions].to_vec();
    let length = kept.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "the vector holds f32")]
    kept.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}

fn sources(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.cache(), answer.sources())
}

#[tokio::test]
async fn shorter_vectors_come_from_longer_ones_and_are_marked() {
    let front = Front::with(&[ON]).await;
    front.ask(&body(None, &["a", "b"])).await;
    for encoding in ["float", "base64", "float"] {
        let mut short = body(Some(256), &["a", "b", "a"]);
        short["encoding_format"] = json!(encoding);
        let answer = front.ask(&short).await;
        assert_eq!(sources(&answer), (200, "hit", "derived=3"), "it is never stored as the service's own");
        assert_eq!(answer.vectors(), [cut("a", None, 256), cut("b", None, 256), cut("a", None, 256)]);
        assert_eq!((answer.json()["model"].as_str(), answer.usage()), (Some(SMALL), 3));
    }
    let only = front.post(body(Some(512), &["a"]).to_string()).header("cache-control", "only-if-cached").send().await;
    assert_eq!(sources(&only), (200, "hit", "derived=1"));
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn vectors_of_the_models_own_dimension_by_name_serve_as_well() {
    let front = Front::with(&[ON]).await;
    front.ask(&body(Some(1536), &["a"])).await;
    let answer = front.ask(&body(Some(64), &["a", "new"])).await;
    assert_eq!(sources(&answer), (200, "partial", "derived=1, upstream=1"));
    assert_eq!(answer.vectors(), [cut("a", Some(1536), 64), Stub::vector(SMALL, Some(64), "new")]);
}

#[tokio::test]
async fn a_fetch_replaces_the_derived_vector() {
    let front = Front::with(&[ON]).await;
    front.ask(&body(None, &["a"])).await;
    let short = body(Some(256), &["a"]);
    assert_eq!(front.ask(&short).await.sources(), "derived=1");
    let fetched = front.post(short.to_string()).header("cache-control", "no-cache").send().await;
    assert_eq!(fetched.sources(), "upstream=1");
    for _ in 0..3 {
        let answer = front.ask(&short).await;
        assert_eq!(sources(&answer), (200, "hit", "memory=1"));
        assert_eq!(answer.vectors(), [Stub::vector(SMALL, Some(256), "a")]);
    }
}

#[tokio::test]
async fn nothing_is_derived_by_default_for_other_models_or_across_callers() {
    let off = Front::start().await;
    off.ask(&body(None, &["a"])).await;
    assert_eq!(off.ask(&body(Some(256), &["a"])).await.cache(), "miss");

    let front = Front::with(&[ON]).await;
    let other = |dimensions: Value| json!({"model": "tiny", "input": "a", "dimensions": dimensions});
    front.ask(&other(Value::Null)).await;
    assert_eq!(front.ask(&other(json!(4))).await.cache(), "miss", "the model is not trained for it");
    front.post(body(None, &["a"]).to_string()).key("one").send().await;
    let foreign = front.post(body(Some(256), &["a"]).to_string()).key("two").send().await;
    assert_eq!(foreign.cache(), "miss", "another caller's entries are not used");
    front.ask(&body(Some(256), &["b"])).await;
    assert_eq!(front.ask(&body(Some(512), &["b"])).await.cache(), "miss", "a shorter vector gives no longer one");
    assert_eq!(front.ask(&body(None, &["b"])).await.cache(), "miss");
}

#[tokio::test]
async fn a_purge_of_the_longer_vector_ends_the_derived_one() {
    let front = Front::with(&[ON]).await;
    front.ask(&body(None, &["a"])).await;
    assert_eq!(front.ask(&body(Some(256), &["a"])).await.cache(), "hit");
    front.purge("").await;
    assert_eq!(front.ask(&body(Some(256), &["a"])).await.cache(), "miss");
}

#[tokio::test]
async fn a_vector_of_an_older_model_is_not_cut_for_a_newer_one() {
    let front = Front::with(&[ON]).await;
    front.ask(&body(None, &["a"])).await;
    front.stub.always(Behaviour::OtherModel("another".to_owned()));
    assert_eq!(front.ask(&body(Some(256), &["new"])).await.json()["model"], "another");
    let answer = front.ask(&body(Some(256), &["a"])).await;
    assert_eq!((answer.sources(), answer.json()["model"].as_str()), ("upstream=1", Some("another")));
    assert_eq!(answer.vectors(), [Stub::vector("another", Some(256), "a")]);
}

/// Counter of lookups on disk.
const LOOKUPS: &str = r#"vecho_cache_lookup_duration_seconds_count{tier="disk"}"#;

#[tokio::test]
async fn longer_vectors_are_loaded_from_disk_in_slices() {
    let folder = Folder::new();
    let front = Front::with(&[ON, ("disk.path", folder.text())]).await;
    let texts: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    front.ask(&body(None, &texts)).await;
    front.purge("?tier=memory").await;
    let before = front.metric(LOOKUPS).await;
    let answer = front.ask(&body(Some(64), &texts)).await;
    assert_eq!(sources(&answer), (200, "hit", "derived=300"));
    assert_eq!(answer.vectors()[299], cut("299", None, 64));
    let lookups = front.metric(LOOKUPS).await - before;
    assert!((lookups - 4.0).abs() < f64::EPSILON, "one of the short vectors, and three slices: {lookups}");
}

#[tokio::test]
async fn a_model_whose_vectors_cannot_be_cut_causes_no_further_lookups() {
    let folder = Folder::new();
    let front = Front::with(&[ON, ("disk.path", folder.text())]).await;
    let other = |text: &str| json!({"model": "tiny", "input": text, "dimensions": 4});
    front.ask(&other("a")).await;
    let before = front.metric(LOOKUPS).await;
    front.ask(&other("b")).await;
    let lookups = front.metric(LOOKUPS).await - before;
    assert!((lookups - 1.0).abs() < f64::EPSILON, "{lookups}");
}

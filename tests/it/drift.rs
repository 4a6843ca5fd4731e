//! When the upstream begins to answer with another model, older entries become misses, and no reply mixes two models.

use crate::harness::client::Answer;
use crate::harness::front::{texts_of, tiny};
use crate::harness::{Behaviour, Front};

fn model(answer: &Answer) -> String {
    answer.json()["model"].as_str().expect("a model is text").to_owned()
}

fn renamed(name: &str) -> Behaviour {
    Behaviour::ModelName(name.to_owned())
}

/// Starts a front that has cached these texts from the first model. The upstream then switches to the second model.
async fn knowing(texts: &[&str]) -> Front {
    let front = Front::start().await;
    front.stub.always(renamed("tiny-v1"));
    for _ in 0..3 {
        assert_eq!(model(&front.embed(texts).await), "tiny-v1");
    }
    front.stub.always(renamed("tiny-v2"));
    front
}

#[tokio::test]
async fn the_model_that_answered_is_named_on_misses_and_on_hits() {
    let front = knowing(&["a"]).await;
    let hit = front.embed(&["a"]).await;
    assert_eq!((model(&hit).as_str(), hit.header("openai-model"), hit.cache()), ("tiny-v1", Some("tiny-v1"), "hit"));
}

#[tokio::test]
async fn a_model_change_makes_older_entries_misses() {
    let front = knowing(&["a", "b"]).await;
    assert_eq!(model(&front.embed(&["new"]).await), "tiny-v2");
    for text in ["a", "b"] {
        let fetched = front.embed(&[text]).await;
        assert_eq!((model(&fetched).as_str(), fetched.cache()), ("tiny-v2", "miss"));
        assert_eq!(fetched.vectors(), tiny(&[text]));
        assert_eq!(front.embed(&[text]).await.cache(), "hit");
    }
}

#[tokio::test]
async fn a_mixed_batch_never_mixes_two_models() {
    let front = knowing(&["a", "b"]).await;
    let mixed = front.embed(&["a", "new", "b"]).await;
    assert_eq!(mixed.vectors(), tiny(&["a", "new", "b"]));
    assert_eq!((model(&mixed).as_str(), mixed.sources()), ("tiny-v2", "upstream=3"));
    assert_eq!(front.texts_sent()[1..], [vec!["new"], vec!["a", "b"]], "the known ones are asked for again");
    assert_eq!(front.embed(&["b", "a", "new"]).await.cache(), "hit");
}

#[tokio::test]
async fn a_model_change_invalidates_cached_replies_of_its_space() {
    let front = knowing(&["a"]).await;
    front.embed(&["new"]).await;
    let fetched = front.embed(&["a"]).await;
    assert_eq!((model(&fetched).as_str(), fetched.cache()), ("tiny-v2", "miss"));
}

#[tokio::test]
async fn a_model_that_changes_with_every_call_causes_a_bypass() {
    let front = Front::with(&[("batch.max_inputs", "1")]).await;
    front.stub.when(|call| call.texts() == ["a"], renamed("one"));
    front.stub.when(|call| call.texts() == ["b"], renamed("other"));
    let body = texts_of(&["a", "b"]).to_string();
    let passed = front.post(body.clone()).send().await;
    assert_eq!((passed.cache(), passed.header("x-vecho-bypass-reason")), ("bypass", Some("unsteady_model")));
    assert_eq!((passed.vectors(), model(&passed)), (tiny(&["a", "b"]), "tiny".to_owned()));
    assert_eq!(front.stub.embedding_calls().last().expect("a call").body, body);
}

/// Returns a complete upstream answer to one input: a vector of another length under the same model name.
fn two_components() -> Behaviour {
    let body = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.6,0.8]}],"model":"tiny-v1","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    Behaviour::Status { code: 200, headers: Vec::new(), body: body.to_owned() }
}

#[tokio::test]
async fn vectors_of_another_dimension_are_a_model_change() {
    let front = knowing(&["a", "b"]).await;
    front.stub.always(two_components());
    let mixed = front.embed(&["a", "new"]).await;
    assert_eq!(mixed.vectors(), [[0.6, 0.8], [0.6, 0.8]]);
    let fetched = front.embed(&["b"]).await;
    assert_eq!((fetched.cache(), fetched.vectors()), ("miss", vec![vec![0.6, 0.8]]));
}

#[tokio::test]
async fn only_if_cached_never_answers_with_an_older_model() {
    let front = knowing(&["a"]).await;
    front.embed(&["new"]).await;
    for texts in [&["a"][..], &["a", "new"]] {
        let ask = front.post(texts_of(texts).to_string()).header("cache-control", "only-if-cached");
        assert_eq!(ask.send().await.status, 504, "{texts:?}");
    }
}

#[tokio::test]
async fn a_model_change_in_one_space_does_not_affect_others() {
    let front = knowing(&["a"]).await;
    let other = |text: &str| serde_json::json!({"model": "tiny", "input": text, "dimensions": 4});
    front.stub.always(renamed("tiny-v1"));
    front.ask(&other("x")).await;
    front.stub.always(renamed("tiny-v2"));
    front.ask(&other("y")).await;
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
}

#[tokio::test]
async fn an_alias_of_the_requested_model_is_not_a_model_change() {
    let front = Front::start().await;
    let ada = |text: &str| serde_json::json!({"model": "text-embedding-ada-002", "input": text});
    for text in ["a", "b"] {
        assert_eq!(model(&front.ask(&ada(text)).await), "text-embedding-ada-002-v2");
    }
    assert_eq!(front.ask(&ada("a")).await.cache(), "hit");
    assert_eq!(front.metric("vecho_model_drifts_total").await.to_bits(), 0.0_f64.to_bits());
}

#[tokio::test]
async fn configured_aliases_are_one_model() {
    let front = Front::with(&[("cache.same_models", "azure/tiny=tiny")]).await;
    for (number, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
        front.stub.next(renamed(["tiny", "azure/tiny"][number % 2]));
        assert_eq!(front.embed(&[text]).await.cache(), "miss");
    }
    let hit = front.embed(&["a", "b", "c", "d"]).await;
    assert_eq!((hit.cache(), hit.vectors(), model(&hit).as_str()), ("hit", tiny(&["a", "b", "c", "d"]), "tiny"));
    assert_eq!(front.metric("vecho_model_drifts_total").await.to_bits(), 0.0_f64.to_bits());
}

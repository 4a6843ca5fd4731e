//! Inputs over the limit of their model: passed on, refused or cut, as `limits.long_input` says.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::disk::ground::Folder;
use crate::forgetting::forget;
use crate::harness::ops::metric_becomes;
use crate::harness::stub::tokens;
use crate::harness::{Front, Inside, Stub};

const SMALL: &str = "text-embedding-3-small";

/// Returns a text of more than 8192 tokens.
fn long(word: &str) -> String {
    format!("{word} ").repeat(9_000)
}

fn body(model: &str, input: impl Into<Value>) -> Value {
    json!({"model": model, "input": input.into()})
}

#[tokio::test]
async fn by_default_the_service_decides() {
    let front = Front::start().await;
    let answer = front.ask(&body(SMALL, long("word"))).await;
    assert_eq!(answer.status, 400, "the stub has the limits of the service");
    assert_eq!(front.stub.embedding_calls()[0].texts(), [long("word")]);
}

#[tokio::test]
async fn a_cut_input_is_an_input_of_its_own_and_is_marked() {
    let front = Front::with(&[("limits.long_input", "truncate")]).await;
    let (cut, emoji) = (long("word"), "🦀".repeat(9_000));
    let request = body(SMALL, vec!["short".to_owned(), cut.clone(), emoji.clone()]);
    let mut kept = Vec::new();
    for round in 0..3 {
        let answer = front.ask(&request).await;
        assert_eq!((answer.status, answer.header("x-vecho-truncated")), (200, Some("2")), "round {round}");
        assert_eq!(answer.cache(), if round == 0 { "miss" } else { "hit" });
        kept = front.texts_sent()[0].clone();
        let expected: Vec<_> = kept.iter().map(|text| Stub::vector(SMALL, None, text)).collect();
        assert_eq!(answer.vectors(), expected);
    }
    assert_eq!(front.calls(), 1);
    for (sent, whole) in kept[1..].iter().zip([&cut, &emoji]) {
        assert!(whole.starts_with(sent.as_str()));
        let count = tokens(sent);
        assert!((8_189..=8_192).contains(&count), "{count} tokens");
    }
    // The shorter text has the same entry. The longer text has none of its own.
    let shorter = front.ask(&body(SMALL, kept[1].clone())).await;
    assert_eq!((shorter.cache(), shorter.header("x-vecho-truncated")), ("hit", None));
    let tokens = front.ask(&body(SMALL, vec![7; 10_000])).await;
    assert_eq!((tokens.status, tokens.header("x-vecho-truncated")), (200, Some("1")));
    assert_eq!(tokens.vectors(), [Stub::vector(SMALL, None, &vec![7; 8_192][..])]);
}

#[tokio::test]
async fn a_rejected_input_is_named_and_reaches_no_upstream() {
    let front = Front::with(&[("limits.long_input", "reject, tiny=pass, own=truncate")]).await;
    let answer = front.ask(&body(SMALL, vec!["short".to_owned(), long("word")])).await;
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"].clone();
    assert_eq!(error["message"], "input[1] has more than 8192 tokens (limits.long_input).");
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("input")));
    let similar = json!({"model": SMALL, "query": "q", "candidates": [long("word")]});
    assert_eq!(front.post_to("/v1/vecho/similar", similar.to_string()).send().await.status, 400);
    assert_eq!(front.calls(), 0);
    for (route, outcome, expected) in [
        ("embeddings", "long_input", 1.0),
        ("similar", "long_input", 1.0),
        ("embeddings", "rejected", 0.0),
        ("similar", "rejected", 0.0),
    ] {
        let series = format!(r#"vecho_requests_total{{outcome="{outcome}",route="{route}"}}"#);
        metric_becomes(front.admin(), &series, expected).await;
    }
    assert_eq!(front.ask(&body(SMALL, "short".to_owned())).await.status, 200);
    // A model that is named has its own treatment, whatever its name; any other model has no known limit.
    assert_eq!(front.ask(&body("own", long("word"))).await.header("x-vecho-truncated"), Some("1"));
    front.ask(&body("tiny", long("word"))).await;
    front.ask(&body("unknown", long("word"))).await;
    let sent = front.texts_sent();
    assert_eq!(sent[sent.len() - 2..], [vec![long("word")], vec![long("word")]]);
}

async fn explained(front: &Front, request: &Value) -> Value {
    front.explain(&request.to_string()).await
}

/// Forgets the inputs of a request, and returns the number of entries that left a tier.
async fn forgotten(admin: SocketAddr, request: &Value, tier: &str) -> Value {
    let answer = forget(admin, &[], request).await;
    assert_eq!((answer.status, &answer.json()["pending"]), (200, &json!([])), "{answer:?}");
    answer.json()["removed_entries"][tier].clone()
}

#[tokio::test]
async fn the_entry_of_a_cut_input_is_explained_and_forgotten_by_the_longer_text() {
    let front = Front::with(&[("limits.long_input", "truncate")]).await;
    let request = body(SMALL, vec!["short".to_owned(), long("word")]);
    front.ask(&request).await;
    assert_eq!(front.ask(&request).await.cache(), "hit");
    let states = explained(&front, &request).await["inputs"].clone();
    assert_eq!([&states[0]["state"], &states[1]["state"]], ["fresh"; 2], "{states}");
    assert_eq!(forgotten(front.admin(), &body(SMALL, long("word")), "memory").await, 1);
    assert_eq!(explained(&front, &request).await["inputs"][1]["state"], "missing");
    assert_eq!(front.ask(&request).await.sources(), "memory=1, upstream=1");
}

#[tokio::test]
async fn a_forget_covers_the_text_as_written_and_as_cut_whatever_the_setting_is_by_now() {
    let folder = Folder::new();
    let request = body("own", long("word"));
    let with = async |treatment| {
        // The built-in upstream has no limit of tokens.
        Inside::start("mock:", &[("limits.long_input", treatment), ("disk.path", folder.text())]).await
    };
    for (before, after) in [("own=truncate", "own=pass"), ("own=pass", "own=truncate"), ("own=pass", "own=reject")] {
        let vecho = with(before).await;
        vecho.embed(&request).await;
        assert_eq!(vecho.embed(&request).await.cache(), "hit", "{before}");
        vecho.stop().await;
        let vecho = with(after).await;
        assert_eq!(forgotten(vecho.admin(), &request, "disk").await, 1, "{before} {after}");
        vecho.stop().await;
        let vecho = with(before).await;
        assert_eq!(vecho.embed(&request).await.cache(), "miss", "{before} {after}");
        assert_eq!(forgotten(vecho.admin(), &request, "memory").await, 1);
        vecho.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_would_be_refused_for_its_length_is_explained_so() {
    let front = Front::with(&[("limits.long_input", "reject")]).await;
    let explained = explained(&front, &body(SMALL, vec!["short".to_owned(), long("word")])).await;
    assert_eq!((&explained["cacheable"], &explained["reason"]), (&json!(false), &json!("long_input")));
    assert!(explained["message"].as_str().is_some_and(|text| text.starts_with("input[1] has more than 8192 tokens")));
}

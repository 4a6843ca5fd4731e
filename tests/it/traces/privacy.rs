//! No private data of a caller is exported with a trace.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use super::ground::Ground;
use crate::harness::front::TINY;
use crate::harness::{Behaviour, Client};

const SECRETS: [&str; 6] =
    ["a very private text", "sk-very-secret", "hidden-in-query", "odd-method", "a private complaint", "someone"];

#[tokio::test]
async fn exported_spans_contain_no_texts_keys_or_queries() {
    let ground = Ground::with(&[("traces.headers", "authorization=Bearer%20collector-token")]).await;
    let front = &ground.front;
    let body = json!({"model": TINY, "input": [SECRETS[0], "other"], "user": SECRETS[5]});
    let key = SECRETS[1];
    for _ in 0..3 {
        let ask = front.post_to("/v1/embeddings?key=hidden-in-query", body.to_string());
        assert_eq!(ask.key(key).header("x-vecho-namespace", SECRETS[5]).send().await.status, 200);
    }
    let refusal = format!(r#"{{"error":{{"message":"{}: {}"}}}}"#, SECRETS[4], SECRETS[0]);
    front.stub.next(Behaviour::Status { code: 400, headers: Vec::new(), body: refusal });
    let refused = json!({"model": TINY, "input": [SECRETS[0], "refused"]});
    assert_eq!(front.post(refused.to_string()).key(key).send().await.status, 400);
    let bypass = json!({"model": TINY, "input": SECRETS[0], "unheard_of": SECRETS[4]});
    assert_eq!(front.post(bypass.to_string()).key(key).send().await.cache(), "bypass");
    let odd = Request::builder()
        .method(Method::from_bytes(SECRETS[3].as_bytes()).expect("a legal method"))
        .uri(front.url("/v1/echo?key=hidden-in-query"))
        .header("api-key", key)
        .body(Full::default())
        .expect("a legal request");
    Client::new().send(odd).await.expect("an answer");
    // Three answers of which one was fetched, a refusal, and two pass-through requests.
    ground.collector.has(6 + 4 + 2 + 2).await;
    for bytes in ground.collector.bytes() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("vecho"), "what is searched is what was sent");
        for secret in SECRETS.iter().chain(&["collector-token", "odd-method"]) {
            assert!(!text.contains(secret), "{secret:?} is in {text}");
        }
    }
    let delivered = ground.collector.deliveries();
    assert!(delivered.iter().all(|call| call.header("authorization") == Some("Bearer collector-token")));
}

#[tokio::test]
async fn names_given_by_callers_are_truncated() {
    let ground = Ground::start().await;
    let model = "ä".repeat(2_000);
    ground.front.ask(&json!({"model": model, "input": "a"})).await;
    ground.collector.has_all(&["POST /v1/embeddings"]).await;
    let spans = ground.collector.spans();
    let longest = spans.iter().filter_map(|span| span.said("gen_ai.request.model")).map(|said| said.len()).max();
    assert_eq!(longest, Some(256));
    assert!(spans.iter().all(|span| span.proto.name.len() <= 300));
}

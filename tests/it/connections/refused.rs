//! Requests and answers that cannot be forwarded, and the errors that name the reason.

use serde_json::json;

use crate::harness::Inside;
use crate::harness::client::Answer;
use crate::harness::scripted::{Act, Scripted, ok};
use crate::harness::socket::exchange;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: odd\r\n\r\n";

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn a_switch_of_protocols_that_was_not_requested_is_a_502() {
    let server = Scripted::start(|_| Act::Say(SWITCH.to_owned())).await;
    let pairs = [("retry.max_attempts", "1"), ("fallback.mode", "error")];
    let vecho = Inside::start(&server.base_url(), &pairs).await;
    let passed = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
    assert_eq!((passed.status, passed.error()), (502, ("server_error".to_owned(), json!("upstream_unavailable"))));
    assert!(message(&passed).contains("101"), "{}", message(&passed));
    let embedded = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
    assert_eq!((embedded.status, embedded.error()), (502, ("server_error".to_owned(), json!("upstream_unavailable"))));
    assert!(message(&embedded).contains("101"), "{}", message(&embedded));
}

#[tokio::test]
async fn trace_is_refused_and_never_forwarded() {
    let server = Scripted::start(|arrival| Act::Say(ok(&arrival.head))).await;
    let vecho = Inside::start(&server.base_url(), &[("upstream.api_key", "sk-held")]).await;
    for path in ["/v1/models", "/v1/embeddings", "/"] {
        let request = format!("TRACE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(vecho.public(), request).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains(r#""code":"method_not_allowed""#), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nallow: get, head, post"), "{answer}");
    }
    assert!(server.arrivals().is_empty());
}

#[tokio::test]
async fn a_502_states_vecho_the_upstream_and_the_cause() {
    let server = Scripted::start(|_| Act::Close).await;
    let (upstream, vecho) = (server.root_url(), Inside::start(&server.base_url(), &[]).await);
    let models = format!("http://{}/v1/models", vecho.public());
    let unanswered = vecho.client.get(&models).await;
    assert_eq!(unanswered.status, 502);
    let expected = format!("vecho got no answer from the upstream {upstream}: connection closed");
    assert!(message(&unanswered).starts_with(&expected), "{}", message(&unanswered));
    drop(server);
    let unreachable = async || {
        let answer = vecho.client.get(&models).await;
        (answer.status, message(&answer))
    };
    let expected = format!("vecho could not reach the upstream {upstream}: Connection refused");
    crate::harness::eventually("the port refuses", async || {
        let (status, message) = unreachable().await;
        status == 502 && message.starts_with(&expected)
    })
    .await;
}

//! Requests that do not pass, and the errors that say why.

use crate::harness::Inside;
use crate::harness::scripted::{Act, Scripted, ok};
use crate::harness::socket::exchange;

#[tokio::test]
async fn trace_is_not_allowed_and_never_goes_up() {
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

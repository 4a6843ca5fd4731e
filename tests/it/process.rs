//! The process as a supervisor sees it: addresses in the log, two ports, an orderly shutdown.

use serde_json::json;

use crate::harness::{Client, Stub, Vecho};

#[tokio::test]
async fn the_process_serves_its_ports_and_stops_cleanly_on_sigterm() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let client = Client::new();
    let body = json!({"model": "tiny", "input": "x"});
    let answer = client.post(&format!("http://{}/v1/embeddings", vecho.public()), &body).await;
    assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, "x")]));
    assert_eq!(client.get(&format!("http://{}/readyz", vecho.admin())).await.status, 200);
    let ended = vecho.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
}

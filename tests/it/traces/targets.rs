//! Spans of calls to several targets.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::collector::{Span, all, answer};
use crate::harness::front::texts_of;
use crate::harness::{Collector, Inside, Stub};

#[tokio::test]
async fn each_attempt_names_its_target_and_its_address_also_after_a_move() {
    let (collector, stubs) = (Collector::start(), [Stub::start(), Stub::start()]);
    let [a, b] = [0, 1]
        .map(|place: usize| json!({"name": (["a", "b"][place]), "url": stubs[place].base_url(), "api_key": "sk"}));
    let (targets, url) = (json!([a, b]).to_string(), collector.url());
    let settings = [("targets", targets.as_str()), ("traces.endpoint", &url), ("traces.send_every", "10ms")];
    let vecho = Inside::start(&stubs[0].base_url(), &settings).await;
    assert_eq!(vecho.embed(texts_of(&["x"])).await.status, 200);
    stubs[0].always(answer(503, Vec::new()));
    assert_eq!(vecho.embed(texts_of(&["y"])).await.header("x-vecho-target"), Some("b"));
    let is_whole = || all(&collector.spans(), "embeddings tiny").len() == 3;
    crate::harness::eventually("all calls are delivered", async || is_whole()).await;
    let spans = collector.spans();
    let calls = all(&spans, "embeddings tiny");
    let ports = stubs.each_ref().map(|stub| stub.addr().port().to_string());
    let place = |call: &Span| ["vecho.target", "server.address", "server.port"].map(|name| call.said(name));
    let at = |name: &str, port: &str| [name, "127.0.0.1", port].map(|text| Some(text.to_owned()));
    let expected = [at("a", &ports[0]), at("a", &ports[0]), at("b", &ports[1])];
    assert_eq!(calls.iter().map(|call| place(call)).collect::<Vec<_>>(), expected);
    assert_eq!(calls.iter().map(|call| call.has_failed()).collect::<Vec<_>>(), [false, true, false]);
    let traces: BTreeSet<String> = calls[1..].iter().map(|call| call.trace_id()).collect();
    assert_eq!(traces.len(), 1, "both attempts of a request are in its trace");
    vecho.stop().await;
}

#[tokio::test]
async fn the_call_to_a_single_upstream_names_no_target() {
    let (collector, stub) = (Collector::start(), Stub::start());
    let url = collector.url();
    let settings = [("traces.endpoint", url.as_str()), ("traces.send_every", "10ms")];
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    assert_eq!(vecho.embed(texts_of(&["x"])).await.status, 200);
    let spans = collector.has_all(&["embeddings tiny"]).await;
    assert_eq!(all(&spans, "embeddings tiny")[0].said("vecho.target"), None);
    vecho.stop().await;
}

//! Delivery to the collector: content, failures of the collector, and the end of the process.

use std::time::Duration;

use serde_json::json;

use super::ground::Ground;
use crate::harness::collector::{answer, only};
use crate::harness::front::texts_of;
use crate::harness::tls::{Folder, Identity, front as tls_front};
use crate::harness::{Behaviour, Client, Collector, Inside, Stub, Vecho, eventually};

const REQUEST: &str = "POST /v1/embeddings";
const TROUBLE: &str = "cannot deliver traces to the collector";

async fn embed(vecho: &Vecho, text: &str) {
    let body = json!({"model": "tiny", "input": text});
    let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &body).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_opentelemetry_variables_set_endpoint_headers_and_resource() {
    let (stub, collector) = (Stub::start(), Collector::start());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=search,authorization=Basic%20abc".to_owned()),
        ("OTEL_SERVICE_NAME", "search-cache".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.namespace.name=search".to_owned()),
        ("VECHO_TRACES_SEND_EVERY", "10ms".to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    embed(&vecho, "a").await;
    let spans = collector.has_all(&[REQUEST]).await;
    let request = only(&spans, REQUEST);
    for (name, value) in [
        ("service.name", "search-cache"),
        ("k8s.namespace.name", "search"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(request.resource(name).as_deref(), Some(value), "{name}");
    }
    let delivery = &collector.deliveries()[0];
    assert_eq!((delivery.method.as_str(), delivery.path.as_str()), ("POST", "/v1/traces"));
    for (name, value) in
        [("content-type", "application/x-protobuf"), ("x-tenant", "search"), ("authorization", "Basic abc")]
    {
        assert_eq!(delivery.header(name), Some(value));
    }
    assert_eq!(delivery.header("traceparent"), None, "deliveries are in no trace");
}

#[tokio::test]
async fn collector_certificates_are_verified_by_the_configured_roots() {
    let (collector, stub) = (Collector::start(), Stub::start());
    let (folder, identity) = (Folder::new("traces-ca"), Identity::new("localhost"));
    let addr = tls_front(&identity, collector.stub.addr()).await;
    let (ca_file, url) = (folder.write("ca.pem", &identity.cert_pem), format!("https://localhost:{}", addr.port()));
    let own = [("traces.endpoint", url.as_str()), ("traces.send_every", "10ms")];
    let trusting = Inside::start(&stub.base_url(), &[&own[..], &[("traces.ca_file", &ca_file)]].concat()).await;
    assert_eq!(trusting.embed(texts_of(&["a"])).await.status, 200);
    collector.has_all(&[REQUEST]).await;
    let before = collector.deliveries().len();
    let doubting = Inside::start(&stub.base_url(), &own).await;
    assert_eq!(doubting.embed(texts_of(&["a"])).await.status, 200);
    crate::harness::ops::metric_becomes(doubting.admin(), &super::ground::series("failed"), 4.0).await;
    assert_eq!(collector.deliveries().len(), before, "nothing is sent to who is not trusted");
}

#[tokio::test]
async fn a_collector_outage_affects_no_request_and_export_resumes() {
    let ground = Ground::with(&[("traces.queue_spans", "8")]).await;
    ground.collector.stub.down().await;
    let mut asked = 0;
    while ground.counted("queue_full").await == 0.0 || ground.counted("failed").await == 0.0 {
        asked += 1;
        assert_eq!(ground.embed(&[&format!("down {asked}")]).await.status, 200);
    }
    assert!(ground.counted("exported").await == 0.0);
    ground.collector.stub.up().await;
    // Some spans may be dropped before the queue has room again. Spans of later requests arrive.
    eventually("a span of what is asked now", async || {
        ground.embed(&["a"]).await;
        ground.counted("exported").await > 0.0
    })
    .await;
    ground.collector.has_all(&[REQUEST]).await;
}

#[tokio::test]
async fn a_hanging_collector_affects_no_request_and_bounds_the_queue() {
    let ground = Ground::with(&[("traces.queue_spans", "16")]).await;
    ground.collector.stub.always(Behaviour::Gate);
    ground.embed(&["first"]).await;
    ground.collector.stub.held(1).await;
    for n in 0..50 {
        assert_eq!(ground.embed(&[&n.to_string()]).await.status, 200);
    }
    // Of 204 spans, four are in flight and sixteen wait.
    ground.counts("queue_full", 184.0).await;
    assert_eq!(ground.collector.deliveries().len(), 1, "one at a time");
    ground.collector.stub.always(answer(200, Vec::new()));
    ground.collector.stub.release_all();
    ground.counts("exported", 16.0).await;
}

#[tokio::test]
async fn batches_that_a_busy_collector_rejects_are_retried() {
    let ground = Ground::start().await;
    for status in [503, 429] {
        ground.collector.stub.next(answer(status, Vec::new()));
    }
    ground.embed(&["a"]).await;
    ground.counts("exported", 4.0).await;
    let bodies = ground.collector.bytes();
    assert!(bodies.len() >= 3 && bodies[0] == bodies[1] && bodies[1] == bodies[2], "{}", bodies.len());
    assert!(ground.counted("failed").await == 0.0);
}

#[tokio::test]
async fn batches_that_a_collector_refuses_are_counted_and_not_retried() {
    let ground = Ground::start().await;
    ground.collector.stub.always(answer(400, Vec::new()));
    ground.embed(&["a"]).await;
    ground.counts("failed", 4.0).await;
    let tried = ground.collector.deliveries().len();
    // The collector rejects one span of the next delivery. In OTLP that is field 1, and in it field 1 = 1.
    ground.collector.stub.always(answer(200, vec![0x0a, 0x02, 0x08, 0x01]));
    ground.embed(&["a"]).await;
    ground.counts("failed", 5.0).await;
    assert_eq!(ground.collector.deliveries().len(), tried + 1);
}

#[tokio::test]
async fn collector_errors_are_logged_once_and_recovery_once() {
    let (stub, collector) = (Stub::start(), Collector::start());
    collector.stub.always(answer(404, Vec::new()));
    let environment = [
        ("VECHO_TRACES_ENDPOINT", collector.url()),
        ("VECHO_TRACES_HEADERS", "authorization=hunter2".to_owned()),
        ("VECHO_TRACES_SEND_EVERY", "10ms".to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    for n in 1..=5 {
        embed(&vecho, "a").await;
        eventually("one delivery more", async || collector.deliveries().len() >= n).await;
    }
    vecho.logged(TROUBLE).await;
    collector.stub.always(answer(200, Vec::new()));
    embed(&vecho, "a").await;
    vecho.logged("traces are delivered to the collector again").await;
    let log = vecho.stop().log;
    assert_eq!(log.matches(TROUBLE).count(), 1, "{log}");
    assert!(log.contains("404") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn shutdown_exports_finished_spans() {
    let (stub, collector) = (Stub::start(), Collector::start());
    let url = collector.url();
    let slow = [("VECHO_TRACES_ENDPOINT", url.as_str()), ("VECHO_TRACES_SEND_EVERY", "1h")];
    let vecho = Vecho::start_with(&stub.base_url(), &slow);
    embed(&vecho, "a").await;
    assert!(collector.deliveries().is_empty(), "it waits for more");
    let ended = vecho.stop();
    assert!(ended.status.success() && ended.log.contains("nothing was cut"), "{}", ended.log);
    only(&collector.spans(), REQUEST);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_hanging_collector_and_counts_lost_spans() {
    let (stub, collector) = (Stub::start(), Collector::start());
    collector.stub.always(Behaviour::Gate);
    let url = collector.url();
    let own = [("traces.endpoint", url.as_str()), ("traces.send_every", "10ms"), ("shutdown.grace", "300ms")];
    let vecho = Inside::start(&stub.base_url(), &own).await;
    assert_eq!(vecho.embed(texts_of(&["a"])).await.status, 200);
    collector.stub.held(1).await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), vecho.stop());
    let stopped = stopping.await.expect("it must not wait for the collector's timeout");
    assert_eq!(stopped.unsent_spans, 4, "{stopped:?}");
}

//! The trace that a request belongs to, and its sampling.

use std::collections::HashSet;

use super::ground::{Ground, SPAN, TRACE, traceparent};
use crate::harness::collector::{Span, only};
use crate::harness::front::texts_of;
use crate::harness::{Collector, Front};

/// Sends another request after unrecorded ones. Once its spans have arrived, theirs would have arrived too.
async fn marker(ground: &Ground) {
    assert_eq!(ground.in_trace(&["marker"]).send().await.status, 200);
    ground.collector.has_all(&["POST /v1/embeddings"]).await;
}

#[tokio::test]
async fn an_unsampled_trace_of_the_caller_stays_unsampled_upstream() {
    let ground = Ground::start().await;
    let ask = ground.front.post(texts_of(&["a"]).to_string()).header("traceparent", &traceparent("00"));
    assert_eq!(ask.send().await.status, 200);
    marker(&ground).await;
    let sent = &ground.parents_sent()[0];
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert!(!sent.contains(SPAN), "it has a span of its own all the same: {sent}");
    let spans = ground.collector.has(4).await;
    assert_eq!(only(&spans, "POST /v1/embeddings").said("vecho.inputs").as_deref(), Some("1"));
    let exported = ground.counted("exported").await;
    assert!((4.0..5.0).contains(&exported), "the marker's alone: {exported}");
}

#[tokio::test]
async fn the_sample_ratio_applies_to_requests_without_a_trace() {
    let none = Ground::with(&[("traces.sample_ratio", "0")]).await;
    for text in ["a", "b", "c"] {
        none.embed(&[text]).await;
    }
    marker(&none).await;
    assert_eq!(none.collector.has(4).await.len(), 4, "the marker's trace is its caller's, who records it");
    assert!(none.parents_sent()[..3].iter().all(|parent| parent.ends_with("-00")));
    let half = Ground::with(&[("traces.sample_ratio", "0.5")]).await;
    for n in 0..200 {
        half.embed(&[&n.to_string()]).await;
    }
    let sent = half.parents_sent();
    let sampled: HashSet<&str> =
        sent.iter().filter(|parent| parent.ends_with("-01")).filter_map(|parent| parent.split('-').nth(1)).collect();
    assert!((50..=150).contains(&sampled.len()), "{} of 200", sampled.len());
    let spans = half.collector.has(4 * sampled.len()).await;
    assert!(spans.iter().all(|span| sampled.contains(span.trace_id().as_str())), "whole traces or nothing of them");
}

#[tokio::test]
async fn a_malformed_traceparent_starts_a_new_trace_without_its_tracestate() {
    let ground = Ground::start().await;
    let malformed = [
        "nonsense".to_owned(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
    ];
    for (n, parent) in malformed.iter().enumerate() {
        let ask = ground.front.post(texts_of(&[&n.to_string()]).to_string());
        let answer = ask.header("traceparent", parent).header("tracestate", "a=1").send().await;
        assert_eq!(answer.status, 200);
    }
    let spans = ground.collector.has(4 * malformed.len()).await;
    let traces: HashSet<String> = spans.iter().map(Span::trace_id).collect();
    assert_eq!(traces.len(), malformed.len(), "each has a trace of its own");
    assert!(!traces.contains(TRACE));
    for call in ground.front.stub.embedding_calls() {
        let parent = call.header("traceparent").expect("it goes up").to_owned();
        assert!(traces.iter().any(|trace| parent.starts_with(&format!("00-{trace}-"))), "{parent}");
        assert_eq!(call.header("tracestate"), None);
    }
}

#[tokio::test]
async fn without_an_endpoint_no_spans_are_sent_and_trace_headers_pass_unchanged() {
    let (front, collector) = (Front::start().await, Collector::start());
    for parent in [traceparent("01"), "nonsense".to_owned()] {
        let body = texts_of(&[&parent]).to_string();
        let ask = front.post(body).header("traceparent", &parent).header("tracestate", "a=1");
        assert_eq!(ask.send().await.status, 200);
        let calls = front.stub.embedding_calls();
        let call = calls.last().expect("it is a miss");
        assert_eq!((call.header("traceparent"), call.header("tracestate")), (Some(parent.as_str()), Some("a=1")));
    }
    for result in ["exported", "queue_full", "failed"] {
        assert!(front.metric(&super::ground::series(result)).await == 0.0);
    }
    assert!(collector.deliveries().is_empty());
}

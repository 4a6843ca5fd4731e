//! Upstream calls that serve several requests: the trace that they belong to, and the links from other traces.

use super::ground::{Ground, TRACE};
use crate::harness::Behaviour;
use crate::harness::collector::{all, only};
use crate::harness::front::texts_of;

const CALL: &str = "embeddings tiny";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_merged_call_is_in_the_trace_of_the_first_request_and_linked_to_others() {
    let ground = Ground::with(&[("upstream.max_concurrent", "1")]).await;
    let front = &ground.front;
    // Calls are merged after the upstream has answered one.
    front.embed(&["before"]).await;
    front.stub.next(Behaviour::Gate);
    let blocker = front.post(r#"{"model": "blocker", "input": "b"}"#).send_meanwhile();
    front.stub.held(1).await;
    let first = ground.in_trace(&["a"]).send_meanwhile();
    front.reaches("vecho_upstream_queued_inputs", 1.0).await;
    let second = front.post(texts_of(&["b"]).to_string()).header("traceparent", OTHER).send_meanwhile();
    front.reaches("vecho_upstream_queued_inputs", 2.0).await;
    front.stub.release(1);
    for ask in [blocker, first, second] {
        assert_eq!(ask.await.expect("a request must end").status, 200);
    }
    // Four spans of each earlier request, three of each merged request, and the call.
    let spans = ground.collector.has(15).await;
    let calls = all(&spans, CALL);
    let call = *calls.iter().find(|call| call.trace_id() == TRACE).expect("the call is in the first one's trace");
    assert_eq!(call.trace_id(), TRACE);
    assert_eq!((call.said("vecho.requests").as_deref(), call.said("vecho.inputs").as_deref()), (Some("2"), Some("2")));
    let waits = all(&spans, "wait");
    let of = |trace: &str| *waits.iter().find(|wait| wait.trace_id() == trace).expect("each waits");
    let (own, other) = (of(TRACE), of("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!((call.parent(), call.links()), (own.id(), vec![other.id()]));
    assert_eq!((own.links(), other.links()), (vec![], vec![call.id()]));
    let sent = ground.parents_sent();
    assert_eq!(sent.len(), 3, "one call for both, whatever their traces");
    assert_eq!(sent[2], format!("00-{TRACE}-{}-01", call.id()));
}

#[tokio::test]
async fn a_waiter_is_linked_to_the_call_it_waits_for() {
    let ground = Ground::start().await;
    let front = &ground.front;
    front.stub.next(Behaviour::Gate);
    let first = ground.in_trace(&["a"]).send_meanwhile();
    front.stub.held(1).await;
    let second = front.post(texts_of(&["a"]).to_string()).header("traceparent", OTHER).send_meanwhile();
    front.reaches("vecho_requests_in_flight", 2.0).await;
    front.stub.release(1);
    for ask in [first, second] {
        assert_eq!(ask.await.expect("a request must end").status, 200);
    }
    let spans = ground.collector.has(6).await;
    let call = only(&spans, CALL);
    assert_eq!(call.trace_id(), TRACE);
    let waits = all(&spans, "wait");
    let joined = waits.iter().find(|wait| wait.trace_id() != TRACE).expect("both wait");
    assert_eq!((joined.said("vecho.led").as_deref(), joined.said("vecho.joined").as_deref()), (Some("0"), Some("1")));
    assert_eq!(joined.links(), [call.id()]);
    assert!(call.links().is_empty());
}

//! The header `x-vecho-priority`.

use serde_json::json;

use super::ground::{many, one_call_in, text};
use crate::harness::Front;
use crate::harness::front::Ask;
use crate::harness::stub::Reported;

const PRIORITY: &str = "x-vecho-priority";

#[tokio::test]
async fn unknown_priorities_are_refused_and_reach_no_upstream() {
    let front = Front::start().await;
    for value in ["high", "Bulk", "", "bulk,interactive", "1"] {
        let refused = front.post(text("a")).header(PRIORITY, value).send().await;
        assert_eq!((refused.status, refused.error().0), (400, "invalid_request_error".to_owned()), "{value:?}");
        let message = refused.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("x-vecho-priority takes interactive or bulk"), "{message}");
    }
    assert_eq!(front.calls(), 0);
}

#[tokio::test]
async fn the_header_is_never_forwarded_and_never_part_of_the_key() {
    let front = Front::start().await;
    for (name, value) in [("a", "interactive"), ("b", "bulk")] {
        assert_eq!(front.post(text(name)).header(PRIORITY, value).send().await.status, 200);
    }
    assert_eq!(front.post(text("a")).header(PRIORITY, "bulk").send().await.cache(), "hit");
    // A request that is passed through as it is.
    let streamed = json!({"model": "tiny", "input": "a", "stream": true}).to_string();
    front.post_to("/v1/chat/completions", streamed).header(PRIORITY, "bulk").send().await;
    let calls = front.stub.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.header(PRIORITY).is_none()), "{calls:?}");
}

/// Returns the number of the first call that carries a text with this beginning.
fn call_with(front: &Front, name: &str) -> Option<usize> {
    front.texts_sent().iter().rposition(|texts| texts.iter().any(|text| text.starts_with(name)))
}

#[tokio::test]
async fn waiting_interactive_requests_go_first_whatever_came_first() {
    let front = Front::start().await;
    front.stub.limit_rate(one_call_in(1.5, Reported::Azure));
    assert_eq!(front.post(text("first")).send().await.status, 200);
    // By its number of inputs, by its header, and the opposite of each.
    let bulk = [front.post(many("by number")), front.post(text("by header")).header(PRIORITY, "bulk")];
    let mut requests: Vec<_> = bulk.into_iter().map(Ask::send_meanwhile).collect();
    front.reaches(r#"vecho_pace_waiting{priority="bulk"}"#, 2.0).await;
    let interactive = [front.post(many("many")).header(PRIORITY, "interactive"), front.post(text("one"))];
    requests.extend(interactive.into_iter().map(Ask::send_meanwhile));
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
    let order = ["many", "one", "by number", "by header"].map(|name| call_with(&front, name));
    assert!(order[0].max(order[1]) < order[2].min(order[3]), "{order:?} in {:?}", front.texts_sent());
}

//! Days: budgets are filled again at midnight UTC, also in the middle of a call, and a clock that jumps pays nothing back.

use std::time::Duration;

use super::{assert_refused, of_tokens, spent};
use crate::harness::front::Front;
use crate::harness::{Behaviour, Inside, Stub};

/// The harness's clock begins at 22:13:20 UTC.
const TO_MIDNIGHT: Duration = Duration::from_secs(6_400);
const TEN: (&str, &str) = ("budget.tokens_per_day", "10");

#[tokio::test]
async fn a_budget_is_filled_again_at_midnight_utc() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[TEN]).await;
    let pass = |time: Duration| vecho.clock.advance_ms(u64::try_from(time.as_millis()).expect("short"));
    assert_eq!(vecho.embed(of_tokens("one", 10)).await.status, 200);
    pass(TO_MIDNIGHT.saturating_sub(Duration::from_millis(500)));
    let refused = vecho.embed(of_tokens("two", 10)).await;
    assert_refused(&refused);
    assert_eq!(refused.header("retry-after"), Some("1"), "a part of a second counts as one");
    assert_eq!(refused.header("x-should-retry"), None, "SDKs may wait for a time that short");
    pass(Duration::from_millis(500));
    assert_eq!(spent(&vecho).await, 0);
    assert_eq!(vecho.embed(of_tokens("two", 10)).await.status, 200);
    assert_refused(&vecho.embed(of_tokens("three", 10)).await);
}

#[tokio::test]
async fn a_call_counts_on_the_day_of_its_answer() {
    let front = Front::with(&[TEN]).await;
    front.stub.always(Behaviour::Gate);
    let late = front.post(of_tokens("late", 8).to_string()).send_meanwhile();
    front.stub.held(1).await;
    front.pass(TO_MIDNIGHT);
    // What the call is expected to cost is set aside on the new day, too.
    assert_refused(&front.ask(&of_tokens("early", 3)).await);
    front.stub.release(1);
    assert_eq!(late.await.expect("it ends").status, 200);
    assert_eq!(super::whole(front.metric(super::SPENT).await), 8);
    front.stub.always(Behaviour::Normal);
    assert_eq!(front.ask(&of_tokens("early", 2)).await.status, 200);
    assert_refused(&front.ask(&of_tokens("more", 2)).await);
}

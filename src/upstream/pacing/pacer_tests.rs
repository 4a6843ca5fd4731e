//! The rules of a pacer that count in seconds and minutes, as the calls see them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, advance};

use super::limits::SetLimits;
use super::pacer::{PaceTurn, Pacer};
use super::turn_order::{TurnOrder, TurnWish};
use crate::key::Key;
use crate::upstream::{Failure, UpstreamReply};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// Tokens of each call.
const TOKENS: usize = 10;

const NOTHING: &[(&str, &str)] = &[];

/// Returns the pacer of a service without configured limits.
fn pacer() -> Arc<Pacer> {
    Arc::new(Pacer::new("tiny", &SetLimits::default(), true))
}

fn wish(order: TurnOrder) -> TurnWish {
    TurnWish { order, caller: Key::from_bytes([0; 32]), tokens: TOKENS }
}

/// Waits for a turn for at most this long. Returns the turn and the whole seconds that it took.
async fn turn_within(pacer: &Arc<Pacer>, order: TurnOrder, most: Duration) -> Option<(PaceTurn, u64)> {
    let begun = Instant::now();
    let turn = pacer.turn(&wish(order), begun + most).await.ok()?;
    Some((turn, begun.elapsed().as_secs()))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    pairs.iter().map(pair).collect()
}

/// Makes the call of a turn, which the service accepts with these headers.
fn accept(mut turn: PaceTurn, pairs: &[(&'static str, &str)]) {
    turn.begin(turn.tokens);
    turn.ended(Ok((&headers(pairs), None)), false);
}

/// Makes the call of a turn, which the service refuses with these headers.
fn refuse(mut turn: PaceTurn, pairs: &[(&'static str, &str)]) {
    let body = Bytes::from_static(br#"{"error":{"message":"slow down"}}"#);
    let reply = UpstreamReply { status: StatusCode::TOO_MANY_REQUESTS, headers: headers(pairs), body };
    turn.begin(turn.tokens);
    turn.ended(Err(&Failure::of_reply(reply)), false);
}

#[tokio::test(start_paused = true)]
async fn one_call_a_minute_is_tried_although_the_reported_limit_admits_none() {
    let pacer = pacer();
    let used_up = [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "12h"),
    ];
    accept(pacer.try_turn(&wish(TurnOrder::Interactive)).expect("nothing is known yet"), &used_up);
    for _ in 0..2 {
        let (turn, waited) = turn_within(&pacer, TurnOrder::Interactive, HOUR).await.expect("a call is tried");
        assert_eq!(waited, 60);
        accept(turn, &used_up);
    }
    let (_in_flight, waited) = turn_within(&pacer, TurnOrder::Interactive, HOUR).await.expect("a call is tried");
    assert_eq!(waited, 60);
    let second = turn_within(&pacer, TurnOrder::Interactive, 600 * SECOND).await;
    assert!(second.is_none(), "the answer to the first one may correct the report");
}

/// Refuses all calls with these headers until waiting does not help any more. Returns the seconds that it took.
async fn seconds_until_hopeless(pacer: &Arc<Pacer>, pairs: &[(&'static str, &str)]) -> u64 {
    let first = Instant::now();
    for refusals in 1..100 {
        let (turn, _) = turn_within(pacer, TurnOrder::Interactive, HOUR).await.expect("a turn");
        refuse(turn, pairs);
        if !pacer.holds(TOKENS, (first, refusals)) {
            return first.elapsed().as_secs();
        }
    }
    panic!("refused calls are held back for ever");
}

#[tokio::test(start_paused = true)]
async fn refusals_go_to_the_callers_if_the_service_accepts_nothing_for_more_than_a_minute() {
    let pacer = pacer();
    let took = seconds_until_hopeless(&pacer, NOTHING).await;
    // The longest time between two calls is eight seconds.
    assert!((75..=83).contains(&took), "{took} s");
    let turn = pacer.try_turn(&wish(TurnOrder::Interactive)).expect("nothing is held back");
    accept(turn, NOTHING);
    let first = Instant::now();
    refuse(pacer.try_turn(&wish(TurnOrder::Interactive)).expect("nothing is held back"), NOTHING);
    assert!(pacer.holds(TOKENS, (first, 1)), "the service accepts calls again");
    assert!(pacer.try_turn(&wish(TurnOrder::Interactive)).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_that_the_service_has_named_is_waited_for_as_well() {
    // The calls are at 0, 30, 60, 90 and 120 seconds.
    assert_eq!(seconds_until_hopeless(&pacer(), &[("retry-after", "30")]).await, 120);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_the_cause_of_its_refusals_if_others_are_accepted_for_more_than_a_minute() {
    let pacer = pacer();
    let accept_one = || accept(pacer.try_turn(&wish(TurnOrder::Interactive)).expect("there is no limit"), NOTHING);
    let first = Instant::now();
    advance(SECOND).await;
    accept_one();
    advance(73 * SECOND).await;
    assert!(pacer.holds(TOKENS, (first, 100)), "a limit per minute may still admit it");
    advance(SECOND).await;
    assert!(pacer.holds(TOKENS, (first, 15)));
    assert!(!pacer.holds(TOKENS, (first, 16)));
    // It is larger than any accepted call.
    assert!(pacer.holds(TOKENS + 1, (first, 2)));
    assert!(!pacer.holds(TOKENS + 1, (first, 3)));
    let later = Instant::now();
    advance(100 * SECOND).await;
    assert!(pacer.holds(TOKENS, (later, 100)), "no other call was accepted since then");
    accept_one();
    assert!(!pacer.holds(TOKENS, (later, 100)));
}

#[tokio::test(start_paused = true)]
async fn bulk_calls_leave_a_tenth_of_a_limit_of_which_only_the_rest_is_reported() {
    let pacer = pacer();
    let left = |left: &'static str| [("x-ratelimit-remaining-requests", left)];
    let [interactive, bulk] = [TurnOrder::Interactive, TurnOrder::Bulk].map(wish);
    accept(pacer.try_turn(&bulk).expect("nothing is known yet"), &left("100"));
    accept(pacer.try_turn(&bulk).expect("much is left"), &left("11"));
    let turn = pacer.try_turn(&bulk).expect("it leaves a tenth");
    assert!(pacer.try_turn(&bulk).is_none(), "a call in flight counts");
    accept(turn, &left("10"));
    assert!(pacer.try_turn(&bulk).is_none());
    accept(pacer.try_turn(&interactive).expect("the tenth is for interactive calls"), &left("9"));
    // The head of the line leaves the tenth as well, until no call was made for ten seconds.
    let (turn, waited) = turn_within(&pacer, TurnOrder::Bulk, HOUR).await.expect("a call is tried");
    assert_eq!(waited, 10);
    accept(turn, &left("8"));
    let (tried, in_flight) = tokio::join!(turn_within(&pacer, TurnOrder::Bulk, HOUR), async {
        advance(6 * SECOND).await;
        pacer.try_turn(&interactive).expect("the tenth is for interactive calls")
    });
    let (turn, waited) = tried.expect("a call is tried");
    assert_eq!(waited, 16, "ten seconds after the interactive call");
    accept(in_flight, &left("7"));
    accept(turn, &left("100"));
    assert!(pacer.try_turn(&bulk).is_some(), "the limit is full again");
}

/// Returns the wish of an interactive call of another size.
fn sized(tokens: usize) -> TurnWish {
    TurnWish { tokens, ..wish(TurnOrder::Interactive) }
}

const A_MINUTE: &[(&str, &str)] = &[("retry-after", "60")];

#[tokio::test(start_paused = true)]
async fn small_interactive_calls_do_not_wait_for_the_hold_after_a_large_one() {
    let pacer = pacer();
    let [bulk, small] = [wish(TurnOrder::Bulk), sized(TOKENS / 4)];
    refuse(pacer.try_turn(&bulk).expect("nothing is known yet"), A_MINUTE);
    assert!(pacer.try_turn(&sized(TOKENS / 4 + 1)).is_none(), "it is not much smaller");
    let other_bulk = TurnWish { order: TurnOrder::Bulk, ..small };
    assert!(pacer.try_turn(&other_bulk).is_none());
    let first = pacer.try_turn(&small).expect("it is tried");
    assert!(pacer.try_turn(&small).is_none(), "one is tried alone");
    accept(first, NOTHING);
    let turns: Vec<PaceTurn> = (0..20).filter_map(|_| pacer.try_turn(&small)).collect();
    assert_eq!(turns.len(), 20, "small calls are accepted");
    for turn in turns {
        accept(turn, NOTHING);
    }
    let (_, waited) = turn_within(&pacer, TurnOrder::Bulk, HOUR).await.expect("a turn");
    assert_eq!(waited, 60, "accepted small calls do not end the hold");
}

#[tokio::test(start_paused = true)]
async fn small_calls_wait_if_one_of_them_is_refused_as_well() {
    let pacer = pacer();
    let small = sized(TOKENS / 4);
    refuse(pacer.try_turn(&wish(TurnOrder::Bulk)).expect("nothing is known yet"), A_MINUTE);
    refuse(pacer.try_turn(&small).expect("it is tried"), A_MINUTE);
    assert!(pacer.try_turn(&small).is_none());
    assert_eq!(pacer.turn(&small, Instant::now() + 30 * SECOND).await.err(), Some(60 * SECOND));
    advance(61 * SECOND).await;
    refuse(pacer.try_turn(&wish(TurnOrder::Bulk)).expect("the hold is over"), A_MINUTE);
    assert!(pacer.try_turn(&small).is_some(), "the refusal of a small call is a minute ago");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_small_call_does_not_shorten_the_hold() {
    let pacer = pacer();
    refuse(pacer.try_turn(&wish(TurnOrder::Bulk)).expect("nothing is known yet"), A_MINUTE);
    refuse(pacer.try_turn(&sized(TOKENS / 4)).expect("it is tried"), NOTHING);
    let (_, waited) = turn_within(&pacer, TurnOrder::Bulk, HOUR).await.expect("a turn");
    assert_eq!(waited, 60);
}

#[tokio::test(start_paused = true)]
async fn a_small_call_does_not_wait_behind_a_large_interactive_one_that_is_held_back() {
    let pacer = pacer();
    refuse(pacer.try_turn(&wish(TurnOrder::Interactive)).expect("nothing is known yet"), A_MINUTE);
    let again = wish(TurnOrder::InteractiveAgain);
    let large = pacer.turn(&again, Instant::now() + HOUR);
    let mut large = std::pin::pin!(large);
    assert!(tokio::time::timeout(SECOND, &mut large).await.is_err());
    assert!(pacer.try_turn(&sized(TOKENS / 4)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_small_call_has_room_for_small_inputs_only() {
    let pacer = pacer();
    let large = TurnWish { tokens: 4_000, ..wish(TurnOrder::Bulk) };
    refuse(pacer.try_turn(&large).expect("nothing is known yet"), A_MINUTE);
    let turn = pacer.try_turn(&sized(10)).expect("it is tried");
    assert_eq!(turn.room(), 1_000);
    accept(turn, NOTHING);
    assert_eq!(
        Arc::new(Pacer::new("tiny", &SetLimits::default(), true)).try_turn(&large).map(|turn| turn.room()),
        Some(usize::MAX)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_has_room_for_the_tokens_that_are_left_beyond_the_reserve() {
    // A sixth of the limit may be used at once: 1,000.
    let limits = SetLimits { tokens_per_minute: Some(6_000), ..SetLimits::default() };
    let pacer = Arc::new(Pacer::new("tiny", &limits, true));
    let sizes = [TurnOrder::Bulk, TurnOrder::Interactive].map(|order| pacer.largest_call(order));
    assert_eq!(sizes, [800, 1_000]);
    let room = |order| {
        let turn = pacer.try_turn(&TurnWish { tokens: 300, ..wish(order) }).expect("it fits");
        turn.room()
    };
    assert_eq!((room(TurnOrder::Bulk), room(TurnOrder::Interactive)), (900, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_few_refusals_of_small_calls_do_not_bind_them_to_the_rate_of_large_ones() {
    let pacer = pacer();
    for _ in 0..8 {
        refuse(pacer.turn(&wish(TurnOrder::Bulk), Instant::now() + HOUR).await.expect("a turn"), NOTHING);
        accept(pacer.turn(&wish(TurnOrder::Bulk), Instant::now() + HOUR).await.expect("a turn"), NOTHING);
    }
    advance(100 * SECOND).await;
    for number in 0..100 {
        let turn = pacer.turn(&sized(TOKENS / 4), Instant::now() + HOUR).await.expect("a turn");
        if number % 30 == 10 { refuse(turn, NOTHING) } else { accept(turn, NOTHING) }
    }
    let begun = Instant::now();
    for _ in 0..100 {
        accept(pacer.turn(&sized(TOKENS / 4), begun + HOUR).await.expect("a turn"), NOTHING);
    }
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_was_found_with_large_calls_does_not_limit_small_ones() {
    let pacer = pacer();
    let rate_is_found = async |wish: &TurnWish| {
        for _ in 0..8 {
            let turn = pacer.turn(wish, Instant::now() + HOUR).await.expect("a turn");
            refuse(turn, NOTHING);
            let turn = pacer.turn(wish, Instant::now() + HOUR).await.expect("a turn");
            accept(turn, NOTHING);
        }
        assert!(pacer.figures().found_per_minute.is_some());
        // The refusals themselves are forgotten by then.
        advance(100 * SECOND).await;
    };
    let at_once = |wish: &TurnWish| {
        let turns: Vec<PaceTurn> = (0..100).map_while(|_| pacer.try_turn(wish)).collect();
        let count = turns.len();
        for turn in turns {
            accept(turn, NOTHING);
        }
        count
    };
    rate_is_found(&wish(TurnOrder::Bulk)).await;
    let large = at_once(&sized(TOKENS));
    assert!(large < 10, "{large} calls at once");
    assert_eq!(at_once(&sized(TOKENS / 4)), 100);
    // Their own refusals count among their own calls.
    advance(100 * SECOND).await;
    rate_is_found(&sized(TOKENS / 4)).await;
    let small = at_once(&sized(TOKENS / 4));
    assert!(small < 10, "{small} calls at once");
}

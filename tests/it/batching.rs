//! Misses are packed into few, full calls without waiting for a timer, and vecho discovers the limits of the upstream.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::client::Answer;
use crate::harness::ops::metric_becomes;
use crate::harness::stub::Limits;
use crate::harness::{Behaviour, Inside, Stub};

fn words(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("w{number}")).collect()
}

fn ask(inputs: &[String]) -> Value {
    json!({"model": "tiny", "input": inputs})
}

fn assert_right(answer: &Answer, inputs: &[String]) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected: Vec<_> = inputs.iter().map(|input| Stub::vector("tiny", None, input)).collect();
    assert_eq!(answer.vectors(), expected);
    assert_eq!(answer.indices(), (0..inputs.len() as u64).map(Some).collect::<Vec<_>>());
}

fn call_sizes(stub: &Stub) -> Vec<usize> {
    stub.embedding_calls().iter().map(|call| call.inputs().len()).collect()
}

#[tokio::test]
async fn an_idle_proxy_sends_a_miss_at_once_and_by_itself() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    stub.always(Behaviour::Gate);
    let inputs = words(0..3);
    let (answer, ()) = tokio::join!(vecho.embed(ask(&inputs)), async {
        // The call starts although no further input arrives to fill it.
        stub.held(1).await;
        stub.release(1);
    });
    assert_right(&answer, &inputs);
    assert_eq!(call_sizes(&stub), [3]);
}

#[tokio::test]
async fn misses_that_queue_while_all_permits_are_busy_are_merged() {
    let stub = Stub::start();
    let pairs = [("upstream.max_concurrent", "1"), ("batch.max_inputs", "8")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    stub.always(Behaviour::Gate);
    let requests: Vec<Vec<String>> = (0..11).map(|number| words(number * 2..number * 2 + 2)).collect();
    let first = ask(&requests[0]);
    let bodies: Vec<Value> = requests[1..].iter().map(|inputs| ask(inputs)).collect();
    let (upstream, proxy) = (&stub, &vecho);
    let rest = futures_util::future::join_all(bodies.iter().map(|body| async move {
        upstream.held(1).await;
        proxy.embed(body).await
    }));
    let (first, rest, ()) = tokio::join!(vecho.embed(&first), rest, async {
        stub.held(1).await;
        metric_becomes(vecho.admin(), "vecho_upstream_queued_inputs", 20.0).await;
        assert_eq!(call_sizes(&stub), [2], "one permit, one call");
        stub.release(100);
    });
    for (answer, inputs) in std::iter::once(first).chain(rest).zip(&requests) {
        assert_right(&answer, inputs);
    }
    assert_eq!(call_sizes(&stub), [2, 4, 8, 8], "calls double from the size of one request to the bound of 8");
}

#[tokio::test]
async fn a_call_carries_no_more_tokens_than_allowed() {
    let stub = Stub::start();
    stub.set_limits(Limits { tokens: 1_000, ..Limits::default() });
    let vecho = Inside::start(&stub.base_url(), &[("batch.max_tokens", "1000")]).await;
    let lists: Vec<Vec<u32>> = (0..10).map(|first| (first..first + 300).collect()).collect();
    let answer = vecho.embed(&json!({"model": "tiny", "input": lists})).await;
    let expected: Vec<_> = lists.iter().map(|list| Stub::vector("tiny", None, list.as_slice())).collect();
    assert_eq!(answer.vectors(), expected);
    let mut sizes = call_sizes(&stub);
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3, 3, 3]);
    assert_eq!(answer.json()["usage"], json!({"prompt_tokens": 3000, "total_tokens": 3000}));
}

#[tokio::test]
async fn a_request_larger_than_any_call_is_split_and_joined_again_in_order() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let inputs = words(0..5_000);
    let answer = vecho.embed(&ask(&inputs)).await;
    assert_right(&answer, &inputs);
    let mut sizes = call_sizes(&stub);
    sizes.sort_unstable();
    assert_eq!(sizes, [904, 2048, 2048]);
    assert_eq!(answer.header("x-vecho-sources"), Some("upstream=5000"));
}

#[tokio::test]
async fn a_lower_upstream_limit_is_found_by_halving_and_remembered() {
    let stub = Stub::start();
    stub.set_limits(Limits { inputs: 10, ..Limits::default() });
    let vecho = Inside::start(&stub.base_url(), &[("upstream.max_concurrent", "1")]).await;
    let refused = |from: usize| call_sizes(&stub)[from..].iter().filter(|size| **size > 10).count();
    let first = words(0..40);
    assert_right(&vecho.embed(&ask(&first)).await, &first);
    let (calls, refusals) = (call_sizes(&stub).len(), refused(0));
    assert_eq!(refusals, 3, "40, 20 and 20: {:?}", call_sizes(&stub));
    let second = words(100..140);
    assert_right(&vecho.embed(&ask(&second)).await, &second);
    assert_eq!(refused(calls), 0, "the limit is known by now: {:?}", call_sizes(&stub));
}

#[tokio::test]
async fn completed_parts_of_a_failed_request_are_stored() {
    let stub = Stub::start();
    let pairs = [("batch.max_inputs", "2"), ("retry.max_attempts", "1"), ("fallback.mode", "error")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    let body = || Behaviour::Status { code: 503, headers: vec![], body: r#"{"error":"down"}"#.to_owned() };
    stub.when(|call| call.texts().contains(&"w2".to_owned()), body());
    let failed = vecho.embed(&ask(&words(0..4))).await;
    assert_eq!(failed.status, 503);
    let calls = stub.embedding_calls().len();
    let landed = vecho.embed(&ask(&words(0..2))).await;
    assert_right(&landed, &words(0..2));
    assert_eq!(landed.header("x-vecho-sources"), Some("memory=2"));
    assert_eq!(stub.embedding_calls().len(), calls, "nothing is paid for twice");
}

#[tokio::test]
async fn many_calls_in_a_row_share_few_connections() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    for number in 0..40 {
        let inputs = words(number..number + 1);
        assert_right(&vecho.embed(&ask(&inputs)).await, &inputs);
    }
    assert_eq!(stub.embedding_calls().len(), 40);
    assert!(stub.connections() <= 2, "{} connections for 40 calls", stub.connections());
}

/// Starts an upstream that takes five milliseconds per input.
fn slow_stub() -> Stub {
    let stub = Stub::start();
    stub.decide(|call| Behaviour::Delay(Duration::from_millis(5) * u32::try_from(call.inputs().len()).expect("few")));
    stub
}

#[tokio::test]
async fn requests_longer_than_the_target_time_are_sent_in_parts() {
    let stub = slow_stub();
    let vecho = Inside::start(&stub.base_url(), &[("batch.target_time", "50ms")]).await;
    let first = words(0..40);
    assert_right(&vecho.embed(&ask(&first)).await, &first);
    assert_eq!(call_sizes(&stub), [40], "nothing is known of the upstream, so it gets the request itself");
    let second = words(100..160);
    let answer = vecho.embed(&ask(&second)).await;
    assert_right(&answer, &second);
    assert_eq!(answer.header("x-vecho-sources"), Some("upstream=60"));
    let parts = call_sizes(&stub).split_off(1);
    assert_eq!(parts.iter().sum::<usize>(), 60, "{parts:?}");
    assert!(parts.len() >= 4 && parts.iter().all(|size| *size <= 20), "{parts:?}");
}

#[tokio::test]
async fn a_server_that_refuses_concurrent_calls_gets_parts_sequentially() {
    for refusal in [429, 503, 0] {
        let stub = Stub::start();
        let busy_until = Mutex::new(Instant::now());
        stub.decide(move |call| {
            let mut busy_until = busy_until.lock().expect("not poisoned");
            if Instant::now() < *busy_until {
                let busy = Behaviour::Status { code: refusal, headers: Vec::new(), body: "busy".to_owned() };
                return if refusal == 0 { Behaviour::HangUp } else { busy };
            }
            let takes = Duration::from_millis(5) * u32::try_from(call.inputs().len()).expect("few");
            *busy_until = Instant::now() + takes;
            Behaviour::Delay(takes + Duration::from_millis(3))
        });
        let settings = [("batch.target_time", "50ms"), ("fallback.mode", "error"), ("retry.max_attempts", "1")];
        let vecho = Inside::start(&stub.base_url(), &settings).await;
        for start in [0, 100, 200, 300, 400] {
            let texts = words(start..start + 60);
            let answer = vecho.embed(&ask(&texts)).await;
            assert_eq!(answer.status, 200, "{refusal} {start} {answer:?}");
            assert_right(&answer, &texts);
        }
    }
}

#[tokio::test]
async fn retries_of_failed_parts_do_not_deadlock() {
    let stub = Stub::start();
    let count = AtomicUsize::new(0);
    // Every third call fails on a closed kept-alive connection and is retried while other calls are in flight.
    stub.decide(move |_| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Behaviour::HangUp,
        1 => Behaviour::Status { code: 503, headers: Vec::new(), body: "busy".to_owned() },
        _ => Behaviour::Delay(Duration::from_millis(1)),
    });
    let few = [("batch.max_inputs", "1"), ("upstream.max_concurrent", "2"), ("retry.max_attempts", "1")];
    let vecho = Inside::start(&stub.base_url(), &[&few[..], &[("breaker.failures", "0")]].concat()).await;
    for round in 0..40 {
        let texts = words(round * 6..round * 6 + 6);
        let answer = timeout(Duration::from_secs(20), vecho.embed(&ask(&texts))).await;
        assert!([200, 502, 503].contains(&answer.expect("it must end").status), "{round}");
    }
}

/// Repeats a request that takes longer than `limits.request_timeout`, as SDKs do.
async fn repeat_until_answered(vecho: &Inside, inputs: &[String]) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = vecho.embed(&ask(inputs)).await;
        if answer.status == 200 {
            return answer;
        }
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(begun.elapsed() < crate::harness::stub::DEADLINE, "it must come to an end");
    }
}

#[tokio::test]
async fn a_repeated_request_fetches_only_the_parts_not_yet_stored() {
    let stub = slow_stub();
    let settings = [("batch.target_time", "50ms"), ("limits.request_timeout", "400ms"), ("fallback.mode", "error")];
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    for inputs in [words(0..40), words(100..300)] {
        assert_right(&repeat_until_answered(&vecho, &inputs).await, &inputs);
    }
    let sent: Vec<String> = stub.embedding_calls().iter().flat_map(crate::harness::stub::Call::texts).collect();
    assert_eq!(sent.len(), 240, "no text is asked for twice");
}

#[tokio::test]
async fn calls_to_a_slow_model_do_not_delay_another_model() {
    let stub = Stub::start();
    stub.when(|call| call.json()["model"] == "slow", Behaviour::Gate);
    let vecho = Inside::start(&stub.base_url(), &[("upstream.max_concurrent", "2")]).await;
    let slow = |text: &str| vecho.embed(json!({"model": "slow", "input": text}));
    let neighbour = async {
        stub.held(2).await;
        let answer = vecho.embed(ask(&words(0..1))).await;
        assert_eq!(stub.held_now(), 2, "the slow calls are still under way");
        stub.release(2);
        answer
    };
    let (one, other, answer) = tokio::join!(slow("a"), slow("b"), neighbour);
    assert_eq!((one.status, other.status), (200, 200));
    assert_right(&answer, &words(0..1));
}

#[tokio::test]
async fn an_overdue_call_does_not_block_the_next_one() {
    let stub = Stub::start();
    let settings = [("upstream.max_concurrent", "1"), ("upstream.headers_timeout", "100ms")];
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    // Some calls show how long they take.
    for number in 0..5 {
        vecho.embed(ask(&words(number..number + 1))).await;
    }
    stub.next(Behaviour::Gate);
    let slow = vecho.embed(ask(&words(5..6)));
    let next = async {
        stub.held(1).await;
        let next = vecho.embed(ask(&words(6..7)));
        let answer =
            tokio::time::timeout(Duration::from_secs(10), next).await.expect("it must not wait for the slow one");
        assert_eq!(stub.held_now(), 1, "the slow call is still under way");
        stub.release(1);
        answer
    };
    let (_, answer) = tokio::join!(slow, next);
    assert_right(&answer, &words(6..7));
}

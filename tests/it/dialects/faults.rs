//! Isolation of failures: texts that a server fails on, models that are down, slow servers, and servers that refuse
//! large calls. A failure must affect only the requests that cause it. All tests use the default configuration.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::dialect::{Dialect, Fault, Transport, detail, refuse};
use super::front::{Front, body, expect_failure, expect_vectors, texts};
use super::quirks;
use super::received::Received;
use super::verdict::{shown, word};
use crate::harness::eventually;

/// The failure of a model that is down.
type Sickness = fn(&Received) -> Result<(), Fault>;

const CHOKES: (u16, &str) = (500, "input is too large to process. increase the physical batch size");

const ONE_AT_A_TIME: (&str, &str) = ("upstream.max_concurrent", "1");

/// Returns a server that fails with this status on texts with the word `poison`.
fn poisoned_by(status: u16, message: &'static str) -> Dialect {
    Dialect::v1("poisoned").check(quirks::fails_at("poison", status, message))
}

fn choking() -> Dialect {
    poisoned_by(CHOKES.0, CHOKES.1)
}

/// Returns a server that closes the connection on texts with the word `poison`.
fn hanging_up() -> Dialect {
    Dialect::v1("hangs up").check(|received| if received.mentions("poison") { Err(Fault::HangUp) } else { Ok(()) })
}

/// Returns a gateway with one model that is down.
fn gateway(check: Sickness) -> Dialect {
    Dialect::v1("gateway")
        .check(move |received| if received.model() == Some("sick") { check(received) } else { Ok(()) })
}

#[tokio::test]
async fn only_the_failing_text_gets_the_servers_error() {
    for (status, message) in [CHOKES, (502, "bad gateway"), (503, "llm embedding error"), (400, "odd"), (422, "odd")] {
        let front = Front::new(poisoned_by(status, message), &[]).await;
        front.expect_miss("m", "good 0").await;
        front.expect_error("m", "poison 1", (status, message)).await;
        front.expect_error("m", "poison 2", (status, message)).await;
        front.expect_miss("m", "good 1").await;
    }
}

#[tokio::test]
async fn a_failing_text_before_any_success_gets_the_servers_error() {
    let front = Front::new(choking(), &[]).await;
    front.expect_error("m", "poison 1", CHOKES).await;
    front.expect_miss("m", "good 0").await;
}

#[tokio::test]
async fn repeated_failures_of_one_request_are_not_an_outage() {
    let front = Front::new(choking(), &[]).await;
    for _ in 0..10 {
        front.expect_error("m", "poison", CHOKES).await;
    }
    front.expect_miss("m", "good").await;
}

#[tokio::test]
async fn failing_texts_between_successes_are_not_an_outage() {
    let front = Front::new(choking(), &[]).await;
    for round in 0..12 {
        front.expect_error("m", &format!("poison {round}"), CHOKES).await;
        front.expect_miss("m", &format!("good {round}")).await;
    }
}

#[tokio::test]
async fn a_good_text_succeeds_after_many_failing_texts() {
    expect_good_after_many_failures(choking()).await;
}

#[tokio::test]
async fn a_good_text_succeeds_after_many_dropped_connections() {
    expect_good_after_many_failures(hanging_up()).await;
}

async fn expect_good_after_many_failures(dialect: Dialect) {
    let front = Front::new(dialect, &[]).await;
    for text in texts("poison", 12) {
        front.ask("m", &[text]).await;
    }
    front.expect_miss("m", "good").await;
}

#[tokio::test]
async fn a_text_that_makes_the_server_disconnect_is_an_error_not_a_mock() {
    let front = Front::new(hanging_up(), &[]).await;
    front.expect_miss("m", "good 0").await;
    for text in texts("poison", 2) {
        let answer = front.ask("m", &[text]).await;
        assert!(answer.status >= 500 && word(&answer).is_empty(), "{} {}", word(&answer), shown(&answer));
    }
    front.expect_miss("m", "good 1").await;
}

#[tokio::test]
async fn a_list_with_a_failing_text_gets_the_servers_error() {
    let front = Front::new(choking(), &[]).await;
    let good = texts("good", 40);
    let mut list = good.clone();
    list.insert(17, "poison".to_owned());
    for _ in 0..3 {
        expect_failure(&front.ask("m", &list).await, CHOKES);
    }
    expect_vectors(&front.ask("m", &good).await, "m", &good);
    expect_failure(&front.ask("m", &list).await, CHOKES);
}

#[tokio::test]
async fn requests_merged_with_a_failing_one_get_their_vectors() {
    for (proven, (status, message)) in [(true, CHOKES), (false, CHOKES), (true, (400, "odd")), (true, (422, "odd"))] {
        let front = Front::new(poisoned_by(status, message), &[ONE_AT_A_TIME]).await;
        if proven {
            front.expect_miss("m", "first").await;
        }
        let mut wanted = texts("good", 7);
        wanted.insert(3, "poison".to_owned());
        let bodies: Vec<Value> = wanted.iter().map(|text| body("m", std::slice::from_ref(text))).collect();
        let answers = front.queue_behind_a_held_call(&bodies).await;
        for (text, answer) in wanted.iter().zip(&answers) {
            if text == "poison" {
                expect_failure(answer, (status, message));
            } else {
                expect_vectors(answer, "m", std::slice::from_ref(text));
            }
        }
    }
}

#[tokio::test]
async fn only_the_failing_requests_among_thirty_merged_ones_fail() {
    let front = Front::new(choking(), &[ONE_AT_A_TIME]).await;
    front.expect_miss("m", "first").await;
    let lists: Vec<Vec<String>> = (0..30)
        .map(|at| {
            texts(if at % 10 == 4 { "poison" } else { "good" }, 3).iter().map(|text| format!("{text}/{at}")).collect()
        })
        .collect();
    let bodies: Vec<Value> = lists.iter().map(|list| body("m", list)).collect();
    for (list, answer) in lists.iter().zip(front.queue_behind_a_held_call(&bodies).await) {
        if list[0].contains("poison") {
            expect_failure(&answer, CHOKES);
        } else {
            expect_vectors(&answer, "m", list);
        }
    }
}

#[tokio::test]
async fn a_failing_model_does_not_block_other_models() {
    let sick: [Sickness; 3] =
        [|_| refuse(503, "model is not ready"), |_| refuse(500, "CUDA error"), |_| Err(Fault::HangUp)];
    for check in sick {
        let front = Front::new(gateway(check), &[]).await;
        front.expect_miss("well", "first").await;
        for text in texts("early", 3) {
            let answer = front.ask("sick", &[text]).await;
            assert!(answer.status >= 500 && word(&answer).is_empty(), "{} {}", word(&answer), shown(&answer));
        }
        for at in 0..10 {
            front.expect_miss("well", &format!("later {at}")).await;
            let answer = front.ask("sick", &[format!("later {at}")]).await;
            assert!(answer.status >= 500 || word(&answer) == "mock", "{} {}", word(&answer), shown(&answer));
        }
    }
}

#[tokio::test]
async fn mocks_require_five_failed_requests_for_a_model() {
    let front = Front::new(gateway(|_| refuse(503, "model is not ready")), &[]).await;
    front.expect_miss("well", "first").await;
    for text in texts("sick", 4) {
        front.expect_error("sick", &text, (503, "model is not ready")).await;
    }
    front.expect_error("sick", "sick 0", (503, "model is not ready")).await;
    for text in texts("more", 3) {
        front.ask("sick", &[text]).await;
    }
    let answer = front.ask("sick", &["at last".to_owned()]).await;
    assert_eq!((answer.status, word(&answer)), (200, "mock"));
    front.expect_miss("well", "last").await;
}

#[tokio::test]
async fn concurrent_healthy_and_failing_models_do_not_affect_one_another() {
    let front = Front::new(gateway(|_| refuse(503, "model is not ready")), &[]).await;
    let asks = (0..60).map(async |at| {
        let model = ["well", "sick", "fine"][at % 3];
        let list = texts(&format!("text {at}"), 1 + at % 4);
        (model, front.ask(model, &list).await, list)
    });
    for (model, answer, list) in join_all(asks).await {
        if model == "sick" {
            assert!(answer.status == 503 || word(&answer) == "mock", "{} {}", word(&answer), shown(&answer));
        } else {
            expect_vectors(&answer, model, &list);
        }
    }
}

#[tokio::test]
async fn a_slow_server_gets_each_text_once_and_answers_all_requests() {
    let slow = Dialect::v1("slow")
        .pace(|received| Duration::from_millis(2) * u32::try_from(received.inputs.len()).expect("a list is short"))
        .transport(Transport::Serial);
    let front = Front::new(slow, &[]).await;
    let lists: Vec<Vec<String>> = (0..60).map(|at| texts(&format!("list {at},"), 32)).collect();
    let answers = join_all(lists.iter().map(|list| front.ask("m", list))).await;
    for (list, answer) in lists.iter().zip(&answers) {
        expect_vectors(answer, "m", list);
    }
    let mut received: Vec<String> =
        front.server.calls().iter().flat_map(|call| call.texts().map(str::to_owned).collect::<Vec<_>>()).collect();
    let all = received.len();
    received.sort();
    received.dedup();
    assert_eq!((all, received.len()), (60 * 32, 60 * 32), "each text is asked for once");
}

#[tokio::test]
async fn requests_wait_for_a_server_that_loads_its_model() {
    for count in [1, 2048] {
        let loading = Dialect::v1("loading").pace(|_| Duration::from_millis(600));
        let front = Front::new(loading, &[]).await;
        let list = texts("text", count);
        expect_vectors(&front.ask("m", &list).await, "m", &list);
        assert_eq!(front.server.count(), 1);
        let again = front.ask("m", &list).await;
        expect_vectors(&again, "m", &list);
        assert_eq!((word(&again), front.server.count()), ("hit", 1));
    }
}

#[tokio::test]
async fn a_call_that_outlives_its_request_completes_and_is_stored() {
    let loading = Dialect::v1("loading").pace(|_| Duration::from_millis(600));
    let front = Front::new(loading, &[("limits.request_timeout", "200ms")]).await;
    let list = texts("text", 3);
    let late = front.ask("m", &list).await;
    assert_eq!((late.status, word(&late)), (504, ""), "{}", shown(&late));
    assert_eq!(late.error().1, "upstream_timeout");
    eventually("the answer is stored", async || front.ask("m", &list).await.status == 200).await;
    let stored = front.ask("m", &list).await;
    expect_vectors(&stored, "m", &list);
    assert_eq!((word(&stored), front.server.count()), ("hit", 1));
}

/// Returns a server that refuses more inputs than this, with a message that names no limit.
fn limited(most: usize, status: u16) -> Dialect {
    Dialect::v1("limited")
        .errors(detail)
        .check(quirks::max_inputs(most, status, |_| "The request could not be processed.".to_owned()))
        .check(quirks::fails_at("poison", status, "The request could not be processed."))
}

#[tokio::test]
async fn merged_calls_are_split_until_each_request_is_alone() {
    for status in [400, 500] {
        let front = Front::new(limited(5, status), &[ONE_AT_A_TIME]).await;
        front.expect_miss("m", "first").await;
        let mut wanted = texts("good", 40);
        wanted.insert(23, "poison".to_owned());
        let bodies: Vec<Value> = wanted.iter().map(|text| body("m", std::slice::from_ref(text))).collect();
        let answers = front.queue_behind_a_held_call(&bodies).await;
        for (text, answer) in wanted.iter().zip(&answers) {
            if text == "poison" {
                expect_failure(answer, (status, "could not be processed"));
            } else {
                expect_vectors(answer, "m", std::slice::from_ref(text));
            }
        }
    }
}

#[tokio::test]
async fn a_request_larger_than_the_servers_limit_is_split_and_joined() {
    let front = Front::new(limited(250, 400), &[]).await;
    let small: Vec<Vec<String>> = (0..40).map(|at| texts(&format!("small {at},"), 8)).collect();
    let answers = join_all(small.iter().map(|list| front.ask("m", list))).await;
    for (list, answer) in small.iter().zip(&answers) {
        expect_vectors(answer, "m", list);
    }
    let large = texts("large", 300);
    expect_vectors(&front.ask("m", &large).await, "m", &large);
    let again = front.ask("m", &large).await;
    assert_eq!(word(&again), "hit");
}

#[tokio::test]
async fn a_refused_request_takes_one_call() {
    for status in [400, 404, 415, 422] {
        let front = Front::new(poisoned_by(status, "odd"), &[]).await;
        for (at, list) in [texts("poison", 1), texts("poison", 5)].iter().enumerate() {
            let before = front.server.count();
            expect_failure(&front.ask("m", list).await, (status, "odd"));
            assert_eq!(front.server.count() - before, 1, "{status} {at}");
        }
    }
}

#[tokio::test]
async fn get_requests_survive_a_server_that_closes_reused_connections() {
    let front = Front::new(Dialect::v1("closing").transport(Transport::ClosesKept), &[]).await;
    let client = crate::harness::Client::new();
    for _ in 0..6 {
        assert_eq!(client.get(&front.url("/v1/models")).await.status, 200);
    }
}

#[tokio::test]
async fn the_first_call_is_the_request_of_the_client_byte_for_byte() {
    let bodies = [
        r#"{ "model" : "m1", "input" : ["b", "a", "c"] }"#,
        r#"{"encoding_format":"base64","input":"a\u00e9","model":"m2"}"#,
        r#"{"model":"m3","input":"a","encoding_format":null,"dimensions":null,"user":null}"#,
        r#"{"model":"m4","input":[[1,2],[3]],"dimensions":4.0}"#,
        r#"{"model":"m5","input":[1, 2, 3],"encoding_format":"float"}"#,
    ];
    let front = Front::new(Dialect::v1("any"), &[]).await;
    for body in bodies {
        let answer = front.send_bytes(body).await;
        assert_eq!((answer.status, word(&answer)), (200, "miss"), "{body}");
        let call = front.server.calls().pop().expect("a call");
        assert_eq!(String::from_utf8_lossy(&call.body), body);
    }
}

#[tokio::test]
async fn later_calls_keep_the_encoding_of_the_client() {
    let written = [None, Some(Value::Null), Some("base64".into()), Some("float".into())];
    for encoding in written {
        let front = Front::new(Dialect::v1("any"), &[]).await;
        for text in texts("text", 3) {
            let mut body = body("m", &[text]);
            if let Some(encoding) = &encoding {
                body["encoding_format"] = encoding.clone();
            }
            front.send(&body).await;
        }
        let sent: Vec<Option<Value>> =
            front.server.calls().iter().map(|call| call.members.get("encoding_format").cloned()).collect();
        assert_eq!(sent, vec![encoding; 3]);
    }
}

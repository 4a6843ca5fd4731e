//! Interactive requests beside a flood of bulk requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ground::{calls_until_reset, text};
use super::job::{BULK, Job};
use crate::harness::client::raw;
use crate::harness::ops::metric;
use crate::harness::stub::{Counted, Quota, Reported};
use crate::harness::{Behaviour, Client, Front, Stub, Vecho, eventually};

/// Time of one upstream call.
const CALL: Duration = Duration::from_millis(400);

/// Sends single new texts, one every tenth of a second, and returns the sorted times of their answers.
async fn queries(url: &str, name: &str, count: usize) -> Vec<Duration> {
    let client = Client::new();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut waiting = Vec::new();
    for number in 0..count {
        pace.tick().await;
        let mut request = raw(http::Method::POST, url, text(&format!("{name} {number}")));
        request.headers_mut().insert("authorization", http::HeaderValue::from_static(BULK));
        let client = client.clone();
        waiting.push(tokio::spawn(async move {
            let begun = Instant::now();
            let answer = client.send(request).await.expect("the answer must arrive");
            assert_eq!(answer.status, 200, "{answer:?}");
            begun.elapsed()
        }));
    }
    let mut times = Vec::new();
    for query in waiting {
        times.push(query.await.expect("a query does not panic"));
    }
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Sends queries to an idle service with these limits, and then beside a flood that has used its part of them. Returns
/// the longest times, and the number of calls that the service has refused.
async fn idle_and_beside_a_flood(counted: Counted, reported: Reported) -> (Duration, Duration, usize) {
    let stub = Stub::start();
    stub.limit_rate(Quota { requests: 3_000.0, tokens: 200_000.0, counted, reported });
    let vecho = Vecho::start(&stub);
    let (idle, beside) = times_at(&stub, &vecho).await;
    (idle, beside, stub.quota_record().refused().len())
}

/// Returns the longest times of queries without a flood and beside one.
async fn times_at(stub: &Stub, vecho: &Vecho) -> (Duration, Duration) {
    stub.always(Behaviour::Delay(CALL));
    let url = format!("{}/embeddings", vecho.base_url());
    let idle = queries(&url, "idle", 20).await;
    let bulk_url = url.clone();
    let flood =
        tokio::spawn(
            async move { Job { inputs: 80_000, clients: 12, largest: 1_000, name: "flood" }.run(&bulk_url).await },
        );
    let waits = r#"vecho_pace_waiting{priority="bulk"}"#;
    let is_waiting = async || metric(vecho.admin(), waits).await >= 1.0;
    eventually("bulk calls that wait", is_waiting).await;
    let beside = queries(&url, "beside", 100).await;
    assert!(!flood.is_finished(), "the flood must last as long as the queries");
    flood.abort();
    (p99(&idle), p99(&beside))
}

const BUCKET: Counted = Counted::Bucket { capacity: 1.0 };
const MINUTE: Counted = Counted::Window { length: Duration::from_mins(1), passed: Duration::ZERO };

/// Searches beside a flood take at most the time of one call longer than without it.
async fn queries_hardly_wait(counted: Counted, reported: Reported) {
    let (idle, beside, _) = idle_and_beside_a_flood(counted, reported).await;
    assert!(beside <= idle + CALL, "{beside:?} beside a flood, {idle:?} without: {counted:?}, {reported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_beside_a_bulk_flood_take_at_most_one_call_longer() {
    for counted in [BUCKET, MINUTE] {
        queries_hardly_wait(counted, Reported::OpenAi).await;
    }
}

/// Calls that share a large call may not use up more than the limit permits at once.
#[tokio::test(flavor = "multi_thread")]
async fn queries_beside_a_bulk_flood_inside_a_configured_limit_take_at_most_one_call_longer() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_PACE_TOKENS_PER_MINUTE", "200000")]);
    let (idle, beside) = times_at(&stub, &vecho).await;
    assert!(beside <= idle + CALL, "{beside:?} beside a flood, {idle:?} without");
}

/// The limit of tokens has room for small calls when it has none for large ones. In a fixed minute, large calls may use
/// up the last tokens.
#[tokio::test(flavor = "multi_thread")]
async fn queries_beside_a_bulk_flood_that_is_refused_take_at_most_one_call_longer() {
    for reported in [Reported::RetryAfter, Reported::Nothing] {
        queries_hardly_wait(BUCKET, reported).await;
    }
}

/// Where nothing is refused, nothing is held back, so a query waits for no other call.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_flood_at_azure_leaves_queries_a_part_of_the_limit() {
    for counted in [BUCKET, MINUTE] {
        let (idle, beside, refused) = idle_and_beside_a_flood(counted, Reported::Azure).await;
        assert_eq!(refused, 0, "{beside:?} beside a flood, {idle:?} without: {counted:?}");
    }
}

#[tokio::test]
async fn a_query_for_a_text_that_a_bulk_request_has_queued_does_not_wait_for_the_queue() {
    let front = Front::with(&[("pace.concurrent", "1")]).await;
    front.stub.always(Behaviour::Gate);
    // Vectors of different lengths never share a call.
    let request = |name: &str, count: usize, dimensions: usize| {
        let texts: Vec<String> = (0..count).map(|number| format!("{name} {number}")).collect();
        json!({"model": "tiny", "input": texts, "dimensions": dimensions}).to_string()
    };
    let mut requests = vec![front.post(request("first", 1, 2)).send_meanwhile()];
    front.stub.held(1).await;
    for number in 1..=6 {
        let dimensions = 2 + number;
        requests.push(front.post(request("bulk", 16, dimensions)).send_meanwhile());
    }
    front.reaches(r#"vecho_pace_waiting{priority="bulk"}"#, 6.0).await;
    requests.push(front.post(request("bulk", 1, 8)).send_meanwhile());
    front.reaches(r#"vecho_pace_waiting{priority="interactive"}"#, 1.0).await;
    front.stub.release(7);
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
    let sent: Vec<Value> = front.stub.embedding_calls().iter().map(|call| call.json()["dimensions"].clone()).collect();
    let place = sent.iter().position(|dimensions| *dimensions == 8).expect("it is sent");
    // The head of the bulk line may be older than two seconds and go first.
    assert!(sent.len() == 7 && place <= 2, "{sent:?}");
    front.falls_to_zero(r#"vecho_pace_waiting{priority="interactive"}"#).await;
}

#[tokio::test]
async fn bulk_requests_leave_the_last_tenth_to_interactive_ones_where_only_the_rest_is_reported() {
    let front = Front::start().await;
    front.stub.limit_rate(calls_until_reset(20.0, Duration::from_mins(1), Reported::Azure));
    let bulk = |name: &str| front.post(text(name)).header("x-vecho-priority", "bulk");
    for number in 0..18 {
        assert_eq!(bulk(&format!("bulk {number}")).send().await.status, 200);
    }
    let waits = bulk("waits").send_meanwhile();
    front.reaches(r#"vecho_pace_waiting{priority="bulk"}"#, 1.0).await;
    for name in ["one", "other"] {
        assert_eq!(front.post(text(name)).send().await.status, 200);
    }
    assert!(front.stub.quota_record().refused().is_empty() && !waits.is_finished());
    assert_eq!(front.calls(), 20);
}

//! Fairness: the burst of one caller does not evict the entries of other callers, and does not block their upstream
//! calls or their admission.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::client::{Answer, post};
use crate::harness::front::texts_of;
use crate::harness::{Behaviour, Client, Front, Vecho};

/// Credentials of the two callers.
const MANY: &str = "sk-many";
const FEW: &str = "sk-few";

/// Returns distinct texts that begin with `name`.
fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name} {number}")).collect()
}

fn body(texts: &[String]) -> String {
    texts_of(&texts.iter().map(String::as_str).collect::<Vec<_>>()).to_string()
}

/// Sends this number of requests, each with this number of new texts.
fn flood(front: &Front, requests: usize, inputs: usize) -> Vec<JoinHandle<Answer>> {
    let body = |number: usize| body(&texts(&format!("flood {number}"), inputs));
    (0..requests).map(|number| front.post(body(number)).key(MANY).send_meanwhile()).collect()
}

/// Returns the number of the call that carried a text, counted from 1.
fn call_of(front: &Front, text: &str) -> Option<usize> {
    front.texts_sent().iter().position(|texts| texts.iter().any(|sent| sent == text)).map(|place| place + 1)
}

/// Releases one call at a time until one carries the text "small", and returns the number of that call.
async fn calls_until_small(front: &Front) -> usize {
    for calls in 1..100 {
        front.stub.arrived(calls).await;
        if let Some(number) = call_of(front, "small") {
            return number;
        }
        front.stub.release(1);
    }
    panic!("it is never sent")
}

async fn all_answered(front: &Front, requests: Vec<JoinHandle<Answer>>) {
    front.stub.always(Behaviour::Normal);
    front.stub.release(1_000);
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
}

#[tokio::test]
async fn callers_take_turns_at_the_upstream() {
    let front = Front::with(&[("upstream.max_concurrent", "1")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = flood(&front, 30, 1);
    front.reaches("vecho_upstream_queued_inputs", 29.0).await;
    requests.push(front.post(body(&["small".to_owned()])).key(FEW).send_meanwhile());
    front.reaches("vecho_upstream_queued_inputs", 30.0).await;
    assert!(calls_until_small(&front).await <= 3, "{:?}", front.texts_sent());
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn one_caller_gets_one_turn_across_all_its_key_headers() {
    let front = Front::with(&[("upstream.max_concurrent", "1"), ("cache.key_headers", "x-provider")]).await;
    front.stub.always(Behaviour::Gate);
    let flood =
        |number: usize| front.post(body(&texts("flood", 1))).key(MANY).header("x-provider", &number.to_string());
    let mut requests: Vec<_> = (0..30).map(|number| flood(number).send_meanwhile()).collect();
    front.reaches("vecho_upstream_queued_inputs", 29.0).await;
    requests.push(front.post(body(&["small".to_owned()])).key(FEW).send_meanwhile());
    front.reaches("vecho_upstream_queued_inputs", 30.0).await;
    assert!(calls_until_small(&front).await <= 3, "{:?}", front.texts_sent());
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn callers_take_turns_if_they_share_the_key_of_vecho() {
    let settings = [("upstream.max_concurrent", "1"), ("upstream.api_key", "sk-own"), ("batch.max_inputs", "4")];
    let front = Front::with(&settings).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = flood(&front, 10, 4);
    front.reaches("vecho_upstream_queued_inputs", 36.0).await;
    requests.push(front.post(body(&["small".to_owned()])).key(FEW).send_meanwhile());
    front.reaches("vecho_upstream_queued_inputs", 37.0).await;
    assert!(calls_until_small(&front).await <= 3, "{:?}", front.texts_sent());
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn a_small_request_waits_for_no_more_than_a_part_of_a_large_one() {
    let front = Front::with(&[("upstream.max_concurrent", "1"), ("batch.max_inputs", "4")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = flood(&front, 1, 40);
    front.reaches("vecho_upstream_queued_inputs", 36.0).await;
    requests.push(front.post(body(&["small".to_owned()])).key(MANY).send_meanwhile());
    front.reaches("vecho_upstream_queued_inputs", 37.0).await;
    assert!(calls_until_small(&front).await <= 3, "{:?}", front.texts_sent());
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn callers_take_turns_at_the_memory_for_answers() {
    // A fifth of this limit has room for one large answer at a time and one small answer beside it.
    let front = Front::with(&[("memory.limit_mb", "64")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = flood(&front, 6, 240);
    front.stub.held(1).await;
    front.reaches("vecho_upstream_in_flight", 6.0).await;
    requests.push(front.post(body(&["small".to_owned()])).key(FEW).send_meanwhile());
    front.reaches("vecho_upstream_in_flight", 7.0).await;
    assert_eq!(front.calls(), 1, "the others wait for memory");
    // When one large answer ends, the next one and the small one start.
    front.stub.release(1);
    front.stub.arrived(3).await;
    assert!(call_of(&front, "small").is_some(), "{} calls", front.calls());
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn small_requests_and_hits_do_not_wait_for_the_memory_of_large_ones() {
    let front = Front::with(&[("memory.limit_mb", "400")]).await;
    let known = body(&texts("known", 40));
    assert_eq!(front.post(known.clone()).key(FEW).send().await.status, 200);
    front.stub.always(Behaviour::Gate);
    // Each takes most of the memory for vectors, so the second one waits for the first.
    let mut requests = flood(&front, 2, 9_000);
    front.stub.held(1).await;
    assert_eq!(front.post(known).key(FEW).send().await.cache(), "hit");
    requests.push(front.post(body(&texts("small", 3))).key(FEW).send_meanwhile());
    // Its call is prepared beside that of the first large request.
    front.reaches("vecho_upstream_in_flight", 2.0).await;
    all_answered(&front, requests).await;
}

#[tokio::test]
async fn a_caller_is_admitted_while_another_fills_the_request_limit() {
    let front = Front::with(&[("limits.max_requests", "8")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = flood(&front, 8, 1);
    front.stub.held(8).await;
    let refused = front.post(body(&texts("more", 1))).key(MANY).send().await;
    assert_eq!(refused.status, 503, "one caller alone has the limit and no more");
    requests.push(front.post(body(&texts("other", 1))).key(FEW).send_meanwhile());
    front.stub.held(9).await;
    // From here on, the first caller gets no further permit, and the other callers share the free ones.
    front.stub.release(1);
    front.reaches(r#"vecho_upstream_calls_total{outcome="ok"}"#, 1.0).await;
    assert_eq!(front.post(body(&texts("more", 1))).key(MANY).send().await.status, 503);
    requests.push(front.post(body(&texts("another", 1))).key(FEW).send_meanwhile());
    front.stub.held(9).await;
    all_answered(&front, requests).await;
    assert_eq!(front.post(body(&texts("more", 1))).key(MANY).send().await.status, 200);
}

#[tokio::test]
async fn a_body_is_admitted_while_another_caller_fills_the_byte_limit() {
    let settings = [("limits.max_inflight_bytes", "3000000"), ("limits.max_body_bytes", "3000000")];
    let front = Front::with(&settings).await;
    front.stub.always(Behaviour::Gate);
    let long = |letter: &str, bytes: usize| json!({"model": "tiny", "input": letter.repeat(bytes)}).to_string();
    let large = front.post(long("a", 2_900_000)).key(MANY).send_meanwhile();
    front.stub.arrived(1).await;
    assert_eq!(front.post(long("b", 200_000)).key(MANY).send().await.status, 503);
    let small = front.post(long("c", 100_000)).key(FEW).send_meanwhile();
    front.stub.arrived(2).await;
    front.stub.release(10);
    for request in [large, small] {
        assert_ne!(request.await.expect("the request does not panic").status, 503);
    }
}

/// A vecho process with the built-in mock as upstream, and enough memory for all requests of the test.
struct Process {
    vecho: Vecho,
    client: Client,
}

impl Process {
    /// Requests 256 texts and returns the sources of the answer.
    async fn ask(&self, key: &str, name: &str) -> String {
        let ask = json!({"model": "large", "input": texts(name, 256), "dimensions": 1536, "encoding_format": "base64"});
        let mut request = post(&format!("{}/embeddings", self.vecho.base_url()), &ask);
        request.headers_mut().insert("authorization", key.parse().expect("it is a header value"));
        let answer = self.client.send(request).await.expect("the answer must arrive");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.sources().to_owned()
    }

    async fn memory_tier(&self) -> Value {
        self.client.get(&self.vecho.ops_url("/api/performance/cache/stats")).await.json()["tiers"]["memory"].clone()
    }

    /// Shrinks the caches until the process uses less than `target_mb`, and returns its previous memory use.
    async fn shrink(&self, target_mb: f64) -> f64 {
        let url = self.vecho.ops_url("/api/performance/optimize-memory");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "memory in MB is small")]
        let target_mb = target_mb as u64;
        let answer = self.client.post(&url, &json!({ "target_memory_mb": target_mb })).await.json();
        answer["current_memory_mb"].as_f64().unwrap_or_else(|| panic!("{answer}"))
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn entries_that_are_read_survive_a_burst_of_another_caller() {
    let environment =
        [("VECHO_CACHE_ANSWERS_PERCENT", "0"), ("VECHO_DISK_ENABLED", "false"), ("VECHO_CACHE_SCOPE", "credential")];
    let process = Process { vecho: Vecho::start_with("mock:", &environment), client: Client::new() };
    assert_eq!(process.ask(FEW, "read").await, "upstream=256");
    assert_eq!(process.ask(FEW, "read").await, "memory=256");
    for burst in 0..24 {
        process.ask(MANY, &format!("burst {burst}")).await;
    }
    // The first request returns free memory to the system; the second one evicts entries.
    let resident = process.shrink(1_000.0).await;
    process.shrink(resident - 1.0).await;
    let resident = process.shrink(1_000.0).await;
    process.shrink(resident - 8.0).await;
    let memory = process.memory_tier().await;
    assert!(memory["evictions"].as_u64().is_some_and(|entries| entries > 1_000), "{memory}");
    assert_eq!(process.ask(FEW, "read").await, "memory=256");
}

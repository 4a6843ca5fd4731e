//! Single-flight: concurrent requests for one key share one fetch, even if some of their clients disconnect.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::client::Answer;
use crate::harness::front::{TINY, texts_of, tiny};
use crate::harness::{Behaviour, Front, Stub};

const IN_FLIGHT: &str = "vecho_requests_in_flight";
const CANCELLED: &str = r#"vecho_requests_total{outcome="cancelled",route="embeddings"}"#;

/// Returns the number of an answer's inputs that came from a source.
fn from(answer: &Answer, source: &str) -> usize {
    let parts = answer.sources().split(", ").filter_map(|part| part.split_once('='));
    parts.filter(|(name, _)| *name == source).map(|(_, count)| count.parse::<usize>().expect("a count")).sum()
}

/// Writes a request on a new connection. Dropping the socket disconnects the client.
async fn write_request(front: &Front, texts: &[&str]) -> TcpStream {
    let body = texts_of(texts).to_string();
    let mut socket = TcpStream::connect(front.public()).await.expect("the port is open");
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: vecho\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.expect("the request must be taken");
    socket
}

#[tokio::test]
async fn a_hundred_concurrent_identical_requests_make_one_call() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let asks: Vec<_> = (0..100).map(|_| front.post(texts_of(&["a", "b"]).to_string()).send_meanwhile()).collect();
    front.reaches(IN_FLIGHT, 100.0).await;
    front.stub.release(1);
    let (mut led, mut joined) = (0, 0);
    for ask in asks {
        let answer = ask.await.expect("a request must end");
        assert_eq!(answer.vectors(), tiny(&["a", "b"]));
        led += from(&answer, "upstream");
        joined += from(&answer, "joined");
    }
    assert_eq!(front.texts_sent(), [["a", "b"]]);
    assert_eq!((led, joined), (2, 198));
}

#[tokio::test]
async fn identical_requests_in_both_encodings_share_one_call() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let ask = |encoding: &str| {
        let body = json!({"model": TINY, "input": "a", "encoding_format": encoding});
        front.post(body.to_string()).send_meanwhile()
    };
    let asks: Vec<_> = ["float", "base64"].iter().cycle().take(10).map(|encoding| (encoding, ask(encoding))).collect();
    front.reaches(IN_FLIGHT, 10.0).await;
    front.stub.release(1);
    for (encoding, ask) in asks {
        let answer = ask.await.expect("a request must end");
        assert_eq!(answer.vectors(), tiny(&["a"]));
        assert_eq!(answer.json()["data"][0]["embedding"].is_string(), *encoding == "base64");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_text_that_two_different_batches_share_is_sent_once() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let first = front.post(texts_of(&["a", "shared", "b"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    let second = front.post(texts_of(&["c", "shared"]).to_string()).send_meanwhile();
    front.stub.held(2).await;
    front.stub.release_all();
    let (first, second) = (first.await.expect("it must end"), second.await.expect("it must end"));
    assert_eq!(first.vectors(), tiny(&["a", "shared", "b"]));
    assert_eq!(second.vectors(), tiny(&["c", "shared"]));
    assert_eq!(second.sources(), "joined=1, upstream=1");
    assert_eq!(front.texts_sent(), [vec!["a", "shared", "b"], vec!["c"]]);
}

#[tokio::test]
async fn waiters_get_the_fetch_of_a_leader_that_disconnected() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let first = write_request(&front, &["shared"]).await;
    front.stub.held(1).await;
    // The second request has a text of its own. Its call proves that it has joined the fetch of the shared text.
    let second = front.post(texts_of(&["shared", "own"]).to_string()).send_meanwhile();
    front.stub.held(2).await;
    drop(first);
    front.reaches(CANCELLED, 1.0).await;
    assert_eq!(front.stub.held_now(), 2, "the fetch goes on");
    front.stub.release_all();
    let second = second.await.expect("it must end");
    assert_eq!(second.vectors(), tiny(&["shared", "own"]));
    assert_eq!(second.sources(), "joined=1, upstream=1");
    assert_eq!(front.texts_sent(), [["shared"], ["own"]]);
}

#[tokio::test]
async fn a_retry_after_a_disconnect_finds_the_answer_stored() {
    let front = Front::start().await;
    front.stub.next(Behaviour::Gate);
    drop({
        let socket = write_request(&front, &["slow"]).await;
        front.stub.held(1).await;
        socket
    });
    front.reaches(CANCELLED, 1.0).await;
    front.stub.release(1);
    front.reaches(r#"vecho_cache_entries{tier="memory"}"#, 1.0).await;
    let retry = front.embed(&["slow"]).await;
    assert_eq!((retry.vectors(), retry.cache()), (tiny(&["slow"]), "hit"));
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_retry_after_a_disconnect_joins_the_running_fetch() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let first = write_request(&front, &["slow"]).await;
    front.stub.held(1).await;
    drop(first);
    front.reaches(CANCELLED, 1.0).await;
    let retry = front.post(texts_of(&["slow"]).to_string()).send_meanwhile();
    front.reaches(IN_FLIGHT, 1.0).await;
    front.stub.release(1);
    assert_eq!(retry.await.expect("it must end").vectors(), tiny(&["slow"]));
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn each_waiter_of_a_failed_fetch_applies_its_own_fallback() {
    let settings = [("fallback.mode", "mock"), ("retry.max_attempts", "1"), ("breaker.failures", "1")];
    let front = Front::with(&settings).await;
    let down = Behaviour::Status { code: 503, headers: Vec::new(), body: "{}".to_owned() };
    for _ in 0..2 {
        front.stub.next(Behaviour::All(vec![Behaviour::Gate, down.clone()]));
    }
    front.stub.always(down);
    let ask = |texts: &[&str], fallback: &str| {
        front.post(texts_of(texts).to_string()).header("x-vecho-fallback", fallback).send_meanwhile()
    };
    let lead = ask(&["shared"], "error");
    front.stub.held(1).await;
    let joiner = ask(&["shared", "own"], "mock");
    front.stub.held(2).await;
    front.stub.release_all();
    let (lead, joiner) = (lead.await.expect("it must end"), joiner.await.expect("it must end"));
    assert_eq!(lead.status, 503, "who wants the error gets the error");
    assert_eq!((joiner.status, joiner.cache()), (200, "mock"), "who takes a mock gets a mock");
    assert_eq!(joiner.json()["vecho"]["mock"], json!([0, 1]));
}

#[tokio::test]
async fn a_waiter_does_not_fail_for_texts_it_did_not_request() {
    let front = Front::with(&[("retry.max_attempts", "1")]).await;
    let broken = Behaviour::Status { code: 503, headers: Vec::new(), body: "{}".to_owned() };
    let is_bad = |call: &crate::harness::stub::Call| call.texts().iter().any(|text| text == "bad");
    front.stub.when(is_bad, Behaviour::All(vec![Behaviour::Gate, broken]));
    let lead = front.post(texts_of(&["bad", "shared"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    front.stub.next(Behaviour::Gate);
    let joiner = front.post(texts_of(&["shared", "own"]).to_string()).send_meanwhile();
    front.stub.held(2).await;
    front.stub.release_all();
    assert_eq!(lead.await.expect("it must end").status, 503);
    assert_eq!(joiner.await.expect("it must end").vectors(), tiny(&["shared", "own"]));
}

#[tokio::test]
async fn refused_identical_requests_share_one_call_and_its_reply() {
    let front = Front::start().await;
    let body = json!({"error": {"message": "no", "type": "x", "param": null, "code": null}}).to_string();
    let refusal = Behaviour::Status { code: 400, headers: Vec::new(), body: body.clone() };
    front.stub.always(Behaviour::All(vec![Behaviour::Gate, refusal]));
    let asks: Vec<_> = (0..20).map(|_| front.post(texts_of(&["a"]).to_string()).send_meanwhile()).collect();
    front.reaches(IN_FLIGHT, 20.0).await;
    front.stub.release(20);
    for ask in asks {
        let answer = ask.await.expect("it must end");
        assert_eq!((answer.status, &answer.body[..]), (400, body.as_bytes()));
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_failed_fetch_is_not_remembered() {
    let front = Front::with(&[("retry.max_attempts", "1")]).await;
    front.stub.next(Behaviour::Status { code: 500, headers: Vec::new(), body: "{}".to_owned() });
    assert_eq!(front.embed(&["a"]).await.status, 500);
    let again = front.embed(&["a"]).await;
    assert_eq!((again.vectors(), again.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn requests_with_different_credentials_never_share_a_fetch() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let ask = |key: &str| front.post(texts_of(&["a"]).to_string()).key(key).send_meanwhile();
    let asks = [ask("sk-one"), ask("sk-two")];
    front.stub.held(2).await;
    front.stub.release_all();
    for ask in asks {
        let answer = ask.await.expect("it must end");
        assert_eq!((answer.vectors(), answer.sources()), (tiny(&["a"]), "upstream=1"));
    }
    let mut keys: Vec<_> = front
        .stub
        .embedding_calls()
        .iter()
        .filter_map(|call| call.header("authorization").map(str::to_owned))
        .collect();
    keys.sort();
    assert_eq!(keys, ["Bearer sk-one", "Bearer sk-two"]);
}

#[tokio::test]
async fn requests_of_different_namespaces_never_share_a_fetch() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let ask = |name: &str| front.post(texts_of(&["a"]).to_string()).header("x-vecho-namespace", name).send_meanwhile();
    let asks = [ask("one"), ask("two")];
    front.reaches(IN_FLIGHT, 2.0).await;
    front.stub.held(2).await;
    front.stub.release_all();
    for ask in asks {
        assert_eq!(ask.await.expect("it must end").vectors(), [Stub::vector(TINY, None, "a")]);
    }
}

/// Returns a generator of pseudo-random numbers that are the same in every run.
fn scattered(seed: usize) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9) + 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_overlapping_batches_send_each_text_once() {
    let front = Front::with(&[("upstream.max_concurrent", "2"), ("batch.max_inputs", "7")]).await;
    front.stub.always(Behaviour::Reorder);
    let (mut wanted, mut asks) = (std::collections::BTreeSet::new(), Vec::new());
    for seed in 0..80 {
        let mut next = scattered(seed);
        let texts: Vec<String> = (0..=next(12)).map(|_| format!("text {}", next(60))).collect();
        wanted.extend(texts.iter().cloned());
        let encoding = ["float", "base64"][next(2)];
        let body = json!({"model": TINY, "input": texts, "encoding_format": encoding});
        asks.push((texts, front.post(body.to_string()).send_meanwhile()));
    }
    for (texts, ask) in asks {
        let answer = ask.await.expect("it must end");
        let expected: Vec<_> = texts.iter().map(|text| Stub::vector(TINY, None, text)).collect();
        assert_eq!(answer.vectors(), expected, "{texts:?}");
    }
    let mut sent = front.texts_sent().concat();
    sent.sort();
    assert_eq!(sent, wanted.into_iter().collect::<Vec<_>>());
}

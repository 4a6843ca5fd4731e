//! Upstream calls: their credential and headers, and very large answers.

use serde_json::{Value, json};

use crate::harness::stub::Call;
use crate::harness::{Client, Inside, Stub, Vecho};

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

fn names(call: &Call) -> Vec<&str> {
    let mut names: Vec<&str> = call.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_key_of_vecho_replaces_every_client_credential() {
    let theirs = [("authorization", "Bearer sk-client"), ("api-key", "client"), ("x-api-key", "client")];
    let held = [("upstream.api_key", "sk-held")];
    for (style, name, value) in
        [("authorization", "authorization", "Bearer sk-held"), ("api-key", "api-key", "sk-held")]
    {
        let stub = Stub::start();
        stub.accept_keys(["sk-held"]);
        let pairs = [&held[..], &[("upstream.api_key_header", style)]].concat();
        let vecho = Inside::start(&stub.base_url(), &pairs).await;
        assert_eq!(vecho.embed_with(&theirs, ask("a")).await.status, 200);
        assert_eq!(vecho.embed(ask("b")).await.status, 200);
        let bypassed = json!({"model": "tiny", "input": "c", "unknown_field": 1});
        assert_eq!(vecho.embed_with(&theirs, bypassed).await.status, 200);
        let mut models =
            crate::harness::client::raw(http::Method::GET, &format!("http://{}/v1/models", vecho.public()), "");
        models.headers_mut().insert("authorization", "Bearer sk-client".parse().expect("legal"));
        assert_eq!(vecho.client.send(models).await.expect("an answer").status, 200);
        assert_eq!(stub.calls().len(), 4);
        for call in stub.calls() {
            assert_eq!(call.header(name), Some(value), "{style}");
            assert!(!format!("{:?}", call.headers).contains("client\""), "{:?}", call.headers);
        }
    }
}

#[tokio::test]
async fn without_its_own_key_vecho_forwards_the_clients_credential() {
    let stub = Stub::start();
    stub.accept_keys(["sk-good"]);
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let good = vecho.embed_with(&[("authorization", "Bearer sk-good"), ("openai-project", "p1")], ask("a")).await;
    assert_eq!(good.status, 200);
    assert_eq!(vecho.embed_with(&[("api-key", "sk-good")], ask("a")).await.status, 200);
    assert_eq!(vecho.embed_with(&[("authorization", "Bearer sk-bad")], ask("a")).await.status, 401);
    let calls = stub.embedding_calls();
    assert_eq!(calls.len(), 3, "each credential pays for itself");
    assert_eq!(
        (calls[0].header("authorization"), calls[0].header("openai-project")),
        (Some("Bearer sk-good"), Some("p1"))
    );
    assert_eq!((calls[1].header("api-key"), calls[1].header("authorization")), (Some("sk-good"), None));
}

#[tokio::test]
async fn all_headers_but_vecho_body_and_connection_headers_are_forwarded() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let sent = [
        ("authorization", "Bearer k"),
        ("openai-organization", "o"),
        ("openai-beta", "b"),
        ("user-agent", "sdk/1"),
        ("accept", "application/json"),
        ("traceparent", "00-1-1-01"),
        ("x-stainless-lang", "python"),
        ("x-custom", "1"),
        ("cookie", "c=1"),
        ("x-vecho-namespace", "team"),
        ("x-vecho-fallback", "error"),
        ("x-vecho-anything", "else"),
        ("cache-control", "max-age=60"),
        ("idempotency-key", "once"),
        ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
        ("te", "trailers"),
    ];
    assert_eq!(vecho.embed_with(&sent, ask("a")).await.status, 200);
    let call = &stub.embedding_calls()[0];
    let expected = [
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "openai-beta",
        "openai-organization",
        "traceparent",
        "user-agent",
        "x-custom",
        "x-stainless-lang",
    ];
    assert_eq!(names(call), expected);
}

#[tokio::test]
async fn headers_listed_in_connection_are_not_forwarded() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let sent = [("connection", "keep-alive, X-Hop"), ("x-hop", "1"), ("x-other", "2")];
    assert_eq!(vecho.embed_with(&sent, ask("a")).await.status, 200);
    let call = &stub.embedding_calls()[0];
    assert_eq!((call.header("x-hop"), call.header("connection"), call.header("x-other")), (None, None, Some("2")));
}

#[tokio::test]
async fn idempotency_keys_are_not_forwarded_to_split_calls() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("batch.max_inputs", "1")]).await;
    let answer = vecho.embed_with(&[("idempotency-key", "once")], json!({"model": "tiny", "input": ["a", "b"]})).await;
    assert_eq!(answer.vectors(), ["a", "b"].map(|text| Stub::vector("tiny", None, text)));
    assert!(stub.embedding_calls().iter().all(|call| call.header("idempotency-key").is_none()));
}

/// Returns one of the kernel's figures for a process's memory, in bytes.
fn memory_bytes(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// A quarter of the largest possible answer: floats of the longest vectors for a quarter of a full request.
#[tokio::test]
async fn a_very_large_answer_is_right_and_is_written_while_it_is_sent() {
    const TEXT_BYTES: u64 = 512 * 3072 * 11;
    let stub = Stub::start();
    // The reply cache is too small for the finished body. At the default size, the same is true of the largest answer.
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_CACHE_ANSWERS_PERCENT", "1")]);
    let inputs: Vec<String> = (0..512).map(|number| format!("w{number}")).collect();
    let body = json!({"model": "text-embedding-3-large", "input": inputs});
    let url = format!("{}/embeddings", vecho.base_url());
    let start = memory_bytes(vecho.id(), "VmRSS");
    let expected = inputs.iter().map(|input| Stub::vector("text-embedding-3-large", None, input)).collect::<Vec<_>>();
    let miss = Client::new().post(&url, &body).await;
    assert_eq!((miss.status, miss.header("x-vecho-cache")), (200, Some("miss")));
    assert!(miss.vectors() == expected, "every component of every vector is right");
    let grown = memory_bytes(vecho.id(), "VmHWM") - start;
    assert!(grown < 3 * TEXT_BYTES, "{} MiB for {} MiB of text", grown >> 20, TEXT_BYTES >> 20);
    // The first token count loads the tokenizer. Its memory is not part of an answer.
    Client::new().post(&url, &json!({"model": "text-embedding-3-large", "input": "w0"})).await;
    std::fs::write(format!("/proc/{}/clear_refs", vecho.id()), "5").expect("the peak can be reset");
    let before = memory_bytes(vecho.id(), "VmHWM");
    let hit = Client::new().post(&url, &body).await;
    assert_eq!((hit.status, hit.header("x-vecho-cache")), (200, Some("hit")));
    assert!(hit.json()["data"] == miss.json()["data"], "a hit says the same");
    let grown = memory_bytes(vecho.id(), "VmHWM") - before;
    assert!(grown < TEXT_BYTES / 2, "{} MiB on top for {} MiB of text", grown >> 20, TEXT_BYTES >> 20);
}

//! Tests of the stub upstream's contract, on which all other tests rely.

use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::{Answer, post, raw};
use crate::harness::stub::{Call, Dialect, Input, Limits, tokens};
use crate::harness::{Behaviour, Client, Stub};

const SMALL: &str = "text-embedding-3-small";

async fn embed(stub: &Stub, body: Value) -> Answer {
    Client::new().post(&format!("{}/embeddings", stub.base_url()), &body).await
}

fn words(inputs: &[&str], encoding: &str) -> Value {
    json!({"model": "tiny", "input": inputs, "encoding_format": encoding})
}

fn tiny(text: &str) -> Vec<f32> {
    Stub::vector("tiny", None, text)
}

#[tokio::test]
async fn both_encodings_contain_the_computed_vector() {
    let stub = Stub::start();
    for encoding in ["float", "base64"] {
        let answer = embed(&stub, json!({"model": SMALL, "input": ["a", "b"], "encoding_format": encoding})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.vectors(), [Stub::vector(SMALL, None, "a"), Stub::vector(SMALL, None, "b")]);
        assert_eq!(answer.indices(), [Some(0), Some(1)]);
        assert_eq!(answer.json()["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    }
    assert_eq!(stub.inputs_sent(), 4);
}

#[test]
fn a_vector_depends_on_all_its_fields_and_has_unit_length() {
    let all = [
        tiny("1"),
        Stub::vector("other", None, "1"),
        Stub::vector("tiny", None, [1]),
        Stub::vector("tiny", None, Input::Tokens(vec![1, 2])),
        Stub::vector_with("tiny", ("task", "query"), "1"),
        Stub::vector_with("tiny", ("input_type", "query"), "1"),
    ];
    for (at, vector) in all.iter().enumerate() {
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);
        assert!(all[..at].iter().all(|earlier| earlier != vector));
    }
    assert_eq!(Stub::vector(SMALL, None, "x").len(), 1536);
    assert_eq!(Stub::vector("text-embedding-3-large", None, "x").len(), 3072);
    assert_eq!(Stub::vector(SMALL, Some(256), "x").len(), 256);
}

#[tokio::test]
async fn answers_follow_extra_fields_tokens_and_dimensions() {
    let stub = Stub::start();
    let task = embed(&stub, json!({"model": "tiny", "input": "x", "task": "query"})).await;
    assert_eq!(task.vectors(), [Stub::vector_with("tiny", ("task", "query"), "x")]);
    let lists = embed(&stub, json!({"model": "tiny", "input": [[1, 2], [3]], "dimensions": 4.0})).await;
    let expected = [Stub::vector("tiny", Some(4), [1, 2]), Stub::vector("tiny", Some(4), [3])];
    assert_eq!(lists.vectors(), expected);
    assert_eq!(lists.json()["usage"]["prompt_tokens"], 3);
    let list = embed(&stub, json!({"model": "tiny", "input": [7, 8]})).await;
    assert_eq!(list.vectors(), [Stub::vector("tiny", None, [7, 8])]);
    assert_eq!(tokens("a gateway"), 2);
}

#[tokio::test]
async fn answers_have_the_model_and_the_service_headers() {
    let stub = Stub::start();
    let first = embed(&stub, json!({"model": "text-embedding-ada-002", "input": "x"})).await;
    let second = embed(&stub, json!({"model": "text-embedding-ada-002", "input": "x"})).await;
    assert_eq!(first.json()["model"], "text-embedding-ada-002-v2");
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    for name in ["openai-model", "openai-processing-ms", "x-ratelimit-remaining-tokens", "set-cookie", "alt-svc"] {
        assert!(first.header(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn every_path_prefix_is_served_and_azure_paths_set_the_model() {
    let stub = Stub::start();
    let client = Client::new();
    let body = json!({"input": "x", "model": "tiny"});
    for path in ["/v1/embeddings", "/embeddings", "/openai/v1/embeddings"] {
        assert_eq!(client.post(&(stub.root_url() + path), &body).await.vectors(), [tiny("x")]);
    }
    let azure = stub.root_url() + "/openai/deployments/mine/embeddings?api-version=2024-10-21";
    let answer = client.post(&azure, &json!({"input": "x"})).await;
    assert_eq!(answer.vectors(), [Stub::vector("mine", None, "x")]);
    assert!(stub.calls().iter().all(Call::is_embeddings));
}

#[tokio::test]
async fn invalid_requests_get_the_error_messages_of_the_service() {
    let stub = Stub::start();
    stub.set_limits(Limits { inputs: 3, tokens: 20, tokens_per_input: 15 });
    let long = "word ".repeat(30);
    for (body, message) in [
        (json!({"model": "tiny", "input": ["a", ""]}), "'$.input' is invalid."),
        (json!({"model": "tiny", "input": ""}), "'$.input' is invalid."),
        (json!({"model": "tiny", "input": []}), "'$.input' is invalid."),
        (json!({"model": "tiny", "input": [[]]}), "'$.input' is invalid."),
        (json!({"model": "tiny"}), "'$.input' is invalid."),
        (json!({"model": "tiny", "input": ["a", "b", "c", "d"]}), "Invalid 'input': array too long."),
        (json!({"model": "tiny", "input": long}), "This model's maximum context length is 15 tokens, however you"),
        (json!({"input": "x"}), "you must provide a model parameter"),
        (json!({"model": "tiny", "input": "x", "dimensions": 0}), "Invalid value for 'dimensions'"),
        (
            json!({"model": "text-embedding-ada-002", "input": "x", "dimensions": 8}),
            "This model does not support specifying dimensions.",
        ),
    ] {
        let answer = embed(&stub, body).await;
        assert_eq!((answer.status, answer.error()), (400, ("invalid_request_error".to_owned(), Value::Null)));
        let said = answer.json()["error"]["message"].as_str().map(str::to_owned).expect("a message is text");
        assert!(said.starts_with(message), "{said}");
    }
    let many = embed(&stub, json!({"model": "tiny", "input": [long[..50], long[..50], long[..50]]})).await;
    assert_eq!(many.error().0, "max_tokens_per_request");
    let missing = embed(&stub, json!({"model": "missing-1", "input": "x"})).await;
    assert_eq!((missing.status, missing.error().1), (404, json!("model_not_found")));
}

#[tokio::test]
async fn only_json_is_accepted_including_lone_surrogates() {
    let stub = Stub::start();
    let client = Client::new();
    let url = format!("{}/embeddings", stub.base_url());
    let send = async |body: &'static str| client.send(raw(Method::POST, &url, body)).await.expect("an answer");
    let lone = send(r#"{"model":"tiny","input":["\ud800","\ud83d\ude00","\\ud800"]}"#).await;
    assert_eq!(lone.vectors(), [tiny("\u{fffd}"), tiny("😀"), tiny("\\ud800")]);
    assert_eq!(send("{").await.status, 400);
    assert_eq!(send("[]").await.status, 400);
}

#[tokio::test]
async fn api_keys_are_checked_if_any_are_configured() {
    let stub = Stub::start();
    stub.accept_keys(["sk-a"]);
    let client = Client::new();
    let url = format!("{}/embeddings", stub.base_url());
    let ask = async |name: &'static str, value: &'static str| {
        let mut request = post(&url, &words(&["x"], "float"));
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
        client.send(request).await.expect("an answer")
    };
    assert_eq!(ask("authorization", "Bearer sk-a").await.status, 200);
    assert_eq!(ask("api-key", "sk-a").await.status, 200);
    let refused = ask("authorization", "Bearer sk-b").await;
    assert_eq!((refused.status, refused.error().1), (401, json!("invalid_api_key")));
}

#[tokio::test]
async fn queued_behaviours_are_consumed_but_rules_and_the_default_are_not() {
    let stub = Stub::start();
    stub.always(Behaviour::Quota);
    stub.when(|call| call.texts() == ["rule"], Behaviour::RateLimit { retry_after_ms: 1500 });
    stub.next(Behaviour::Normal);
    let ask = async |text: &str| embed(&stub, words(&[text], "float")).await;
    assert_eq!(ask("rule").await.status, 200);
    for _ in 0..2 {
        let limited = ask("rule").await;
        assert_eq!((limited.status, limited.error().1), (429, json!("rate_limit_exceeded")));
        assert_eq!((limited.header("retry-after-ms"), limited.header("retry-after")), (Some("1500"), Some("2")));
    }
    assert_eq!(ask("other").await.error().1, json!("insufficient_quota"));
}

#[tokio::test]
async fn corrupted_answers_have_exactly_the_configured_fault() {
    let stub = Stub::start();
    let ask = async |behaviour: Behaviour, encoding: &str| {
        stub.next(behaviour);
        embed(&stub, words(&["a", "b", "c"], encoding)).await
    };
    let reordered = ask(Behaviour::Reorder, "float").await;
    assert_eq!(
        (reordered.vectors(), reordered.indices()),
        (vec![tiny("c"), tiny("b"), tiny("a")], vec![Some(2), Some(1), Some(0)])
    );
    assert_eq!(ask(Behaviour::DuplicateIndex, "float").await.indices(), [Some(0), Some(1), Some(0)]);
    assert_eq!(ask(Behaviour::MissingItem, "float").await.indices().len(), 2);
    assert_eq!(ask(Behaviour::ExtraItem, "float").await.indices().len(), 4);
    assert_eq!(ask(Behaviour::NoIndex, "float").await.indices(), [None, None, None]);
    assert_eq!(ask(Behaviour::WrongDimension, "base64").await.vectors()[1].len(), 7);
    assert_eq!(ask(Behaviour::AllZero, "float").await.vectors()[0], [0.0; 8]);
    assert!(ask(Behaviour::Nan, "base64").await.vectors()[0][0].is_nan());
    assert!(String::from_utf8_lossy(&ask(Behaviour::Nan, "float").await.body).contains("[1e999,"));
    assert_eq!(ask(Behaviour::Float64Base64, "base64").await.vectors()[0].len(), 16);
    assert!(ask(Behaviour::FloatsForBase64, "base64").await.json()["data"][0]["embedding"].is_array());
    let several = Behaviour::All(vec![Behaviour::ModelName("tiny-2".to_owned()), Behaviour::NoUsage]);
    let several = ask(several, "float").await.json();
    assert_eq!((&several["model"], several.get("usage")), (&json!("tiny-2"), None));
}

#[tokio::test]
async fn dialects_change_refusals_answers_and_errors() {
    let stub = Stub::start();
    stub.always(Behaviour::Dialect(Dialect::Voyage));
    let refused = embed(&stub, words(&["a"], "float")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("encoding_format")));
    let answer = embed(&stub, json!({"model": "tiny", "input": "a", "input_type": null, "output_dimension": 4})).await;
    assert_eq!(answer.vectors(), [Stub::vector("tiny", Some(4), "a")]);
    assert_eq!(answer.json()["usage"], json!({"total_tokens": 1}));
    let bytes = embed(&stub, json!({"model": "tiny", "input": "a", "output_dtype": "int8"})).await;
    assert!(bytes.json()["data"][0]["embedding"].as_array().is_some_and(|all| all.iter().all(Value::is_i64)));
    stub.always(Behaviour::Dialect(Dialect::Mistral));
    assert_eq!(embed(&stub, json!({"model": "tiny", "input": "a", "user": "u"})).await.status, 422);
    assert!(embed(&stub, words(&["a"], "float")).await.json()["id"].is_string());
    stub.always(Behaviour::Dialect(Dialect::AzureInference));
    assert!(embed(&stub, words(&["a"], "base64")).await.json()["id"].is_string());
}

#[tokio::test]
async fn transport_faults_occur_as_configured() {
    let stub = Stub::start();
    let client = Client::new();
    let url = format!("{}/embeddings", stub.base_url());
    let ask = async |behaviour: Behaviour| {
        stub.next(behaviour);
        client.send(post(&url, &words(&["a"], "float"))).await
    };
    ask(Behaviour::HangUp).await.expect_err("hung up");
    ask(Behaviour::CutBody).await.expect_err("cut");
    assert_eq!(ask(Behaviour::Garbage).await.expect("html").header("content-type"), Some("text/html"));
    assert_eq!(ask(Behaviour::GzipLie).await.expect("plain").header("content-encoding"), Some("gzip"));
    let slow = Behaviour::SlowBody { chunk_bytes: 64, pause: Duration::from_millis(1) };
    let slow = ask(slow).await.expect("in pieces");
    assert_eq!((slow.vectors(), slow.header("content-length")), (vec![tiny("a")], None));
    let headers = vec![("x-should-retry", "false".to_owned())];
    let status = ask(Behaviour::Status { code: 503, headers, body: "{}".to_owned() }).await.expect("a status");
    assert_eq!((status.status, status.header("x-should-retry")), (503, Some("false")));
    let started = Instant::now();
    ask(Behaviour::Delay(Duration::from_millis(30))).await.expect("late");
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_gate_holds_calls_until_they_are_released() {
    let stub = Stub::start();
    stub.always(Behaviour::Gate);
    let url = format!("{}/embeddings", stub.base_url());
    let ask = || {
        let (client, url) = (Client::new(), url.clone());
        tokio::spawn(async move { client.post(&url, &words(&["a"], "float")).await })
    };
    let (first, second) = (ask(), ask());
    stub.held(2).await;
    assert!(!first.is_finished() && !second.is_finished());
    stub.release_all();
    assert_eq!((first.await.expect("released").status, second.await.expect("released").status), (200, 200));
    assert_eq!(stub.held_now(), 0);
    stub.release(1);
    assert_eq!(ask().await.expect("released beforehand").status, 200);
}

#[tokio::test]
async fn a_stopped_stub_refuses_connections_and_restarts_on_its_port() {
    let stub = Stub::start();
    stub.always(Behaviour::Gate);
    let client = Client::new();
    let url = format!("{}/embeddings", stub.base_url());
    let waiting = tokio::spawn({
        let (client, url) = (client.clone(), url.clone());
        async move { client.send(post(&url, &words(&["a"], "float"))).await }
    });
    stub.held(1).await;
    stub.down().await;
    waiting.await.expect("the task ends").expect_err("cut");
    client.send(post(&url, &words(&["a"], "float"))).await.expect_err("refused");
    stub.up().await;
    stub.always(Behaviour::Normal);
    assert_eq!(client.post(&url, &words(&["a"], "float")).await.status, 200);
    stub.arrived(2).await;
    assert_eq!(stub.embedding_calls().len(), 2);
    let connections: Vec<u64> = stub.calls().iter().map(|call| call.connection).collect();
    assert_eq!((connections[0] < connections[1], stub.connections()), (true, connections[1]));
    assert!(stub.calls()[0].at < stub.calls()[1].at);
}

#[tokio::test]
async fn held_streams_send_one_event_at_a_time() {
    let stub = Stub::start();
    stub.hold_events();
    let body = json!({"model": "gpt-stub", "messages": [], "stream": true});
    let request = post(&format!("{}/chat/completions", stub.base_url()), &body);
    let mut stream = Client::new().open(request).await.expect("a stream").into_body();
    let mut seen = String::new();
    for expected in ["Hello", " world", "!", "[DONE]"] {
        let frame = stream.frame().await.expect("an event").expect("whole").into_data().expect("data");
        seen.push_str(&String::from_utf8_lossy(&frame));
        assert!(seen.contains(expected) && seen.ends_with("\n\n"));
        let early = tokio::time::timeout(Duration::from_millis(5), stream.frame()).await;
        assert!(expected == "[DONE]" || early.is_err(), "the next event waits for its release");
        stub.release_event();
    }
    assert_eq!(seen.matches("data:").count(), 4);
}

#[tokio::test]
async fn other_routes_support_pass_through_tests() {
    let stub = Stub::start();
    let client = Client::new();
    assert_eq!(client.get(&format!("{}/models", stub.base_url())).await.json()["object"], "list");
    let body = json!({"model": "gpt-stub", "messages": []});
    let chat = client.post(&format!("{}/chat/completions", stub.base_url()), &body).await.json();
    assert_eq!(chat["choices"][0]["message"]["content"], "Hello world!");
    let echo = raw(Method::PUT, &format!("{}/echo?q=%20", stub.base_url()), "body");
    let echo = client.send(echo).await.expect("an echo").json();
    assert_eq!((&echo["method"], &echo["path"]), (&json!("PUT"), &json!("/v1/echo?q=%20")));
    assert_eq!(
        (&echo["body_bytes"], &echo["body_blake3"]),
        (&json!(4), &json!(blake3::hash(b"body").to_hex().as_str()))
    );
    let upload = raw(Method::POST, &format!("{}/files", stub.base_url()), vec![0; 300_000]);
    assert_eq!(client.send(upload).await.expect("counted").json()["bytes"], 300_000);
    stub.uploaded(300_000).await;
    assert_eq!(client.get(&format!("{}/slow-download", stub.base_url())).await.body.len(), 4 * 65_536);
    assert_eq!(client.get(&format!("{}/realtime", stub.base_url())).await.status, 426);
    assert_eq!(client.get(&format!("{}/nothing", stub.base_url())).await.status, 404);
}

#[tokio::test]
async fn an_upgraded_connection_echoes_bytes() {
    let stub = Stub::start();
    let mut stream = TcpStream::connect(stub.addr()).await.expect("it listens");
    let head = "GET /v1/realtime HTTP/1.1\r\nhost: stub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a head"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream.write_all(b"ping").await.expect("sent");
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.expect("echoed");
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn the_stub_can_be_scripted_over_http() {
    let stub = Stub::start();
    let client = Client::new();
    let control = stub.root_url() + "/__control";
    let wish = json!({"next": [{"behaviour": "rate_limit", "retry_after_ms": 10}, {"behaviour": "normal"}]});
    assert_eq!(client.post(&control, &wish).await.status, 200);
    assert_eq!(client.post(&control, &json!({"next": [{"behaviour": "nonsense"}]})).await.status, 400);
    assert_eq!(embed(&stub, words(&["a"], "float")).await.status, 429);
    assert_eq!(embed(&stub, words(&["a"], "float")).await.status, 200);
    let calls = client.get(&(stub.root_url() + "/__calls")).await.json();
    assert_eq!(calls.as_array().map(Vec::len), Some(2));
    assert_eq!((&calls[0]["path"], &calls[0]["inputs"]), (&json!("/v1/embeddings"), &json!(1)));
    assert_eq!(client.post(&control, &json!({"always": {"behaviour": "status", "code": 500}})).await.status, 200);
    for _ in 0..2 {
        assert_eq!(embed(&stub, words(&["a"], "float")).await.status, 500);
    }
}

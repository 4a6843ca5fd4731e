//! The log in both formats, and secrets that it must never contain.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::harness::client::{post, raw};
use crate::harness::socket::exchange;
use crate::harness::{Behaviour, Client, Stub, Vecho};

/// Words that must never appear in the log, each sent in a different part of a request.
const SECRETS: [&str; 8] = [
    "inputTextThatIsPrivate",
    "sk-clientCredential",
    "azureCredential",
    "sk-heldCredential",
    "adminTokenWord",
    "userFieldWord",
    "namespaceWord",
    "cookieWord",
];

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": [text, "inputTextThatIsPrivate"], "user": "userFieldWord"})
}

/// Causes every kind of event once: hits, misses, bypasses, all errors, pass-through, requests to the ops port.
async fn varied_traffic(stub: &Stub, vecho: &Vecho) {
    let client = Client::new();
    let embed = async |body: &Value| {
        let mut request = post(&format!("{}/embeddings", vecho.base_url()), body);
        for (name, value) in [
            ("authorization", "Bearer sk-clientCredential"),
            ("api-key", "azureCredential"),
            ("x-vecho-namespace", "namespaceWord"),
            ("cookie", "c=cookieWord"),
        ] {
            request.headers_mut().insert(name, value.parse().expect("legal"));
        }
        client.send(request).await.expect("an answer").status
    };
    let refusal = r#"{"error":{"message":"no inputTextThatIsPrivate","type":"x","param":null,"code":null}}"#.to_owned();
    let echoed =
        Behaviour::Status { code: 400, headers: vec![("x-echo", "sk-clientCredential".to_owned())], body: refusal };
    let kinds = [
        Behaviour::Normal,
        echoed,
        Behaviour::RateLimit { retry_after_ms: 1 },
        Behaviour::Quota,
        Behaviour::HangUp,
        Behaviour::CutBody,
        Behaviour::Garbage,
        Behaviour::Nan,
        Behaviour::ModelName("another".to_owned()),
        Behaviour::Status { code: 503, headers: vec![], body: "inputTextThatIsPrivate".to_owned() },
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        // vecho then forwards the caller's own request, and it gets the same answer.
        if matches!(kind, Behaviour::Garbage) {
            stub.next(kind.clone());
        }
        stub.next(kind);
        embed(&ask(&number.to_string())).await;
        embed(&ask(&number.to_string())).await;
    }
    embed(&json!({"model": "tiny", "input": "inputTextThatIsPrivate", "unknown": 1})).await;
    embed(&json!({"model": "tiny", "input": ["inputTextThatIsPrivate", ""]})).await;
    let chat = json!({"messages": [{"role": "user", "content": "inputTextThatIsPrivate"}]});
    client.post(&format!("{}/chat/completions", vecho.base_url()), &chat).await;
    let broken =
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-clientCredential\r\nbad header\r\n\r\n";
    exchange(vecho.public(), broken).await;
    let explain = post(&vecho.ops_url("/api/performance/cache/explain"), &ask("x"));
    for token in ["adminTokenWord", "adminTokenWordx"] {
        let mut request = explain.clone();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("legal"));
        client.send(request).await.expect("an answer");
    }
    for (method, path, body) in
        [(Method::PUT, "/api/log-level", r#"{"level":"trace"}"#), (Method::GET, "/api/config", "")]
    {
        let mut request = raw(method, &vecho.ops_url(path), body);
        request.headers_mut().insert("x-vecho-admin-token", "adminTokenWord".parse().expect("legal"));
        assert_eq!(client.send(request).await.expect("an answer").status, 200);
    }
    stub.down().await;
    embed(&ask("down")).await;
    stub.up().await;
    embed(&ask("up")).await;
}

fn assert_keeps_secrets(log: &str) {
    for secret in SECRETS {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

async fn log_of_varied_traffic(format: &str) -> String {
    let stub = Stub::start();
    let environment = [
        ("VECHO_LOG_LEVEL", "trace"),
        ("VECHO_LOG_FORMAT", format),
        ("OPENAI_API_KEY", "sk-heldCredential"),
        ("VECHO_ADMIN_TOKEN", "adminTokenWord"),
        ("VECHO_RETRY_BASE_WAIT", "1ms"),
        ("VECHO_BREAKER_FAILURES", "3"),
    ];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    varied_traffic(&stub, &vecho).await;
    vecho.signal("HUP");
    vecho.logged("configuration reloaded").await;
    vecho.stop().log
}

#[tokio::test]
async fn no_input_no_credential_and_no_token_is_ever_logged_as_text() {
    let log = log_of_varied_traffic("text").await;
    assert_keeps_secrets(&log);
    for said in [
        "TRACE",
        "DEBUG vecho::proxy",
        "INFO vecho::app::instance: serving",
        "WARN vecho",
        "outcome=\"hit\"",
        "the upstream's answer is invalid",
    ] {
        assert!(log.contains(said), "{said:?} is missing in\n{log}");
    }
}

#[tokio::test]
async fn no_input_no_credential_and_no_token_is_ever_logged_as_json() {
    let log = log_of_varied_traffic("json").await;
    assert_keeps_secrets(&log);
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
    let request = lines.iter().find(|line| line["message"] == "request" && line["outcome"] == "hit").expect("a hit");
    assert_eq!((&request["route"], &request["status"]), (&json!("embeddings"), &json!(200)));
}

#[tokio::test]
async fn an_outage_with_mocks_is_logged_once_at_each_end() {
    let stub = Stub::start();
    let vecho =
        Vecho::start_with(&stub.base_url(), &[("VECHO_RETRY_MAX_ATTEMPTS", "1"), ("VECHO_BREAKER_FAILURES", "0")]);
    let url = format!("{}/embeddings", vecho.base_url());
    stub.down().await;
    for number in 0..20 {
        assert_eq!(Client::new().post(&url, &ask(&number.to_string())).await.header("x-vecho-cache"), Some("mock"));
    }
    stub.up().await;
    assert_eq!(Client::new().post(&url, &ask("x")).await.header("x-vecho-cache"), Some("miss"));
    let log = vecho.stop().log;
    assert_eq!(log.matches("mock vectors are being served").count(), 1, "{log}");
    assert_eq!(log.matches("no more mock vectors").count(), 1, "{log}");
    assert_eq!(log.matches(MOCKS_BY_DEFAULT).count(), 1, "nobody has chosen them: {log}");
    assert_eq!(log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count(), 2, "{log}");
}

/// Part of the warning at startup.
const MOCKS_BY_DEFAULT: &str = "that is the default of fallback.mode";

#[tokio::test]
async fn an_outage_without_mocks_is_logged_once_with_its_cause_and_its_end() {
    for (mode, status, said) in [("error", 502, "requests fail"), ("stale", 200, "stale entries are being served")] {
        let stub = Stub::start();
        let settings = [
            ("VECHO_RETRY_MAX_ATTEMPTS", "1"),
            ("VECHO_BREAKER_FAILURES", "0"),
            ("VECHO_CACHE_TTL", "1s"),
            ("VECHO_FALLBACK_MODE", mode),
        ];
        let vecho = Vecho::start_with(&stub.base_url(), &settings);
        let (client, url) = (Client::new(), format!("{}/embeddings", vecho.base_url()));
        assert_eq!(client.post(&url, &ask("known")).await.status, 200);
        stub.down().await;
        until_past(&client, &url).await;
        for _ in 0..20 {
            assert_eq!(client.post(&url, &ask("known")).await.status, status, "{mode}");
        }
        stub.up().await;
        assert_eq!(client.post(&url, &ask("x")).await.header("x-vecho-cache"), Some("miss"));
        let log = vecho.stop().log;
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains(said) && warnings[0].contains("cause="), "{}", warnings[0]);
        assert_eq!(log.matches("the upstream answers again").count(), 1, "{log}");
    }
}

/// Waits until the entry is expired, and a request for it is no longer a hit.
async fn until_past(client: &Client, url: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.post(url, &ask("known")).await.header("x-vecho-cache") == Some("hit") {
        assert!(Instant::now() < deadline, "the entry never ends");
    }
}

#[tokio::test]
async fn startup_logs_the_paying_key() {
    let stub = Stub::start();
    let settings = [("OPENAI_API_KEY", "sk-s3cr3t")];
    let arguments = ["--set", "listen=0.0.0.0:0", "--set", "fallback.mode=error"];
    let log = Vecho::start_args(&stub.base_url(), &settings, &arguments).stop().log;
    assert_eq!(log.matches("calls are paid by the key from environment OPENAI_API_KEY").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
    let log = Vecho::start(&stub).stop().log;
    assert!(log.contains("calls are paid by each caller's own key") && !log.contains("the proxy"), "{log}");
}

#[tokio::test]
async fn startup_logs_the_base_url_for_applications_and_the_dashboard_in_both_formats() {
    for format in ["text", "json"] {
        let stub = Stub::start();
        let disk = format!("/dev/shm/vecho-logging-{}-{format}", std::process::id());
        let settings = [("VECHO_LOG_FORMAT", format), ("VECHO_DISK_PATH", disk.as_str())];
        let vecho = Vecho::start_with(&stub.base_url(), &settings);
        let (base_url, dashboard) = (vecho.base_url(), vecho.ops_url("/"));
        let log = vecho.stop().log;
        let _ = std::fs::remove_dir_all(&disk);
        let lines: Vec<&str> = log.lines().collect();
        let serving = lines.iter().position(|line| line.contains("serving public=")).expect("it serves");
        let first = &lines[..=serving];
        assert!(first.iter().any(|line| line.contains(&format!("OPENAI_BASE_URL={base_url}"))), "{log}");
        assert!(first.iter().any(|line| line.contains(&format!("the dashboard is {dashboard}"))), "{log}");
        assert!(first.iter().any(|line| line.contains("WARN") && line.contains("is in memory (tmpfs)")), "{log}");
        assert!(first.iter().filter(|line| !line.contains("WARN")).count() <= 6, "{log}");
        assert!(format == "text" || lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    }
}

#[tokio::test]
async fn an_upstream_that_ignores_dimensions_is_warned_of_once() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let data = json!([{"object": "embedding", "index": 0, "embedding": Stub::vector("tiny", None, "a")}]);
    let body = json!({"object": "list", "data": data, "model": "tiny"}).to_string();
    stub.always(Behaviour::Status { code: 200, headers: vec![("content-type", "application/json".to_owned())], body });
    for text in ["a", "b", "c"] {
        let body = json!({"model": "tiny", "input": text, "dimensions": 4});
        let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &body).await;
        assert_eq!(answer.header("x-vecho-cache"), Some("miss"));
    }
    vecho.logged("the upstream ignores `dimensions`").await;
    let log = vecho.log();
    assert_eq!(log.matches("the upstream ignores `dimensions`").count(), 1, "{log}");
}

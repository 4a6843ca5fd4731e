//! The description of the routes agrees with the running program: methods, statuses, and the form of real answers.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use vecho::proxy::OWN_ROUTES;

use crate::forgetting::FORGET;
use crate::harness::client::{Answer, raw};
use crate::harness::script::SCHEMAS;
use crate::harness::{Inside, Stub};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

async fn document(vecho: &Inside) -> Value {
    vecho.client.get(&format!("http://{}/openapi.json", vecho.admin())).await.json()
}

/// Returns path and operation of each method that the document describes under a tag.
fn operations<'d>(document: &'d Value, tag: &str) -> Vec<(&'d str, String, &'d Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object") {
            if operation["tags"] == json!([tag]) {
                found.push((path.as_str(), method.to_uppercase(), operation));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

async fn send(vecho: &Inside, request: http::Request<http_body_util::Full<bytes::Bytes>>) -> Answer {
    vecho.client.send(request).await.expect("it is answered")
}

#[tokio::test]
async fn the_ops_port_answers_exactly_the_described_methods() {
    let vecho = Inside::start("mock:", &[]).await;
    let document = document(&vecho).await;
    let described = operations(&document, "ops");
    let paths: BTreeSet<&str> = described.iter().map(|(path, ..)| *path).collect();
    for path in paths {
        let has = |method: &str| described.iter().any(|(other, name, _)| *other == path && name == method);
        for method in METHODS {
            // The event stream never ends.
            if (method, path) == ("GET", "/api/events") {
                continue;
            }
            let name = Method::from_bytes(method.as_bytes()).expect("it is a method");
            let answer = send(&vecho, raw(name, &format!("http://{}{path}", vecho.admin()), "")).await;
            let is_described = has(method) || method == "HEAD" && has("GET");
            assert_ne!(answer.status, 404, "{method} {path}");
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_public_port_answers_the_described_routes_itself() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let document = document(&vecho).await;
    let described = operations(&document, "public");
    let routes: BTreeSet<(String, String)> = described.iter().map(|(p, m, _)| (m.clone(), (*p).to_owned())).collect();
    assert_eq!(routes, OWN_ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect());
    for (path, method, _) in described {
        let url = format!("http://{}{}", vecho.public(), path.replace("{deployment}", "tiny"));
        let request = |body: &str, method| raw(method, &url, body.to_owned());
        if path.ends_with("/vecho/similar") {
            assert_eq!(send(&vecho, request("{}", Method::POST)).await.status, 400, "{path}");
            assert_eq!(send(&vecho, request("", Method::GET)).await.status, 405, "{path}");
            continue;
        }
        let bypassed = request(r#"{"model":"tiny","input":"a","late_chunking":true}"#, Method::POST);
        assert_eq!(send(&vecho, bypassed).await.header("x-vecho-cache"), Some("bypass"), "{method} {path}");
        let other = send(&vecho, request("", Method::GET)).await;
        assert_eq!(other.header("x-vecho-cache"), None, "GET {path} passes through");
    }
}

/// An answer, and the operation that it belongs to.
struct Seen {
    method: &'static str,
    path: &'static str,
    answer: Answer,
}

/// Returns the part of the document for the answer's status, and asserts that the answer's headers are described.
fn response<'d>(document: &'d Value, seen: &Seen) -> (&'d Value, String) {
    let Seen { method, path, answer } = seen;
    let status = answer.status.to_string();
    let operation = &document["paths"][path][method.to_lowercase()];
    let mut place =
        format!("/paths/{}/{}/responses/{status}", path.replace('~', "~0").replace('/', "~1"), method.to_lowercase());
    let mut response = &operation["responses"][&status];
    assert!(response.is_object(), "{method} {path}: the status {status} is not described: {answer:?}");
    if let Some(target) = response["$ref"].as_str() {
        place = target.trim_start_matches('#').to_owned();
        response = document.pointer(&place).expect("the reference leads somewhere");
    }
    for name in answer.headers.keys().filter(|name| name.as_str().starts_with("x-vecho-")) {
        assert!(response["headers"][name.as_str()].is_object(), "{method} {path}: {name} is not described");
    }
    (response, place)
}

async fn ops_answers(vecho: &Inside) -> Vec<Seen> {
    let body = r#"{"model":"tiny","input":["a","b"]}"#;
    let calls: &[(&str, &str, &str, &str)] = &[
        ("GET", "/livez", "", ""),
        ("GET", "/readyz", "", ""),
        ("GET", "/openapi.json", "", ""),
        ("GET", "/", "", ""),
        ("GET", "/metrics", "", ""),
        ("GET", "/api/performance/stats", "", ""),
        ("GET", "/api/performance/health", "", ""),
        ("GET", "/api/performance/cache/stats", "", ""),
        ("GET", "/api/dashboard", "", ""),
        ("GET", "/api/config", "", ""),
        ("GET", "/api/performance/cache/export", "", ""),
        ("POST", "/api/performance/optimize-memory", "", r#"{"target_memory_mb":100000}"#),
        ("POST", "/api/performance/optimize-memory", "", r#"{"target_memory_mb":0}"#),
        ("POST", "/api/performance/cache/explain", "", body),
        ("POST", "/api/performance/cache/explain", "", r#"{"model":"tiny","input":[1,2],"dimensions":3,"user":"u"}"#),
        ("POST", "/api/performance/cache/explain", "", r#"{"model":"tiny","input":"a","late_chunking":1}"#),
        ("POST", "/api/performance/cache/explain", "?path=/v1/models", body),
        ("POST", "/api/performance/cache/explain", "?nothing=1", body),
        ("POST", FORGET, "", body),
        ("POST", FORGET, "", r#"{"model":"tiny","input":"a","late_chunking":1}"#),
        ("POST", "/api/performance/budget/charge", "", r#"{"model":"tiny","tokens":1}"#),
        ("POST", "/api/performance/budget/charge", "", r#"{"model":"tiny"}"#),
        ("POST", "/api/performance/cache/import", "", "no file"),
        ("PUT", "/api/log-level", "", r#"{"level":"info"}"#),
        ("PUT", "/api/log-level", "", "loud and clear"),
        ("DELETE", "/api/performance/cache", "?model=tiny", ""),
        ("DELETE", "/api/performance/cache", "?tier=memory", ""),
        ("DELETE", "/api/performance/cache", "?tier=tape", ""),
    ];
    let mut seen = Vec::new();
    for (method, path, query, body) in calls {
        let name = Method::from_bytes(method.as_bytes()).expect("it is a method");
        let answer = send(vecho, raw(name, &format!("http://{}{path}{query}", vecho.admin()), *body)).await;
        seen.push(Seen { method, path, answer });
    }
    seen
}

async fn public_answers(vecho: &Inside) -> Vec<Seen> {
    let ask = json!({"model": "tiny", "input": ["a", "b"]});
    let mut answers = vec![vecho.embed(&ask).await, vecho.embed(&ask).await];
    answers.push(vecho.embed(json!({"model": "tiny", "input": "a", "encoding_format": "base64"})).await);
    answers.push(vecho.embed(json!({"model": "tiny", "input": "c", "late_chunking": true})).await);
    answers.push(vecho.embed_with(&[("x-vecho-fallback", "maybe")], &ask).await);
    let only_cached = &[("cache-control", "only-if-cached")];
    answers.push(vecho.embed_with(only_cached, json!({"model": "tiny", "input": "never seen"})).await);
    let statuses: BTreeSet<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, BTreeSet::from([200, 400, 504]), "{answers:?}");
    let embeddings = answers.into_iter().map(|answer| Seen { method: "POST", path: "/v1/embeddings", answer });
    embeddings.chain(similar_answers(vecho).await).collect()
}

async fn similar_answers(vecho: &Inside) -> Vec<Seen> {
    let ranking = json!({"model": "tiny", "query": "a", "candidates": ["b", "c"], "top_k": 1});
    let scores = json!({"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}});
    let mut seen = Vec::new();
    for (path, body) in [
        ("/v1/vecho/similar", &ranking),
        ("/v1/vecho/similar", &json!({"query": "a"})),
        ("/vecho/similar", &ranking),
        ("/similarity", &scores),
    ] {
        let url = format!("http://{}{path}", vecho.public());
        seen.push(Seen { method: "POST", path, answer: send(vecho, raw(Method::POST, &url, body.to_string())).await });
    }
    let statuses: Vec<u16> = seen.iter().map(|seen| seen.answer.status).collect();
    assert_eq!(statuses, [200, 400, 200, 200]);
    seen
}

#[tokio::test]
async fn real_answers_have_the_described_form() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let guarded = Inside::start(&stub.base_url(), &[("admin.token", "secret")]).await;
    let document = document(&vecho).await;
    let mut seen = public_answers(&vecho).await;
    seen.extend(ops_answers(&vecho).await);
    seen.extend(ops_answers(&guarded).await);
    let mut checks = Vec::new();
    for seen in &seen {
        let (response, place) = response(&document, seen);
        let kind = seen.answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        assert!(response["content"][kind].is_object(), "{} {}: {kind} is not described", seen.method, seen.path);
        if kind == "application/json" {
            let pointer = format!("{place}/content/application~1json/schema");
            let name = format!("{} {} {}", seen.method, seen.path, seen.answer.status);
            checks.push(json!({"name": name, "pointer": pointer, "value": seen.answer.json()}));
        }
    }
    let forbidden = seen.iter().filter(|seen| seen.answer.status == 403).count();
    assert!(forbidden > 5 && checks.len() > 30, "{forbidden} {}", checks.len());
    assert_eq!(faults(&document, &checks), json!([]));
    // A wrong answer is found, so the comparison compares.
    checks.truncate(1);
    checks[0]["value"]["object"] = json!("lists");
    assert_eq!(faults(&document, &checks).as_array().map(Vec::len), Some(1));
}

fn faults(document: &Value, checks: &[Value]) -> Value {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("openapi-{}.json", std::process::id()));
    let text = json!({"document": document, "answers": checks}).to_string();
    std::fs::write(&file, text).expect("it can be written");
    let mut command = SCHEMAS.command();
    command.env("CHECKS", &file);
    let faults = SCHEMAS.report(command);
    std::fs::remove_file(&file).expect("it is there");
    faults
}

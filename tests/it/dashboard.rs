//! The dashboard over real sockets: the page, its figures, and the events that it receives while it is open.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::harness::client::{Answer, Client};
use crate::harness::{Behaviour, Inside, Stub, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

async fn get(vecho: &Inside, path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::new().send(request(vecho, path, headers)).await.expect("the ops port answers")
}

fn request(vecho: &Inside, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(format!("http://{}{path}", vecho.admin()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a test's request is legal")
}

/// An open event stream.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn open(vecho: &Inside) -> Result<Self, u16> {
        let answer = Client::new().open(request(vecho, "/api/events", &[])).await.expect("an answer begins");
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Ok(Self { body: answer.into_body(), text: String::new() })
    }

    /// Returns the data of the next event, or `None` after the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        while !self.text.contains("\n\n") {
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("in time")?;
            let data = frame.expect("the stream is not cut").into_data().expect("data");
            self.text.push_str(str::from_utf8(&data).expect("text"));
        }
        let (event, rest) = self.text.split_once("\n\n").expect("a whole event");
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event has data");
        let (data, rest) = (serde_json::from_str(data).expect("JSON"), rest.to_owned());
        self.text = rest;
        Some(data)
    }
}

#[tokio::test]
async fn the_page_may_run_only_its_own_files() {
    let vecho = Inside::start("mock:", &[]).await;
    let page = get(&vecho, "/", &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")]).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let headers = ["vary", "x-content-type-options", "referrer-policy"].map(|name| page.header(name));
    assert_eq!(headers, [Some("accept"), Some("nosniff"), Some("no-referrer")]);
    let text = str::from_utf8(&page.body).expect("text");
    assert!(!text.contains("style=") && !text.contains("<style") && !text.contains("<script>"), "{text}");
    let files: Vec<&str> = text.split('"').filter(|part| part.starts_with("dashboard/")).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let asset = get(&vecho, &format!("/{file}"), &[]).await;
        assert_eq!((asset.status, asset.header("x-content-type-options")), (200, Some("nosniff")), "{file}");
        assert!(asset.header("content-security-policy").is_some(), "{file}");
    }
    assert!(!text.contains("http://") && !text.contains("https://"), "no request leaves this machine");
    assert_eq!(get(&vecho, "/dashboard/../Cargo.toml", &[]).await.status, 404);
    let list = get(&vecho, "/", &[("accept", "*/*")]).await;
    assert_eq!(list.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn events_start_at_once_and_report_each_sample_and_request_once() {
    let vecho = Inside::start("mock:", &[]).await;
    let mut events = Events::open(&vecho).await.expect("there is room");
    let first = events.next().await.expect("the first event");
    assert_eq!((&first["sample"], &first["recent"]), (&Value::Null, &json!([])));
    for _ in 0..3 {
        vecho.embed(json!({"model": "tiny", "input": ["a", "b"]})).await;
    }
    let (mut requests, mut outcomes) = (0, Vec::new());
    while requests < 3 {
        let event = events.next().await.expect("an event");
        requests += event["sample"]["requests"].as_u64().expect("a number");
        let recent = event["recent"].as_array().expect("a list").clone();
        outcomes.extend(recent.into_iter().rev().map(|request| request["outcome"].clone()));
    }
    assert_eq!((requests, outcomes), (3, vec![json!("miss"), json!("hit"), json!("hit")]));
}

#[tokio::test]
async fn the_dashboard_equals_stats_and_health() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    for _ in 0..3 {
        vecho.embed(json!({"model": "tiny", "input": ["a", "b"]})).await;
    }
    let dashboard = get(&vecho, "/api/dashboard", &[]).await.json();
    let now = &dashboard["now"];
    let stats = get(&vecho, "/api/performance/stats", &[]).await.json();
    for part in ["savings", "latency_ms", "embedding_cache"] {
        assert_eq!(now["stats"][part], stats[part], "{part}");
    }
    assert_eq!(now["health"]["status"], get(&vecho, "/api/performance/health", &[]).await.json()["status"]);
    assert_eq!((&now["inputs"]["memory"], &now["inputs"]["upstream"]), (&json!(4), &json!(2)));
    assert_eq!((&now["outcomes"]["hit"], &now["outcomes"]["miss"]), (&json!(2), &json!(1)));
    let upstream = &now["upstream"];
    assert_eq!((&upstream["url"], &upstream["breaker"]), (&json!(stub.base_url()), &json!("closed")));
    assert_eq!((&upstream["calls"]["ok"], &upstream["mean_inputs_per_call"]), (&json!(1), &json!(2.0)));
    let sizes = upstream["batch_sizes"].as_array().expect("a list");
    let calls: Vec<(Option<f64>, u64)> =
        sizes.iter().map(|size| (size["le"].as_f64(), size["calls"].as_u64().expect("a number"))).collect();
    assert_eq!(calls.iter().filter(|(_, calls)| *calls > 0).collect::<Vec<_>>(), [&(Some(2.0), 1)]);
    assert_eq!(calls.last(), Some(&(None, 0)));
    assert_eq!((&now["fallback_mode"], &now["stats"]["latency_ms"]["hit"]["count"]), (&json!("mock"), &json!(2)));
    assert!(now["memory"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let newest = &dashboard["recent"][0];
    let shown = ["route", "outcome", "status", "model", "namespace", "inputs"].map(|name| newest[name].clone());
    assert_eq!(json!(shown), json!(["embeddings", "hit", 200, "tiny", "", 2]));
}

#[tokio::test]
async fn history_samples_add_up_to_the_counters() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    for n in 0..20 {
        vecho.embed(json!({"model": "tiny", "input": [format!("text {}", n % 7), "b"]})).await;
    }
    let sums = async || {
        let dashboard = get(&vecho, "/api/dashboard", &[]).await.json();
        let samples = dashboard["history"]["samples"].as_array().expect("a list").clone();
        let sum = |of: &dyn Fn(&Value) -> &Value| samples.iter().filter_map(|one| of(one).as_u64()).sum::<u64>();
        [
            sum(&|one| &one["requests"]),
            sum(&|one| &one["inputs"]["memory"]),
            sum(&|one| &one["tokens_saved"]),
            sum(&|one| &one["upstream_inputs"]),
            sum(&|one| &one["latency_ms"]["all"]["count"]),
        ]
    };
    let mut counted = Vec::new();
    for series in [
        r#"vecho_inputs_total{source="memory"}"#,
        r#"vecho_tokens_total{kind="saved"}"#,
        "vecho_upstream_call_inputs_sum",
    ] {
        counted.push(vecho.metric(series).await.to_string());
    }
    let counted = ["20", &counted[0], &counted[1], &counted[2], "20"].map(|number| number.parse::<u64>().ok());
    eventually("all is sampled", async || sums().await.map(Some) == counted).await;
}

#[tokio::test]
async fn at_most_sixteen_streams_are_open_at_once() {
    let vecho = Inside::start("mock:", &[]).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Events::open(&vecho).await.expect("there is room"));
    }
    let refused = get(&vecho, "/api/events", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(refused.error(), ("server_error".to_owned(), json!("overloaded")));
    assert_eq!(get(&vecho, "/livez", &[]).await.status, 200, "other routes are not in the way");
    open.pop();
    eventually("a place is free again", async || Events::open(&vecho).await.is_ok()).await;
}

#[tokio::test]
async fn streams_end_cleanly_when_the_ops_port_drains() {
    let vecho = Inside::start("mock:", &[("shutdown.grace", "20s")]).await;
    let mut events = Events::open(&vecho).await.expect("there is room");
    events.next().await.expect("the first event");
    let begun = std::time::Instant::now();
    let reader = async { while events.next().await.is_some() {} };
    let (stopped, ()) = tokio::join!(vecho.stop(), reader);
    assert_eq!(stopped, vecho::app::Stopped::default());
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing waited for a limit");
}

#[tokio::test]
async fn no_display_contains_an_input_text() {
    const SECRET: &str = "xyzzy-plugh";
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("retry.max_attempts", "1")]).await;
    let mut events = Events::open(&vecho).await.expect("there is room");
    for body in [json!(SECRET), json!([SECRET, SECRET]), json!([SECRET, ""])] {
        for field in ["dimensions", "unheard_of"] {
            vecho.embed(json!({"model": "tiny", "input": body, field: 8})).await;
        }
    }
    stub.always(Behaviour::HangUp);
    vecho.embed(json!({"model": "tiny", "input": format!("{SECRET} while it is down")})).await;
    vecho.client.get(&format!("http://{}/v1/{SECRET}?q={SECRET}", vecho.public())).await;
    let dashboard = get(&vecho, "/api/dashboard", &[]).await;
    let shown = str::from_utf8(&dashboard.body).expect("text");
    assert_eq!(dashboard.json()["recent"].as_array().map(Vec::len), Some(8));
    assert!(!shown.contains("xyzzy"), "{shown}");
    let mut told = 0;
    while told < 8 {
        let event = events.next().await.expect("an event");
        told += event["recent"].as_array().map_or(0, Vec::len);
        assert!(!event.to_string().contains("xyzzy"), "{event}");
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_get_no_data() {
    let vecho = Inside::start("mock:", &[]).await;
    for path in ["/api/dashboard", "/api/events"] {
        for header in [("host", "evil.example"), ("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            let answer = get(&vecho, path, &[header]).await;
            assert_eq!((answer.status, answer.error().1), (403, json!("forbidden")), "{path} {header:?}");
        }
    }
}

//! Incidents of the upstream, as reported to an operator in health, metrics and the log.

use serde_json::{Value, json};

use crate::harness::{Behaviour, Inside, Stub};

const QUICK: [(&str, &str); 2] = [("retry.max_attempts", "1"), ("breaker.failures", "0")];

async fn start(stub: &Stub, mode: &str) -> Inside {
    Inside::start(&stub.base_url(), &[&QUICK[..], &[("fallback.mode", mode)]].concat()).await
}

fn ask(model: &str, inputs: &[&str]) -> Value {
    json!({"model": model, "input": inputs})
}

async fn incidents(vecho: &Inside) -> Vec<Value> {
    vecho.health().await["incidents"].as_array().expect("a list of incidents").clone()
}

#[tokio::test]
async fn an_incident_reports_its_times_cause_and_inputs_to_embed_again() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    assert_eq!(incidents(&vecho).await, Vec::<Value>::new());
    stub.down().await;
    vecho.embed(ask("tiny", &["a", "b", "a"])).await;
    vecho.clock.advance_ms(5_000);
    vecho.embed(ask("tiny", &["c"])).await;
    let active = incidents(&vecho).await.remove(0);
    assert_eq!((&active["active"], &active["to"], &active["mock_inputs"]), (&json!(true), &Value::Null, &json!(4)));
    assert!((vecho.metric("vecho_incident_active").await - 1.0).abs() < f64::EPSILON);
    vecho.clock.advance_ms(5_000);
    stub.up().await;
    vecho.embed(ask("tiny", &["a"])).await;
    // Long after the incident, when no other figure shows it any more.
    vecho.clock.advance_ms(360_000);
    let health = vecho.health().await;
    assert_eq!(health["status"], "healthy", "{health}");
    let over = &health["incidents"][0];
    assert_eq!(
        (&over["active"], &over["mock_inputs"], &over["failed_requests"]),
        (&json!(false), &json!(4), &json!(0))
    );
    assert!(over["cause"].as_str().is_some_and(|cause| cause.contains("Connection refused")), "{over}");
    let models = json!([{"model": "tiny", "mock_inputs": 4, "stale_inputs": 0, "failed_requests": 0}]);
    assert_eq!(over["models"], models);
    let again = &over["embed_again"];
    assert_eq!((&again["inputs"], &again["from"]), (&json!(4), &over["from"]));
    assert!(again["to"].as_str() > again["from"].as_str() && over["to"].as_str() > again["to"].as_str(), "{over}");
    for (metric, value) in [("vecho_incidents_total", 1.0), ("vecho_incident_active", 0.0)] {
        assert!((vecho.metric(metric).await - value).abs() < f64::EPSILON, "{metric}");
    }
}

#[tokio::test]
async fn an_incident_is_dated_by_the_answer_not_by_the_request_start() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    stub.always(Behaviour::Gate);
    let (answer, ()) = tokio::join!(vecho.embed(ask("tiny", &["slow"])), async {
        stub.held(1).await;
        // The request waits for two minutes by the test clock, and then its connection ends.
        vecho.clock.advance_ms(120_000);
        stub.down().await;
    });
    assert_eq!(answer.header("x-vecho-cache"), Some("mock"));
    vecho.clock.advance_ms(10_000);
    let health = vecho.health().await;
    assert_eq!(health["status"], "degraded");
    let warning = health["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("answers are mocks, since 10 s (") && warning.contains("`tiny`"), "{warning}");
}

#[tokio::test]
async fn failed_requests_are_an_incident_without_inputs_to_embed_again() {
    let stub = Stub::start();
    let vecho = start(&stub, "error").await;
    stub.down().await;
    for text in ["a", "b"] {
        assert_eq!(vecho.embed(ask("tiny", &[text])).await.status, 502);
    }
    let health = vecho.health().await;
    assert!(health["warnings"][0].as_str().is_some_and(|text| text.contains("requests fail, since 0 s")), "{health}");
    let incident = &health["incidents"][0];
    assert_eq!((&incident["failed_requests"], &incident["embed_again"]), (&json!(2), &Value::Null));
}

#[tokio::test]
async fn a_stale_vector_for_one_request_that_fails_by_status_is_no_incident() {
    let stub = Stub::start();
    let settings = [&QUICK[..], &[("fallback.mode", "stale"), ("cache.ttl", "1h"), ("cache.stale_for", "1h")]].concat();
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    vecho.embed(ask("tiny", &["a"])).await;
    vecho.clock.advance_ms(3_600_001);
    stub.always(Behaviour::Status { code: 503, headers: vec![], body: "{}".to_owned() });
    assert_eq!(vecho.embed(ask("tiny", &["a"])).await.cache(), "stale");
    assert_eq!(incidents(&vecho).await, Vec::<Value>::new());
    stub.down().await;
    assert_eq!(vecho.embed(ask("tiny", &["a", "a"])).await.cache(), "stale");
    let incident = incidents(&vecho).await.remove(0);
    assert_eq!((&incident["stale_inputs"], &incident["mock_inputs"]), (&json!(2), &json!(0)), "an outage is one");
}

#[tokio::test]
async fn a_refused_request_is_no_incident() {
    let stub = Stub::start();
    let vecho = start(&stub, "mock").await;
    let refusal = Behaviour::Status { code: 400, headers: vec![], body: r#"{"error":"no"}"#.to_owned() };
    stub.always(refusal);
    assert_eq!(vecho.embed(ask("tiny", &["a"])).await.status, 400);
    assert_eq!(incidents(&vecho).await, Vec::<Value>::new());
}

//! Rate limits as the ops port shows them.

use serde_json::{Value, json};

use crate::harness::{Behaviour, Inside, Stub, eventually};

async fn shown(vecho: &Inside) -> Value {
    let url = format!("http://{}/api/performance/stats", vecho.admin());
    vecho.client.get(&url).await.json()["rate_limits"].clone()
}

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

#[tokio::test]
async fn limits_that_the_upstream_reports_are_shown_for_each_model() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    assert_eq!(shown(&vecho).await, json!([]));
    assert_eq!(vecho.embed(ask("a")).await.status, 200);
    let one = &shown(&vecho).await[0];
    let left = |resource: &str| one[resource]["left"].as_f64().expect("a number");
    assert_eq!((&one["target"], &one["model"], &one["credentials"]), (&Value::Null, &json!("tiny"), &json!(1)));
    assert_eq!((&one["requests"]["per_minute"], &one["tokens"]["per_minute"]), (&json!(3_000.0), &json!(1_000_000.0)));
    assert!((2_998.0..=3_000.0).contains(&left("requests")) && left("tokens") >= 999_000.0, "{one}");
    assert_eq!((&one["status"], &one["held_seconds"], &one["in_flight"]), (&json!("free"), &json!(0.0), &json!(0)));
}

#[tokio::test]
async fn a_call_that_is_held_is_shown_until_it_has_gone() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    stub.next(Behaviour::RateLimit { retry_after_ms: 1_500 });
    let text = ask("a");
    let held = async {
        let status = json!("held after a refusal");
        eventually("the call to wait", async || shown(&vecho).await[0]["waiting"]["interactive"] == 1).await;
        let one = &shown(&vecho).await[0];
        assert_eq!((&one["status"], &one["waiting"]), (&status, &json!({"interactive": 1, "bulk": 0})));
        let left = one["held_seconds"].as_f64().expect("a number");
        assert!(left > 0.0 && left <= 1.5, "{one}");
    };
    let (answer, ()) = tokio::join!(vecho.embed(&text), held);
    assert_eq!(answer.status, 200);
    let one = &shown(&vecho).await[0];
    assert_eq!((&one["status"], &one["waiting"]["interactive"]), (&json!("free"), &json!(0)), "{one}");
}

#[tokio::test]
async fn calls_that_are_not_paced_show_no_limits() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("pace.mode", "off")]).await;
    assert_eq!(vecho.embed(ask("a")).await.status, 200);
    assert_eq!(shown(&vecho).await, json!([]));
}

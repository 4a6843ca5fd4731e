//! The circuit breaker: an unreachable upstream receives only single probes and is used again after it recovers. A
//! model that fails by status still receives every request, because a valid text must get through.

use serde_json::{Value, json};

use crate::harness::{Behaviour, Inside, Stub, eventually};

const STATE: &str = "vecho_upstream_breaker_state";

async fn start(stub: &Stub, more: &[(&str, &str)]) -> Inside {
    let plain = [("fallback.mode", "error"), ("retry.max_attempts", "1"), ("breaker.failures", "3")];
    Inside::start(&stub.base_url(), &[&plain[..], more].concat()).await
}

fn ask(text: impl std::fmt::Display) -> Value {
    json!({"model": "tiny", "input": text.to_string()})
}

async fn assert_state(vecho: &Inside, state: f64) {
    let shown = vecho.metric(STATE).await;
    assert!((shown - state).abs() < f64::EPSILON, "{shown} is not {state}");
}

#[tokio::test]
async fn consecutive_failures_open_the_breaker_and_stop_upstream_calls() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("breaker.open_for", "60s"), ("breaker.max_open", "60s")]).await;
    stub.down().await;
    for number in 0..3 {
        assert_state(&vecho, 0.0).await;
        assert_eq!(vecho.embed(ask(number)).await.status, 502);
    }
    assert_state(&vecho, 2.0).await;
    stub.up().await;
    for number in 10..20 {
        let answer = vecho.embed(ask(number)).await;
        assert_eq!(answer.error(), ("server_error".to_owned(), json!("upstream_unavailable")));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("vecho") && message.contains("refused"), "{message}");
    }
    assert_eq!(stub.embedding_calls().len(), 0, "no call reaches an upstream behind an open breaker");
    let health = vecho.health().await;
    assert_eq!(health["status"], "degraded");
    assert!(health["warnings"].to_string().contains("the breaker in front of the upstream is open"), "{health}");
    assert!((vecho.metric("vecho_upstream_breaker_opened_total").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_success_or_refusal_between_failures_keeps_the_breaker_closed() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    let cut = || [Behaviour::HangUp, Behaviour::HangUp];
    for (number, good) in [Behaviour::Normal, Behaviour::Quota].into_iter().cycle().take(6).enumerate() {
        // Each request is retried once on a new connection.
        for behaviour in cut().into_iter().chain(cut()).chain([good]) {
            stub.next(behaviour);
        }
        for part in ["a", "b", "c"] {
            vecho.embed(ask(format!("{part}{number}"))).await;
        }
    }
    assert_state(&vecho, 0.0).await;
    assert_eq!(stub.embedding_calls().len(), 30);
}

#[tokio::test]
async fn an_upstream_that_closes_every_connection_opens_the_breaker() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    assert_eq!(vecho.embed(ask("kept")).await.status, 200);
    stub.always(Behaviour::HangUp);
    for number in 0..3 {
        assert_state(&vecho, 0.0).await;
        assert_eq!(vecho.embed(ask(number)).await.status, 502);
    }
    assert_state(&vecho, 2.0).await;
}

#[tokio::test]
async fn a_timeout_between_failures_does_not_reset_the_breaker() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("upstream.call_timeout", "300ms")]).await;
    for (number, (behaviour, status)) in
        [(Behaviour::HangUp, 502), (Behaviour::HangUp, 502), (Behaviour::Gate, 504), (Behaviour::HangUp, 502)]
            .into_iter()
            .enumerate()
    {
        assert_state(&vecho, 0.0).await;
        stub.always(behaviour);
        assert_eq!(vecho.embed(ask(number)).await.status, status, "{number}");
    }
    assert_state(&vecho, 2.0).await;
}

#[tokio::test]
async fn a_slow_probe_does_not_block_other_requests() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("breaker.open_for", "50ms"), ("breaker.max_open", "50ms")]).await;
    stub.down().await;
    for number in 0..3 {
        vecho.embed(ask(number)).await;
    }
    stub.always(Behaviour::Gate);
    stub.up().await;
    let probe = async {
        eventually("a probe that is answered", async || vecho.embed(ask("probe")).await.status == 200).await;
    };
    let beside = async {
        stub.held(1).await;
        let other = async {
            eventually("a call beside it", async || vecho.embed(ask("other")).await.status == 200).await;
        };
        let release = async {
            stub.held(2).await;
            stub.release(2);
        };
        tokio::join!(other, release);
    };
    tokio::join!(probe, beside);
    assert_state(&vecho, 0.0).await;
}

#[tokio::test]
async fn repeated_failures_of_one_request_keep_the_breaker_closed() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    stub.always(Behaviour::HangUp);
    for _ in 0..10 {
        assert_eq!(vecho.embed(ask("the same")).await.status, 502);
    }
    assert_state(&vecho, 0.0).await;
}

#[tokio::test]
async fn a_failing_model_becomes_unavailable_but_each_request_still_calls_it() {
    let stub = Stub::start();
    let vecho =
        start(&stub, &[("fallback.mode", "mock"), ("retry.max_attempts", "3"), ("retry.base_wait", "1ms")]).await;
    let is_sick = |call: &crate::harness::stub::Call| {
        call.json()["model"] == "tiny" && !call.texts().iter().any(|text| text.contains("well"))
    };
    stub.when(is_sick, Behaviour::Status { code: 503, headers: vec![], body: r#"{"error":"sick"}"#.to_owned() });
    for number in [0, 1, 1, 1] {
        let answer = vecho.embed(ask(number)).await;
        assert_eq!((answer.status, &answer.body[..]), (503, &br#"{"error":"sick"}"#[..]), "{number}");
    }
    let calls = stub.embedding_calls().len();
    for number in 2..6 {
        let answer = vecho.embed(ask(number)).await;
        assert_eq!((answer.status, answer.header("x-vecho-cache")), (200, Some("mock")), "{number}");
        assert_eq!(answer.header("x-vecho-fallback-reason"), Some("failing; requests=3"));
    }
    assert_eq!(stub.embedding_calls().len() - calls, 3 + 3, "three attempts for the third request, then one for each");
    let other = vecho.embed(json!({"model": "other", "input": "x"})).await;
    assert_eq!((other.status, other.header("x-vecho-cache")), (200, Some("miss")), "another model is well");
    let well = vecho.embed(ask("well")).await;
    assert_eq!(
        (well.header("x-vecho-cache"), well.vectors()),
        (Some("miss"), vec![Stub::vector("tiny", None, "well")])
    );
    assert_eq!(vecho.embed(ask(9)).await.status, 503, "an answer begins the count anew");
    assert_state(&vecho, 0.0).await;
}

#[tokio::test]
async fn single_probes_detect_recovery_and_close_the_breaker() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("breaker.open_for", "50ms"), ("breaker.max_open", "50ms")]).await;
    stub.down().await;
    for number in 0..3 {
        vecho.embed(ask(number)).await;
    }
    stub.always(Behaviour::Gate);
    stub.up().await;
    let probe = async {
        let is_probing = async || vecho.embed(ask("probe")).await.status == 200;
        eventually("a probe that is answered", is_probing).await;
    };
    let beside = async {
        stub.held(1).await;
        assert_state(&vecho, 1.0).await;
        assert!(vecho.health().await["warnings"].to_string().contains("half-open"));
        for number in 10..20 {
            assert_eq!(vecho.embed(ask(number)).await.status, 503, "one probe is enough");
        }
        assert_eq!(stub.held_now(), 1);
        stub.release(1);
    };
    tokio::join!(probe, beside);
    stub.always(Behaviour::Normal);
    assert_state(&vecho, 0.0).await;
    assert_eq!(vecho.embed(ask("after")).await.vectors(), [Stub::vector("tiny", None, "after")]);
    assert_eq!(stub.embedding_calls().len(), 2, "one probe, one call");
    assert!(!vecho.health().await["warnings"].to_string().contains("breaker"));
}

#[tokio::test]
async fn stored_vectors_are_served_while_the_breaker_is_open() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("breaker.open_for", "60s"), ("breaker.max_open", "60s")]).await;
    vecho.embed(ask("known")).await;
    stub.down().await;
    for number in 0..4 {
        assert!(vecho.embed(ask(number)).await.status >= 502);
    }
    let answer = vecho.embed(ask("known")).await;
    assert_eq!((answer.status, answer.header("x-vecho-cache")), (200, Some("hit")));
}

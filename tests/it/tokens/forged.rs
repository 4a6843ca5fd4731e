//! Forged tokens: right claims without the issuer's signature. The upstream refuses them, and vecho serves them nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use super::issued::{NOW, ask, ask_as, assert_unauthorized, claims, forged, signed, start, token};
use crate::harness::front::{texts_of, tiny};
use crate::harness::stub::DEADLINE;
use crate::harness::{Behaviour, Front, Inside, Stub};

/// Settings of the scopes in which callers bring their own tokens.
const SCOPES: [&str; 2] = ["credential", "shared"];

/// Starts a vecho whose upstream accepts one token, which has fetched `a`, also into the reply cache.
async fn started(settings: &[(&str, &str)]) -> (Front, String) {
    let (front, good) = (start(settings).await, token("me", 1));
    front.stub.accept_keys([&good]);
    for _ in 0..4 {
        assert_eq!(ask_as(&front, &good, "a").await.vectors(), tiny(&["a"]));
    }
    (front, good)
}

#[tokio::test]
async fn a_forged_token_gets_the_upstreams_refusal_for_a_cached_text_in_each_scope() {
    for scope in SCOPES {
        let (front, good) = started(&[("cache.scope", scope)]).await;
        for number in 1..=3 {
            assert_unauthorized(&ask_as(&front, &forged("me"), "a").await);
            assert_eq!(front.calls(), 1 + number, "the upstream itself said so");
        }
        let large: Vec<String> = (0..40).map(|number| number.to_string()).chain(["a".to_owned()]).collect();
        let large: Vec<&str> = large.iter().map(String::as_str).collect();
        assert_unauthorized(&ask(&front, &forged("me"), &large).send().await);
        assert_eq!(front.calls(), 5, "one refused input says enough");
        assert!((front.metric(r#"vecho_token_proofs_total{result="refused"}"#).await - 4.0).abs() < 0.1);
        assert_eq!(ask_as(&front, &good, "a").await.cache(), "hit", "{scope}");
    }
}

#[tokio::test]
async fn a_forged_token_gets_nothing_from_any_route_or_control() {
    for scope in SCOPES {
        let (front, _) = started(&[("cache.scope", scope), ("cache.derive_dimensions", "true")]).await;
        let forged = forged("me");
        for directive in ["no-cache", "no-store", "max-age=1000"] {
            let answer = ask(&front, &forged, &["a"]).header("cache-control", directive).send().await;
            assert_unauthorized(&answer);
        }
        let only = ask(&front, &forged, &["a"]).header("cache-control", "only-if-cached").send().await;
        let unknown = ask(&front, &forged, &["unknown"]).header("cache-control", "only-if-cached").send().await;
        assert_eq!((only.status, only.error()), (504, unknown.error()), "it does not learn what is cached");
        let similar = json!({"model": "tiny", "query": "a", "candidates": ["a", "b"]}).to_string();
        assert_unauthorized(&front.post_to("/v1/vecho/similar", similar).key(&forged).send().await);
        let passed = front.post(r#"{"model":"tiny","input":"a","unknown":1}"#).key(&forged).send().await;
        assert_eq!((passed.status, passed.cache()), (401, "bypass"), "{scope}");
        let shorter = json!({"model": "tiny", "input": "a", "dimensions": 4}).to_string();
        assert_unauthorized(&front.post(shorter).key(&forged).send().await);
    }
}

#[tokio::test]
async fn a_forged_token_joins_no_fetch_and_its_answer_waits_for_the_upstream() {
    for scope in SCOPES {
        let (front, good) = started(&[("cache.scope", scope)]).await;
        front.stub.always(Behaviour::Gate);
        let fetch = ask(&front, &good, &["new"]).send_meanwhile();
        front.stub.held(1).await;
        // A text that is being fetched, one that is cached, and one that is unknown take the same way.
        let mut requests = Vec::new();
        for (place, text) in ["new", "a", "unknown"].into_iter().enumerate() {
            let forged = signed(&claims("me", 1), &format!("forger {place}"));
            requests.push(ask(&front, &forged, &[text]).send_meanwhile());
        }
        front.stub.held(4).await;
        front.stub.release_all();
        assert_eq!(fetch.await.expect("it must end").vectors(), tiny(&["new"]), "{scope}");
        for request in requests {
            assert_unauthorized(&request.await.expect("it must end"));
        }
    }
}

/// Only the owner's call is held, so a request that joined it would have no answer yet.
#[tokio::test]
async fn a_token_that_is_expired_or_was_refused_joins_no_fetch() {
    let (front, good) = started(&[]).await;
    let accepted = format!("Bearer {good}");
    front.stub.when(move |call| call.header("authorization") == Some(&accepted), Behaviour::Gate);
    front.stub.always(Behaviour::Delay(Duration::from_millis(100)));
    let fetch = ask(&front, &good, &["new"]).send_meanwhile();
    front.stub.held(1).await;
    let mut expired = claims("me", 1);
    expired["exp"] = json!(NOW - 1);
    for token in [signed(&expired, "forger"), forged("me")] {
        // The second request waits for the proof of the first one, and then asks for itself.
        let pair = [0, 1].map(|_| ask(&front, &token, &["new"]).send_meanwhile());
        for request in pair {
            assert_unauthorized(&request.await.expect("it must end"));
        }
    }
    assert!(!fetch.is_finished());
    front.stub.release_all();
    assert_eq!(fetch.await.expect("it must end").vectors(), tiny(&["new"]));
}

#[tokio::test]
async fn while_the_upstream_is_down_a_forged_token_gets_the_outage_and_its_owner_the_entry() {
    for (mode, scope) in [("stale", "credential"), ("stale", "shared"), ("mock", "credential"), ("mock", "shared")] {
        let settings = [
            ("auth.identity", "token"),
            ("cache.scope", scope),
            ("fallback.mode", mode),
            ("cache.ttl", "10s"),
            ("retry.max_attempts", "1"),
            ("fallback.mock_dimensions", "24"),
        ];
        let stub = Stub::start();
        let vecho = Inside::start(&stub.base_url(), &settings).await;
        let [good, forged] = [token("me", 1), forged("me")].map(|token| format!("Bearer {token}"));
        let embed =
            async |token: &str, text: &str| vecho.embed_with(&[("authorization", token)], texts_of(&[text])).await;
        for text in ["fresh", "a"] {
            assert_eq!(embed(&good, text).await.vectors(), tiny(&[text]));
        }
        stub.down().await;
        assert_eq!(embed(&good, "fresh").await.cache(), "hit");
        for text in ["fresh", "unknown"] {
            let answer = embed(&forged, text).await;
            if mode == "mock" {
                assert_eq!((answer.status, answer.cache()), (200, "mock"), "{scope} {text}");
                assert_eq!(answer.vectors()[0].len(), 24, "the mock shows nothing of the owner's model");
            } else {
                assert_eq!((answer.status, answer.error().1), (502, json!("upstream_unavailable")), "{scope} {text}");
            }
        }
        vecho.clock.advance_ms(11_000);
        assert_eq!(embed(&good, "a").await.cache(), "stale", "{scope} {mode}");
        let answer = embed(&forged, "a").await;
        assert_ne!(answer.header("x-vecho-cache"), Some("stale"), "{scope} {mode}");
        vecho.stop().await;
    }
}

#[tokio::test]
async fn a_refused_token_loses_its_acceptance_at_once() {
    let (front, good) = started(&[]).await;
    front.stub.accept_keys(["other"]);
    assert_eq!(ask_as(&front, &good, "a").await.cache(), "hit", "it is known until the upstream says otherwise");
    assert_unauthorized(&ask_as(&front, &good, "new").await);
    assert_unauthorized(&ask_as(&front, &good, "a").await);
}

#[tokio::test]
async fn in_the_shared_scope_a_token_also_proves_itself_after_the_vouch_ttl() {
    let (front, good) = started(&[("cache.scope", "shared"), ("auth.vouch_ttl", "60s")]).await;
    front.pass(Duration::from_secs(59));
    assert_eq!(ask_as(&front, &good, "a").await.cache(), "hit");
    front.pass(Duration::from_secs(1));
    assert_eq!(ask_as(&front, &good, "a").await.cache(), "miss");
}

#[tokio::test]
async fn inconclusive_answers_prove_no_token() {
    let (front, _) = started(&[("pace.mode", "off")]).await;
    for answer in [Behaviour::Garbage, Behaviour::RateLimit { retry_after_ms: 1 }] {
        front.stub.always(answer);
        ask_as(&front, &forged("me"), "b").await;
        front.stub.always(Behaviour::Normal);
        assert_unauthorized(&ask_as(&front, &forged("me"), "a").await);
    }
}

#[tokio::test]
async fn a_token_is_proven_for_one_model_and_one_deployment() {
    let (front, good) = started(&[]).await;
    let renewed = token("me", 2);
    front.stub.accept_keys([&good, &renewed]);
    let other = |token: &str| front.post(r#"{"model":"other","input":"a"}"#).key(token).send();
    other(&good).await;
    ask_as(&front, &renewed, "a").await;
    assert_eq!(other(&renewed).await.cache(), "miss", "the upstream may not let this token use that model");
    assert_eq!(other(&renewed).await.cache(), "hit");
}

/// A service that accepts a subscription key does not look at the token beside it.
#[tokio::test]
async fn a_request_that_is_accepted_for_another_header_proves_nothing_about_its_token() {
    let (front, good) = (start(&[]).await, token("me", 1));
    let accepted = format!("Bearer {good}");
    front.stub.decide(move |call| {
        let has_key = call.header("ocp-apim-subscription-key") == Some("attacker");
        if has_key || call.header("authorization") == Some(&accepted) {
            return Behaviour::Normal;
        }
        Behaviour::Status { code: 401, headers: Vec::new(), body: "{}".to_owned() }
    });
    ask_as(&front, &good, "a").await;
    let forged = forged("me");
    let with_key = || ask(&front, &forged, &["a"]).header("ocp-apim-subscription-key", "attacker");
    assert_eq!(with_key().send().await.cache(), "miss");
    assert_eq!(with_key().send().await.cache(), "hit", "it has entries of its own");
    assert_eq!(ask_as(&front, &forged, "a").await.status, 401);
    assert_eq!(ask_as(&front, &good, "a").await.cache(), "hit");
    assert_eq!(front.calls(), 3);
}

/// With four requests under way, a further one is admitted only if it belongs to another caller.
async fn is_admitted_beside(front: &Front, holder: &str, other: &str) -> bool {
    // An answer may arrive before its request has left.
    let begun = Instant::now();
    while front.metric("vecho_requests_in_flight").await > 0.0 {
        assert!(begun.elapsed() < DEADLINE, "earlier requests must end");
        tokio::task::yield_now().await;
    }
    front.stub.always(Behaviour::Gate);
    let held: Vec<_> = (0..4).map(|number| ask(front, holder, &[&format!("held {number}")]).send_meanwhile()).collect();
    front.reaches("vecho_requests_in_flight", 4.0).await;
    front.stub.always(Behaviour::Normal);
    let answer = ask_as(front, other, "a").await;
    front.stub.release(8);
    for request in held {
        request.await.expect("it must end");
    }
    answer.status != 503
}

#[tokio::test]
async fn limits_count_the_tokens_of_an_owner_as_one_caller_and_a_forged_one_as_another() {
    for (holder, is_admitted) in [(token("me", 2), false), (forged("me"), true), (token("other", 1), true)] {
        let (front, good) = started(&[("limits.max_requests", "4")]).await;
        front.stub.accept_keys([&good, &token("me", 2)]);
        ask_as(&front, &token("me", 2), "proof").await;
        assert_eq!(is_admitted_beside(&front, &holder, &good).await, is_admitted, "{holder}");
    }
}

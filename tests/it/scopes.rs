//! Scopes decide which requests may share a stored vector: those with the same credential, all behind vecho's own
//! key, or those with a credential that the upstream has accepted.

use std::time::Duration;

use serde_json::json;

use crate::disk::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::front::{Ask, texts_of, tiny};
use crate::harness::{Behaviour, Front};

fn ask(front: &Front, text: &str) -> Ask {
    front.post(texts_of(&[text]).to_string())
}

async fn ask_as(front: &Front, key: &str, text: &str) -> Answer {
    ask(front, text).key(key).send().await
}

fn assert_unauthorized(answer: &Answer) {
    assert_eq!((answer.status, answer.error().1), (401, json!("invalid_api_key")));
    let message = answer.json()["error"]["message"].clone();
    assert!(message.as_str().expect("text").starts_with("Incorrect API key provided"), "{message}");
}

/// Returns the credentials that the upstream received, in order.
fn credentials_seen(front: &Front) -> Vec<String> {
    let calls = front.stub.calls();
    calls.iter().map(|call| call.header("authorization").unwrap_or("none").to_owned()).collect()
}

#[tokio::test]
async fn each_credential_has_entries_of_its_own() {
    let front = Front::start().await;
    for key in ["sk-one", "sk-two"] {
        for cache in ["miss", "hit", "hit"] {
            let answer = ask_as(&front, key, "a").await;
            assert_eq!((answer.vectors(), answer.cache()), (tiny(&["a"]), cache), "{key}");
        }
    }
    assert_eq!(credentials_seen(&front), ["Bearer sk-one", "Bearer sk-two"]);
}

#[tokio::test]
async fn a_hit_is_never_served_to_a_wrong_key() {
    let front = Front::start().await;
    front.stub.accept_keys(["sk-good"]);
    for _ in 0..3 {
        ask_as(&front, "sk-good", "a").await;
    }
    for _ in 0..2 {
        assert_unauthorized(&ask_as(&front, "sk-wrong", "a").await);
        assert_unauthorized(&ask(&front, "a").send().await);
    }
    assert_eq!(ask_as(&front, "sk-good", "a").await.cache(), "hit");
}

#[tokio::test]
async fn every_credential_header_separates_entries() {
    let front = Front::start().await;
    let shapes: [fn(Ask) -> Ask; 6] = [
        |ask| ask,
        |ask| ask.header("authorization", "Bearer sk-one"),
        |ask| ask.header("api-key", "sk-one"),
        |ask| ask.header("x-api-key", "sk-one"),
        |ask| ask.key("sk-one").header("openai-organization", "org"),
        |ask| ask.key("sk-one").header("openai-project", "org"),
    ];
    for (place, shape) in shapes.iter().enumerate() {
        assert_eq!(shape(ask(&front, "a")).send().await.cache(), "miss", "number {place}");
        assert_eq!(shape(ask(&front, "a")).send().await.cache(), "hit", "number {place}");
    }
}

#[tokio::test]
async fn credential_headers_are_configurable() {
    let front = Front::with(&[("auth.credential_headers", r#"["x-tenant"]"#)]).await;
    let as_tenant = |key: &str, tenant: &str| ask(&front, "a").key(key).header("x-tenant", tenant);
    assert_eq!(as_tenant("sk-one", "t").send().await.cache(), "miss");
    assert_eq!(as_tenant("sk-two", "t").send().await.cache(), "hit");
    assert_eq!(as_tenant("sk-one", "u").send().await.cache(), "miss");
}

#[tokio::test]
async fn the_key_of_vecho_replaces_that_of_callers_and_entries_are_shared() {
    let front = Front::with(&[("upstream.api_key", "sk-vecho")]).await;
    front.stub.accept_keys(["sk-vecho"]);
    assert_eq!(ask_as(&front, "sk-mine", "a").await.cache(), "miss");
    for shape in [|ask: Ask| ask, |ask: Ask| ask.key("sk-other"), |ask: Ask| ask.header("api-key", "sk-third")] {
        let answer = shape(ask(&front, "a")).send().await;
        assert_eq!((answer.vectors(), answer.cache()), (tiny(&["a"]), "hit"));
    }
    assert_eq!(credentials_seen(&front), ["Bearer sk-vecho"]);
}

#[tokio::test]
async fn the_callers_credential_is_replaced_on_a_bypass() {
    let front = Front::with(&[("upstream.api_key", "sk-vecho")]).await;
    front.stub.accept_keys(["sk-vecho"]);
    let passed = front.post(r#"{"model":"tiny","input":"a","unknown":1}"#).key("sk-mine").header("api-key", "sk-mine");
    assert_eq!(passed.send().await.vectors(), tiny(&["a"]));
    assert_eq!(front.stub.calls()[0].header("api-key"), None);
    assert_eq!(credentials_seen(&front), ["Bearer sk-vecho"]);
}

async fn shared() -> Front {
    shared_with(&[]).await
}

async fn shared_with(settings: &[(&str, &str)]) -> Front {
    let front = Front::with(&[&[("cache.scope", "shared"), ("auth.vouch_ttl", "60s")], settings].concat()).await;
    front.stub.accept_keys(["sk-one", "sk-two"]);
    front
}

#[tokio::test]
async fn in_the_shared_scope_a_wrong_key_gets_the_upstreams_401_even_for_a_cached_text() {
    let front = shared().await;
    for _ in 0..3 {
        ask_as(&front, "sk-one", "a").await;
    }
    for wrong in 2..=4 {
        assert_unauthorized(&ask_as(&front, "sk-wrong", "a").await);
        assert_eq!(front.calls(), wrong, "the upstream itself said so");
    }
    let answer = ask(&front, "a").key("sk-wrong").header("cache-control", "only-if-cached").send().await;
    assert_eq!(answer.status, 504, "nor does it learn what is cached");
}

#[tokio::test]
async fn in_the_shared_scope_an_accepted_key_is_served_entries_of_others() {
    let front = shared().await;
    ask_as(&front, "sk-one", "a").await;
    assert_eq!(ask_as(&front, "sk-two", "b").await.cache(), "miss", "here the upstream accepts it");
    let shared = ask_as(&front, "sk-two", "a").await;
    assert_eq!((shared.vectors(), shared.cache()), (tiny(&["a"]), "hit"));
    assert_eq!(ask_as(&front, "sk-one", "b").await.cache(), "hit");
    assert_eq!(front.calls(), 2);
}

#[tokio::test]
async fn in_the_shared_scope_acceptance_expires() {
    let front = shared().await;
    ask_as(&front, "sk-one", "a").await;
    front.pass(Duration::from_secs(59));
    assert_eq!(ask_as(&front, "sk-one", "a").await.cache(), "hit");
    front.pass(Duration::from_secs(1));
    assert_eq!(ask_as(&front, "sk-one", "a").await.cache(), "miss", "it is asked again");
    assert_eq!(ask_as(&front, "sk-one", "a").await.cache(), "hit");
    assert_eq!(front.calls(), 2);
}

#[tokio::test]
async fn in_the_shared_scope_a_revoked_key_is_refused_after_acceptance_expires() {
    let front = shared().await;
    for _ in 0..3 {
        ask_as(&front, "sk-one", "a").await;
    }
    front.stub.accept_keys(["sk-two"]);
    front.pass(Duration::from_mins(1));
    for _ in 0..2 {
        assert_unauthorized(&ask_as(&front, "sk-one", "a").await);
    }
}

#[tokio::test]
async fn in_the_shared_scope_a_401_ends_acceptance_at_once() {
    let front = shared().await;
    ask_as(&front, "sk-one", "a").await;
    front.stub.accept_keys(["sk-two"]);
    assert_unauthorized(&ask_as(&front, "sk-one", "new").await);
    assert_unauthorized(&ask_as(&front, "sk-one", "a").await);
}

#[tokio::test]
async fn in_the_shared_scope_a_wrong_key_joins_no_fetch() {
    let front = shared().await;
    ask_as(&front, "sk-one", "warm").await;
    front.stub.always(Behaviour::Gate);
    let good = ask(&front, "a").key("sk-one").send_meanwhile();
    front.stub.held(1).await;
    let wrong = ask(&front, "a").key("sk-wrong").send_meanwhile();
    front.stub.held(2).await;
    front.stub.release_all();
    assert_eq!(good.await.expect("it must end").vectors(), tiny(&["a"]));
    assert_unauthorized(&wrong.await.expect("it must end"));
}

#[tokio::test]
async fn in_the_shared_scope_a_waiter_does_not_get_the_refusal_of_another_key() {
    let front = shared().await;
    for key in ["sk-one", "sk-two"] {
        ask_as(&front, key, "warm").await;
    }
    front.stub.always(Behaviour::Gate);
    let revoked = ask(&front, "a").key("sk-one").send_meanwhile();
    front.stub.held(1).await;
    let joiner = front.post(texts_of(&["a", "own"]).to_string()).key("sk-two").send_meanwhile();
    front.stub.held(2).await;
    front.stub.accept_keys(["sk-two"]);
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    assert_unauthorized(&revoked.await.expect("it must end"));
    assert_eq!(joiner.await.expect("it must end").vectors(), tiny(&["a", "own"]));
}

/// Returns an error answer that is held first. Its message names one account.
fn held_error(code: u16, account: &str) -> Behaviour {
    let body = json!({"error": {"message": account, "type": "x", "param": null, "code": null}}).to_string();
    Behaviour::All(vec![Behaviour::Gate, Behaviour::Status { code, headers: Vec::new(), body }])
}

/// Sends two requests with accepted keys. The second one joins the first one's fetch and also has a text of its own.
/// Their calls end as given.
async fn leader_and_waiter(front: &Front, ends: [Behaviour; 2]) -> [Answer; 2] {
    for key in ["sk-one", "sk-two"] {
        ask_as(front, key, "warm").await;
    }
    for end in ends {
        front.stub.next(end);
    }
    let lead = ask(front, "a").key("sk-one").send_meanwhile();
    front.stub.held(1).await;
    let joiner = front.post(texts_of(&["a", "own"]).to_string()).key("sk-two").send_meanwhile();
    front.stub.held(2).await;
    front.stub.release_all();
    [lead.await.expect("it must end"), joiner.await.expect("it must end")]
}

#[tokio::test]
async fn in_the_shared_scope_a_waiter_does_not_get_the_error_body_of_another_key() {
    let front = shared_with(&[("retry.max_attempts", "1")]).await;
    let [lead, joiner] = leader_and_waiter(&front, [held_error(503, "of one"), held_error(503, "of two")]).await;
    assert_eq!((lead.status, lead.json()["error"]["message"].as_str()), (503, Some("of one")));
    assert_eq!((joiner.status, joiner.error().1), (502, json!("upstream_unavailable")));
    let body = String::from_utf8_lossy(&joiner.body).into_owned();
    assert!(!body.contains("of one"), "{body}");
}

#[tokio::test]
async fn in_the_shared_scope_a_waiter_is_not_throttled_for_another_key() {
    let front = shared_with(&[("limits.request_timeout", "10s")]).await;
    let throttled = Behaviour::All(vec![Behaviour::Gate, Behaviour::RateLimit { retry_after_ms: 60_000 }]);
    let [lead, joiner] = leader_and_waiter(&front, [throttled, Behaviour::Gate]).await;
    assert_eq!(lead.status, 429);
    assert_eq!(joiner.vectors(), tiny(&["a", "own"]));
}

#[tokio::test]
async fn in_the_shared_scope_a_403_ends_acceptance_for_its_model_only() {
    let front = shared().await;
    let other = || front.post(r#"{"model":"other","input":"a"}"#).key("sk-one").send();
    ask_as(&front, "sk-one", "a").await;
    other().await;
    front.stub.always(Behaviour::Status { code: 403, headers: Vec::new(), body: "{}".to_owned() });
    for text in ["new", "a"] {
        assert_eq!(ask_as(&front, "sk-one", text).await.status, 403, "{text}");
    }
    assert_eq!(other().await.cache(), "hit");
}

#[tokio::test]
async fn in_the_shared_scope_a_wrong_key_is_not_served_from_the_disk() {
    let folder = Folder::new();
    let front = shared_with(&[("disk.path", folder.text())]).await;
    ask_as(&front, "sk-one", "a").await;
    front.reaches(r#"vecho_cache_entries{tier="disk"}"#, 1.0).await;
    front.purge("?tier=memory").await;
    assert_unauthorized(&ask_as(&front, "sk-wrong", "a").await);
    assert_eq!(ask_as(&front, "sk-one", "a").await.sources(), "disk=1", "there it is");
}

#[tokio::test]
async fn in_the_shared_scope_inconclusive_answers_do_not_accept_a_key() {
    let front = shared_with(&[("pace.mode", "off")]).await;
    ask_as(&front, "sk-one", "a").await;
    for lie in [Behaviour::Garbage, Behaviour::RateLimit { retry_after_ms: 1 }] {
        front.stub.always(lie);
        ask_as(&front, "sk-wrong", "b").await;
        front.stub.always(Behaviour::Normal);
        assert_unauthorized(&ask_as(&front, "sk-wrong", "a").await);
    }
}

#[tokio::test]
async fn a_namespace_narrows_every_scope() {
    let settings: [&[(&str, &str)]; 3] = [&[], &[("upstream.api_key", "sk-vecho")], &[("cache.scope", "shared")]];
    for settings in settings {
        let front = Front::with(settings).await;
        let named = |name: &str| ask(&front, "a").key("sk-one").header("x-vecho-namespace", name);
        ask_as(&front, "sk-one", "a").await;
        for name in ["one", "two"] {
            assert_eq!(named(name).send().await.cache(), "miss", "{settings:?}");
            assert_eq!(named(name).send().await.cache(), "hit", "{settings:?}");
        }
        assert_eq!(ask_as(&front, "sk-one", "a").await.cache(), "hit", "{settings:?}");
    }
}

#[tokio::test]
async fn in_the_shared_scope_acceptance_is_per_model() {
    let front = shared().await;
    let other = |key: &str| front.post(r#"{"model":"other","input":"a"}"#).key(key).send();
    assert_eq!(other("sk-one").await.cache(), "miss");
    assert_eq!(ask_as(&front, "sk-two", "a").await.cache(), "miss");
    assert_eq!(other("sk-two").await.cache(), "miss", "the upstream may not let this key use that model");
    assert_eq!(other("sk-two").await.cache(), "hit");
}

#[tokio::test]
async fn in_the_shared_scope_acceptance_is_per_deployment() {
    let front = shared().await;
    let at = |name: &str, key: &str| {
        let path = format!("/openai/deployments/{name}/embeddings?api-version=2024-10-21");
        front.post_to(&path, r#"{"model":"tiny","input":"a"}"#).key(key).send()
    };
    assert_eq!(at("one", "sk-one").await.cache(), "miss");
    assert_eq!(at("two", "sk-two").await.cache(), "miss");
    assert_eq!(at("two", "sk-one").await.cache(), "miss", "the upstream may not let this key use that deployment");
    assert_eq!(at("two", "sk-one").await.cache(), "hit");
}

#[tokio::test]
async fn credential_headers_are_not_forwarded_if_vecho_has_its_own_key() {
    let settings = [("upstream.api_key", "sk-vecho"), ("auth.credential_headers", r#"["authorization","x-team"]"#)];
    let front = Front::with(&settings).await;
    let answer = ask(&front, "a").key("any").header("x-team", "secret").send().await;
    assert_eq!(answer.vectors(), tiny(&["a"]));
    assert_eq!(front.stub.calls()[0].header("x-team"), None);
}

#[tokio::test]
async fn key_headers_separate_entries() {
    let settings: [&[(&str, &str)]; 2] = [&[], &[("upstream.api_key", "sk-vecho")]];
    for settings in settings {
        let front = Front::with(&[settings, &[("cache.key_headers", r#"["x-provider"]"#)]].concat()).await;
        let sent_to = |provider: &str| ask(&front, "a").header("x-provider", provider);
        assert_eq!(ask(&front, "a").send().await.cache(), "miss", "{settings:?}");
        for provider in ["one", "two"] {
            // The third request tests the reply cache, the second one the stored vectors.
            for cache in ["miss", "hit", "hit"] {
                assert_eq!(sent_to(provider).send().await.cache(), cache, "{provider} {settings:?}");
            }
        }
        assert_eq!(sent_to("one").header("x-other", "2").send().await.cache(), "hit", "{settings:?}");
        assert_eq!(front.calls(), 3, "{settings:?}");
    }
}

#[tokio::test]
async fn key_headers_that_are_not_forwarded_do_not_separate_entries() {
    let front = Front::with(&[("cache.key_headers", r#"["x-provider"]"#)]).await;
    let sent_to_one = || ask(&front, "a").header("x-provider", "one");
    assert_eq!(sent_to_one().header("connection", "X-Provider, keep-alive").send().await.cache(), "miss");
    assert_eq!(front.stub.calls()[0].header("x-provider"), None);
    assert_eq!(sent_to_one().send().await.cache(), "miss", "its entry is that of no provider");
    assert_eq!(ask(&front, "a").send().await.cache(), "hit");
    assert_eq!(sent_to_one().header("connection", "x-provider").send().await.cache(), "hit");
    assert_eq!(front.calls(), 2);
}

#[tokio::test]
async fn a_credential_listed_in_connection_is_neither_sent_nor_used() {
    let front = Front::start().await;
    let unsent = || ask(&front, "a").key("sk-one").header("connection", "Authorization").send();
    assert_eq!(unsent().await.cache(), "miss");
    assert_eq!(credentials_seen(&front), ["none"]);
    assert_eq!(ask_as(&front, "sk-one", "a").await.cache(), "miss", "its entry is that of no credential");
    assert_eq!(ask(&front, "a").send().await.cache(), "hit");
    assert_eq!((unsent().await.cache(), front.calls()), ("hit", 2));
}

#[tokio::test]
async fn in_the_shared_scope_no_acceptance_is_needed_if_vecho_has_its_own_key() {
    let front = shared_with(&[("upstream.api_key", "sk-one")]).await;
    assert_eq!(ask_as(&front, "mine", "a").await.cache(), "miss");
    front.pass(Duration::from_hours(1));
    assert_eq!(ask_as(&front, "another", "a").await.cache(), "hit", "auth.vouch_ttl is over and means nothing here");
}

#[tokio::test]
async fn in_the_shared_scope_acceptance_is_per_provider() {
    let front = Front::with(&[("cache.scope", "shared"), ("cache.key_headers", "x-provider")]).await;
    let sent_to = |provider: &str, key: &str, text: &str| ask(&front, text).key(key).header("x-provider", provider);
    for _ in 0..2 {
        sent_to("one", "sk-one", "a").send().await;
    }
    sent_to("two", "sk-two", "b").send().await;
    front.stub.accept_keys(["sk-one"]);
    assert_unauthorized(&sent_to("one", "sk-two", "a").send().await);
    assert_eq!(sent_to("one", "sk-one", "a").send().await.cache(), "hit");
}

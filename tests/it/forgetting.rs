//! Single inputs can be forgotten: their entries leave the cache, and all others stay.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Client, post, raw};
use crate::harness::{Behaviour, Inside, Stub};

pub(crate) const FORGET: &str = "/api/performance/cache/forget";

/// Asks the ops port at `admin` to forget the inputs of a request with these headers.
pub(crate) async fn forget(admin: std::net::SocketAddr, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = post(&format!("http://{admin}{FORGET}"), body);
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a test's header name is legal");
        request.headers_mut().append(name, value.parse().expect("a test's header value is legal"));
    }
    Client::new().send(request).await.expect("the ops port answers")
}

/// Like [`forget`], for a request that must succeed in every tier.
pub(crate) async fn forgotten(vecho: &Inside, headers: &[(&str, &str)], body: &Value) -> Value {
    let answer = forget(vecho.admin(), headers, body).await;
    assert_eq!((answer.status, &answer.json()["pending"]), (200, &json!([])), "{answer:?}");
    answer.json()
}

fn ask(input: impl Into<Value>) -> Value {
    json!({"model": "tiny", "input": input.into()})
}

async fn started(settings: &[(&str, &str)]) -> (Stub, Inside) {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), settings).await;
    (stub, vecho)
}

async fn is_hit(vecho: &Inside, headers: &[(&str, &str)], body: &Value) -> bool {
    let headers = [headers, &[("cache-control", "only-if-cached")]].concat();
    vecho.embed_with(&headers, body).await.status == 200
}

#[tokio::test]
async fn forgotten_inputs_are_fetched_again_and_their_neighbours_stay() {
    let (stub, vecho) = started(&[]).await;
    vecho.embed(ask(json!(["a", "b", "c"]))).await;
    let answer = forgotten(&vecho, &[], &ask(json!(["a", "c", "a", "never seen"]))).await;
    assert_eq!(answer["inputs"], 4);
    assert_eq!(answer["scopes"], 1);
    assert_eq!(answer["removed_entries"], json!({"memory": 2, "answers": 0}));
    for (text, hit) in [("a", false), ("b", true), ("c", false)] {
        assert_eq!(is_hit(&vecho, &[], &ask(text)).await, hit, "{text}");
    }
    let calls = stub.embedding_calls().len();
    assert_eq!(vecho.embed(ask(json!(["a", "b", "c"]))).await.sources(), "memory=1, upstream=2");
    assert_eq!(stub.embedding_calls().len(), calls + 1);
    assert!(is_hit(&vecho, &[], &ask("a")).await, "an entry that was fetched since is served");
    assert!((vecho.metric("vecho_cache_forgotten_inputs_total").await - 4.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_cached_reply_with_a_forgotten_input_is_never_served() {
    let (_stub, vecho) = started(&[]).await;
    let body = ask(json!(["a", "b"]));
    for cache in ["miss", "hit", "hit", "hit"] {
        assert_eq!(vecho.embed(&body).await.cache(), cache);
    }
    let answer = forgotten(&vecho, &[], &ask("b")).await;
    assert_eq!(answer["removed_entries"], json!({"memory": 1, "answers": 1}));
    let again = vecho.embed(&body).await;
    assert_eq!((again.cache(), again.sources()), ("partial", "memory=1, upstream=1"));
}

#[tokio::test]
async fn a_request_of_any_form_names_the_same_entries() {
    let (_stub, vecho) = started(&[]).await;
    let tokens = json!({"model": "tiny", "input": [1, 2, 3]});
    for (cached, named) in [
        (ask("x"), json!({"input": ["x"], "encoding_format": "base64", "user": "u", "model": "tiny"})),
        (json!({"model": "tiny", "input": "y", "encoding_format": "base64"}), ask("y")),
        (tokens.clone(), json!({"model": "tiny", "input": [[1, 2, 3], [4]]})),
        (
            json!({"model": "small", "input": "x", "dimensions": 4}),
            json!({"model": "small", "dimensions": 4, "input": "x"}),
        ),
    ] {
        vecho.embed(&cached).await;
        assert!(is_hit(&vecho, &[], &cached).await, "{cached}");
        assert_eq!(forgotten(&vecho, &[], &named).await["removed_entries"]["memory"], 1, "{named}");
        assert!(!is_hit(&vecho, &[], &cached).await, "{cached}");
    }
    vecho.embed(&tokens).await;
    forgotten(&vecho, &[], &ask("[1, 2, 3]")).await;
    assert!(is_hit(&vecho, &[], &tokens).await, "a text and a token array are different inputs");
}

#[tokio::test]
async fn only_the_named_scopes_forget_an_input() {
    let (_stub, vecho) = started(&[]).await;
    let one: &[_] = &[("authorization", "Bearer sk-1")];
    let two: &[_] = &[("authorization", "Bearer sk-2")];
    let three: &[_] = &[("authorization", "Bearer sk-3")];
    let team: &[_] = &[("authorization", "Bearer sk-1"), ("x-vecho-namespace", "team")];
    let body = ask("a");
    for headers in [one, two, three, team] {
        vecho.embed_with(headers, &body).await;
    }
    let still = async || {
        let mut hits = Vec::new();
        for headers in [one, two, three, team] {
            hits.push(is_hit(&vecho, headers, &body).await);
        }
        hits
    };
    assert_eq!(forgotten(&vecho, &[], &body).await["removed_entries"]["memory"], 0, "no caller has no credential");
    assert_eq!(forgotten(&vecho, team, &body).await["scopes"], 1);
    assert_eq!(still().await, [true, true, true, false]);
    let answer = forgotten(&vecho, &[one, two].concat(), &body).await;
    assert_eq!((&answer["scopes"], &answer["removed_entries"]["memory"]), (&json!(2), &json!(2)));
    assert_eq!(still().await, [false, false, true, false]);
}

#[tokio::test]
async fn several_values_of_several_headers_name_each_combination() {
    let (_stub, vecho) = started(&[]).await;
    let scope = |key: &'static str, team: &'static str| [("authorization", key), ("x-vecho-namespace", team)];
    let all = [scope("Bearer 1", "a"), scope("Bearer 1", "b"), scope("Bearer 2", "a"), scope("Bearer 2", "b")];
    for headers in &all {
        vecho.embed_with(headers, &ask("a")).await;
    }
    let answer = forgotten(&vecho, &[all[0], all[3]].concat(), &ask("a")).await;
    assert_eq!((&answer["scopes"], &answer["removed_entries"]["memory"]), (&json!(4), &json!(4)));
    // The product of 17 credentials and 16 namespaces is above the limit of 256.
    let names: Vec<String> = (0..17).map(|n| format!("n{n}")).collect();
    let of = |name: &'static str, count: usize| names[..count].iter().map(move |value| (name, value.as_str()));
    let many: Vec<(&str, &str)> = of("authorization", 17).chain(of("x-vecho-namespace", 16)).collect();
    let refused = forget(vecho.admin(), &many, &ask("a")).await;
    assert_eq!((refused.status, refused.error().1), (400, json!("not_cacheable")), "{refused:?}");
}

#[tokio::test]
async fn under_the_proxy_scope_one_request_forgets_the_entry_of_all_callers() {
    let (_stub, vecho) = started(&[("upstream.api_key", "sk-own"), ("cache.scope", "proxy")]).await;
    vecho.embed_with(&[("authorization", "Bearer sk-1")], ask("a")).await;
    assert_eq!(forgotten(&vecho, &[], &ask("a")).await["removed_entries"]["memory"], 1);
    assert!(!is_hit(&vecho, &[("authorization", "Bearer sk-1")], &ask("a")).await);
}

#[tokio::test]
async fn a_fetch_that_began_before_a_forget_stores_nothing() {
    let (stub, vecho) = started(&[("retry.max_attempts", "1")]).await;
    stub.next(Behaviour::Gate);
    let waiting = tokio::spawn({
        let (client, url) = (vecho.client.clone(), vecho.embeddings_url());
        async move { client.post(&url, &json!({"model": "tiny", "input": ["a", "b"]})).await }
    });
    stub.held(1).await;
    forgotten(&vecho, &[], &ask("a")).await;
    stub.release(1);
    assert_eq!(waiting.await.expect("it does not panic").status, 200, "the caller gets its answer");
    assert!(!is_hit(&vecho, &[], &ask("a")).await);
    assert!(is_hit(&vecho, &[], &ask("b")).await, "its neighbour is stored");
}

#[tokio::test]
async fn many_forgets_during_a_fetch_cost_no_other_input_its_entry() {
    let (stub, vecho) = started(&[("retry.max_attempts", "1")]).await;
    stub.next(Behaviour::Gate);
    let waiting = tokio::spawn({
        let (client, url) = (vecho.client.clone(), vecho.embeddings_url());
        async move { client.post(&url, &json!({"model": "tiny", "input": ["forgotten 7", "b"]})).await }
    });
    stub.held(1).await;
    for n in 0..200 {
        forgotten(&vecho, &[], &ask(format!("forgotten {n}"))).await;
    }
    stub.release(1);
    assert_eq!(waiting.await.expect("it does not panic").status, 200);
    assert!(!is_hit(&vecho, &[], &ask("forgotten 7")).await);
    assert!(is_hit(&vecho, &[], &ask("b")).await, "its neighbour is stored");
}

#[tokio::test]
async fn a_request_that_would_not_be_cached_is_refused_with_the_reason() {
    let (_stub, vecho) = started(&[]).await;
    vecho.embed(ask("a")).await;
    for (body, reason) in [
        (json!({"model": "tiny", "input": "a", "late_chunking": true}), "unknown_field: `late_chunking`"),
        (json!({"model": "tiny", "input": ["a", ""]}), "empty_input"),
        (json!({"model": "tiny"}), "no_input"),
        (json!("a"), "("),
    ] {
        let refused = forget(vecho.admin(), &[], &body).await;
        let (message, code) = refused.error();
        assert_eq!((refused.status, code), (400, json!("not_cacheable")), "{body}");
        assert!(
            message.contains(reason) || refused.json()["error"]["message"].to_string().contains(reason),
            "{refused:?}"
        );
    }
    for (query, code) in [("?path=/v1/models", "not_cacheable"), ("?scope=all", "invalid_parameter")] {
        let request = post(&format!("http://{}{FORGET}{query}", vecho.admin()), &ask("a"));
        let refused = Client::new().send(request).await.expect("it is answered");
        assert_eq!((refused.status, refused.error().1), (400, json!(code)), "{query}");
    }
    let mut plain = raw(http::Method::POST, &format!("http://{}{FORGET}", vecho.admin()), ask("a").to_string());
    plain.headers_mut().insert("content-type", "text/plain".parse().expect("it is a value"));
    let refused = Client::new().send(plain).await.expect("it is answered");
    assert_eq!((refused.status, refused.error().1), (400, json!("not_cacheable")));
    assert!(is_hit(&vecho, &[], &ask("a")).await, "nothing was forgotten");
}

#[tokio::test]
async fn the_admin_token_is_never_taken_for_a_credential() {
    let (_stub, vecho) = started(&[("admin.token", "secret")]).await;
    let credential = ("authorization", "Bearer sk-1");
    vecho.embed_with(&[credential], ask("a")).await;
    for (headers, status, code) in [
        (&[][..], 403, "forbidden"),
        (&[credential], 403, "forbidden"),
        (&[("authorization", "Bearer secret")], 400, "token_as_credential"),
    ] {
        let refused = forget(vecho.admin(), headers, &ask("a")).await;
        assert_eq!((refused.status, refused.error().1), (status, json!(code)), "{headers:?}");
    }
    let answer = forgotten(&vecho, &[credential, ("x-vecho-admin-token", "secret")], &ask("a")).await;
    assert_eq!(answer["removed_entries"]["memory"], 1);
}

#[tokio::test]
async fn forgotten_keys_are_bounded_and_make_room_when_their_entries_would_have_expired() {
    let (_stub, vecho) = started(&[("cache.ttl", "1h"), ("cache.stale_for", "1h")]).await;
    let texts = |from: usize| ask(json!((from..from + 2_000).map(|n| n.to_string()).collect::<Vec<_>>()));
    for from in [0, 2_000] {
        forgotten(&vecho, &[], &texts(from)).await;
    }
    let refused = forget(vecho.admin(), &[], &texts(4_000)).await;
    assert_eq!((refused.status, refused.error().1), (409, json!("too_many_forgotten")), "{refused:?}");
    vecho.clock.advance_ms(2 * 3_600_000);
    let refused = forget(vecho.admin(), &[], &texts(4_000)).await;
    assert_eq!(refused.status, 409, "they are remembered for two days, which a job of the Batch API may last");
    vecho.clock.advance_ms(46 * 3_600_000);
    forgotten(&vecho, &[], &texts(4_000)).await;
}

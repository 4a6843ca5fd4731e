//! Tokens of different owners, bearers that name no owner, and settings that do not allow identities by token.

use serde_json::{Value, json};
use vecho::config::Config;

use super::issued::{ask_as, claims, signed, start, token};
use crate::harness::front::{Ask, texts_of};
use crate::harness::{Front, Inside, Stub};
use crate::randomised::dice::Dice;

#[tokio::test]
async fn tokens_of_different_owners_never_share_an_entry() {
    let front = start(&[]).await;
    let mut all = vec![claims("me", 1)];
    for (name, value) in [
        ("iss", json!("https://sts.windows.net/other/")),
        ("tid", json!("other")),
        ("sub", json!("other")),
        ("oid", json!("other")),
        ("appid", json!("other")),
        ("azp", json!("other")),
        ("client_id", json!("other")),
        ("aud", json!(["https://cognitiveservices.azure.com"])),
        ("scp", json!("embed")),
        ("scope", json!("embed")),
        ("roles", json!(["reader"])),
    ] {
        let mut other = claims("me", 1);
        other[name] = value;
        all.push(other);
    }
    for (number, claims) in all.iter().enumerate() {
        let token = signed(claims, "issuer");
        ask_as(&front, &token, &format!("proof {number}")).await;
        assert_eq!(ask_as(&front, &token, "a").await.cache(), "miss", "{claims}");
        assert_eq!(ask_as(&front, &token, "a").await.cache(), "hit", "{claims}");
    }
    assert_eq!(front.calls(), 2 * all.len());
}

/// Draws claims of one to three principals from a small alphabet. Two tokens share an entry only if their claims name
/// one owner.
#[tokio::test]
async fn random_tokens_share_an_entry_only_if_all_naming_claims_are_equal() {
    const NAMES: [&str; 6] = ["tid", "oid", "appid", "aud", "scp", "roles"];
    let (front, mut dice) = (start(&[]).await, Dice::new(11));
    let values = [json!("a"), json!("ab"), json!("b"), json!(["a"]), json!(["a", "b"]), json!([]), json!("")];
    let mut known: Vec<Value> = Vec::new();
    for number in 0..150 {
        let mut drawn = json!({"iss": dice.pick(&["i", "ia"]), "sub": dice.pick(&["s", "as"])});
        for _ in 0..dice.below(3) {
            drawn[dice.pick(&NAMES)] = dice.pick(&values);
        }
        let mut claims = drawn.clone();
        claims["exp"] = json!(super::issued::NOW + 60);
        claims["jti"] = json!(number);
        let token = signed(&claims, "issuer");
        ask_as(&front, &token, &format!("proof {number}")).await;
        let expected = if known.contains(&drawn) { "hit" } else { "miss" };
        assert_eq!(ask_as(&front, &token, "a").await.cache(), expected, "{drawn}");
        known.push(drawn);
    }
}

#[tokio::test]
async fn other_credential_headers_separate_callers_with_one_token() {
    let front = start(&[]).await;
    let token = token("me", 1);
    let shapes: [fn(Ask) -> Ask; 5] = [
        |ask| ask,
        |ask| ask.header("openai-organization", "org"),
        |ask| ask.header("openai-project", "org"),
        |ask| ask.header("api-key", "org"),
        |ask| ask.header("x-goog-api-key", "org"),
    ];
    for (place, shape) in shapes.iter().enumerate() {
        let send = || shape(front.post(texts_of(&["a"]).to_string()).key(&token)).send();
        assert_eq!(send().await.cache(), "miss", "number {place}");
        assert_eq!(send().await.cache(), "hit", "number {place}");
    }
    let other = |id: &str| front.post(texts_of(&["a"]).to_string()).key(&token).header("x-request-id", id).send();
    assert_eq!(other("1").await.cache(), "hit", "this header names no caller");
}

#[tokio::test]
async fn bearers_that_name_no_owner_are_callers_by_their_header() {
    let front = start(&[]).await;
    let unsigned = {
        let token = token("me", 1);
        let (head, rest) = token.split_once('.').expect("a token has parts");
        assert!(!head.is_empty());
        // The head is `{"alg":"none"}`.
        format!("eyJhbGciOiJub25lIn0.{rest}")
    };
    let mut without_expiry = claims("me", 1);
    without_expiry.as_object_mut().expect("an object").remove("exp");
    let long = signed(&json!({"iss": "i", "sub": "s", "exp": 1, "pad": "x".repeat(20_000)}), "issuer");
    for bearer in ["sk-one", "ya29.opaque", "a.b.c", "eyJ.eyJ.x", &unsigned, &signed(&without_expiry, "issuer"), &long]
    {
        assert_eq!(ask_as(&front, bearer, "a").await.cache(), "miss", "{bearer}");
        assert_eq!(ask_as(&front, bearer, "a").await.cache(), "hit", "{bearer}");
    }
    assert_eq!(front.calls(), 7);
}

#[tokio::test]
async fn an_api_key_and_a_token_with_equal_bytes_in_their_headers_do_not_share() {
    let front = start(&[]).await;
    let token = token("me", 1);
    assert_eq!(ask_as(&front, &token, "a").await.cache(), "miss");
    let basic = front.post(texts_of(&["a"]).to_string()).header("authorization", &format!("Basic {token}"));
    assert_eq!(basic.send().await.cache(), "miss");
}

#[tokio::test]
async fn an_operator_explains_and_forgets_the_entries_of_an_owner_with_any_of_its_tokens() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("auth.identity", "token")]).await;
    let [first, second] = [token("me", 1), token("me", 2)].map(|token| format!("Bearer {token}"));
    let body = texts_of(&["a"]);
    vecho.embed_with(&[("authorization", &first)], &body).await;
    let explain = async |token: &str| {
        let url = format!("http://{}/api/performance/cache/explain", vecho.admin());
        let mut request = crate::harness::client::post(&url, &body);
        request.headers_mut().insert("authorization", token.parse().expect("a header"));
        vecho.client.send(request).await.expect("the answer must arrive").json()
    };
    for (token, accepted) in [(&first, true), (&second, false)] {
        let explained = explain(token).await;
        assert_eq!((&explained["identity"], &explained["credential_accepted"]), (&json!("token"), &json!(accepted)));
        assert_eq!(explained["inputs"][0]["state"], "fresh");
    }
    assert_eq!(explain("Bearer sk-1").await["identity"], "header");
    crate::forgetting::forgotten(&vecho, &[("authorization", &second)], &body).await;
    assert_eq!(vecho.embed_with(&[("authorization", &first)], &body).await.cache(), "miss");
    vecho.stop().await;
}

#[tokio::test]
async fn with_the_built_in_mock_all_callers_share_and_tokens_need_no_proof() {
    let vecho = Inside::start("mock:", &[("auth.identity", "token")]).await;
    let body = texts_of(&["a"]);
    for (number, cache) in [(1, "miss"), (2, "hit")] {
        let token = format!("Bearer {}", token("me", number));
        assert_eq!(vecho.embed_with(&[("authorization", &token)], &body).await.cache(), cache);
    }
    vecho.stop().await;
}

fn faults(settings: &[(&str, &str)]) -> String {
    let all = [&[("auth.identity", "token")], settings].concat();
    Config::from_pairs(&all).map_or_else(|faults| faults.to_string(), |_| String::new())
}

#[test]
fn an_identity_by_token_needs_tokens_that_reach_the_upstream() {
    assert_eq!(faults(&[]), "");
    assert!(faults(&[("upstream.api_key", "sk-vecho")]).contains("auth.identity"));
    assert!(faults(&[("auth.credential_headers", "x-tenant")]).contains("auth.identity"));
    assert!(faults(&[("auth.identity", "tokens")]).contains("header"));
}

#[tokio::test]
async fn the_default_identity_reads_no_token() {
    let front = Front::start().await;
    let explained = front.explain(&texts_of(&["a"]).to_string()).await;
    assert_eq!((&explained["identity"], &explained["credential_accepted"]), (&json!("header"), &json!(true)));
}

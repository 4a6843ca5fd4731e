//! Tests of the claims that name the owner of a token.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::key::Key;

const HEAD: &str = r#"{"alg":"RS256","typ":"JWT"}"#;

/// Returns a token of these parts in JSON.
pub(in crate::flow) fn token_of(head: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode_to_string(text);
    format!("{}.{}.c2lnbmF0dXJl", encode(head), encode(payload))
}

fn read(payload: &Value) -> Option<TokenClaims> {
    TokenClaims::read(&token_of(HEAD, &payload.to_string()))
}

fn key(claims: &TokenClaims) -> Key {
    let mut key = KeyBuilder::new(None);
    claims.join(&mut key);
    key.finish()
}

fn key_of(payload: &Value) -> Key {
    key(&read(payload).unwrap_or_else(|| panic!("{payload} must name an owner")))
}

/// Tokens as their issuers write them, without the claims that change at each renewal.
fn issued() -> Vec<Value> {
    vec![
        // Entra ID, version 1: an application with a managed identity.
        json!({"aud": "https://cognitiveservices.azure.com", "iss": "https://sts.windows.net/t/", "exp": 2,
               "appid": "app", "appidacr": "2", "idp": "https://sts.windows.net/t/", "idtyp": "app",
               "oid": "principal", "sub": "principal", "tid": "t", "ver": "1.0"}),
        // Entra ID, version 2: a user of an application.
        json!({"aud": "api", "iss": "https://login.microsoftonline.com/t/v2.0", "exp": 2, "azp": "app",
               "azpacr": "1", "oid": "user", "sub": "pairwise", "scp": "embed", "tid": "t", "ver": "2.0"}),
        // Kubernetes: a projected token of a service account.
        json!({"aud": ["https://vecho.example"], "iss": "https://kubernetes.default.svc", "exp": 2,
               "sub": "system:serviceaccount:search:indexer"}),
        // Google: an ID token of a service account, and a token that the service account signs itself.
        json!({"aud": "https://run.example", "azp": "1", "iss": "https://accounts.google.com", "exp": 2,
               "sub": "1", "email": "a@b.iam.gserviceaccount.com", "email_verified": true}),
        json!({"aud": "https://aiplatform.googleapis.com/", "iss": "a@b.iam.gserviceaccount.com", "exp": 2,
               "sub": "a@b.iam.gserviceaccount.com"}),
    ]
}

#[test]
fn a_renewed_token_names_the_same_owner() {
    for claims in issued() {
        let mut renewed = claims.clone();
        for (name, value) in [("exp", json!(3_602)), ("iat", json!(2)), ("nbf", json!(2)), ("jti", json!("x"))] {
            renewed[name] = value;
        }
        for name in ["uti", "rh", "aio", "xms_rd"] {
            renewed[name] = json!("new");
        }
        renewed["kubernetes.io"] = json!({"pod": {"name": "other", "uid": "2"}});
        assert_eq!(key_of(&claims), key_of(&renewed), "{claims}");
    }
}

#[test]
fn every_claim_that_names_an_owner_separates_owners() {
    for claims in issued() {
        for name in NAMING {
            let mut other = claims.clone();
            other[name] = json!("other");
            assert_ne!(key_of(&claims), key_of(&other), "{name} in {claims}");
            let mut without = claims.clone();
            let had = without.as_object_mut().and_then(|members| members.remove(name));
            if had.is_some()
                && let Some(read) = read(&without)
            {
                assert_ne!(key_of(&claims), key(&read), "{name} in {claims}");
            }
        }
    }
}

#[test]
fn a_list_of_one_differs_from_its_text_and_no_lists_run_together() {
    let claims = |aud: Value, scp: Value| json!({"iss": "i", "sub": "s", "exp": 2, "aud": aud, "scp": scp});
    let all = [
        claims(json!("a"), json!("b")),
        claims(json!(["a"]), json!("b")),
        claims(json!(["a", "b"]), json!([])),
        claims(json!(["a"]), json!(["b"])),
        claims(json!([]), json!(["a", "b"])),
        claims(json!("ab"), json!("")),
        claims(json!(""), json!("ab")),
    ];
    for (place, one) in all.iter().enumerate() {
        for other in &all[..place] {
            assert_ne!(key_of(one), key_of(other), "{one} {other}");
        }
    }
}

#[test]
fn the_expiry_is_a_number_of_seconds() {
    let expiry = |exp: Value| read(&json!({"iss": "i", "sub": "s", "exp": exp})).map(|claims| claims.expires_ms);
    assert_eq!(expiry(json!(1_700_000_000)), Some(1_700_000_000_000));
    assert_eq!(expiry(json!(1.5)), Some(1_500));
    assert_eq!(expiry(json!(0)), Some(0));
    assert_eq!(expiry(json!(1e300)), Some(u64::MAX));
    for bad in [json!("1700000000"), json!(null), json!(-1), json!(true), json!([1]), json!({})] {
        assert_eq!(expiry(bad.clone()), None, "{bad}");
    }
}

#[test]
fn tokens_that_name_no_owner_or_that_can_be_read_in_two_ways_have_none() {
    let base = r#""iss":"i","sub":"s","exp":2"#;
    assert!(TokenClaims::read(&token_of(HEAD, &format!("{{{base}}}"))).is_some());
    for payload in [
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        r#"{"iss":"i","exp":2}"#.to_owned(),
        r#"{"sub":"s","exp":2}"#.to_owned(),
        r#"{"iss":"i","sub":"s"}"#.to_owned(),
        r#"{"iss":"","sub":"s","exp":2}"#.to_owned(),
        r#"{"iss":"i","sub":"","exp":2}"#.to_owned(),
        r#"{"iss":["i"],"sub":"s","exp":2}"#.to_owned(),
        r#"{"iss":"i","sub":1,"exp":2}"#.to_owned(),
        format!(r#"{{{base},"sub":"other"}}"#),
        format!(r#"{{{base},"s\u0075b":"other"}}"#),
        format!(r#"{{{base},"x":1,"x":1}}"#),
        format!(r#"{{{base},"aud":{{}}}}"#),
        format!(r#"{{{base},"aud":[["a"]]}}"#),
        format!(r#"{{{base},"aud":null}}"#),
        format!(r#"{{{base},"azp":"\ud800"}}"#),
        format!(r#"{{{base},"act":{{"sub":"actor"}}}}"#),
        format!(r#"{{{base},"cnf":{{"jkt":"x"}}}}"#),
        format!("{{{base}}} {{}}"),
        format!("{{{base}"),
        format!(r#"{{{base},"deep":{}}}"#, "[".repeat(5_000)),
    ] {
        assert_eq!(TokenClaims::read(&token_of(HEAD, &payload)), None, "{payload}");
    }
}

#[test]
fn only_signed_tokens_of_three_parts_are_read() {
    let payload = r#"{"iss":"i","sub":"s","exp":2}"#;
    for head in [
        "{}",
        r#"{"alg":"none"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":["RS256"]}"#,
        r#"{"alg":"none","alg":"RS256"}"#,
        r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
        "[]",
    ] {
        assert_eq!(TokenClaims::read(&token_of(head, payload)), None, "{head}");
    }
    let good = token_of(HEAD, payload);
    let unsigned = good.trim_end_matches(|letter| letter != '.');
    for bad in [
        "",
        "sk-1",
        "e",
        "e30",
        "e.e.e",
        "eyJ.!.x",
        "ya29.a.b",
        unsigned,
        &good[1..],
        &format!("{good}."),
        &format!("{good}.a.b"),
        &format!("{good}{}", "a".repeat(MAX_TOKEN_BYTES)),
        &good.replacen('.', "=.", 1),
    ] {
        assert_eq!(TokenClaims::read(bad), None, "{bad}");
    }
}

#[test]
fn only_one_header_with_the_bearer_scheme_is_read() {
    let good = token_of(HEAD, r#"{"iss":"i","sub":"s","exp":2}"#);
    let of = |values: &[String]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().expect("a header"));
        }
        TokenClaims::of(&headers).is_some()
    };
    assert!(of(&[format!("Bearer {good}")]) && of(&[format!("bearer  {good} ")]));
    for bad in [
        &[][..],
        std::slice::from_ref(&good),
        &[format!("Basic {good}")],
        &[format!("Bearer {good}"), "Bearer x".to_owned()],
    ] {
        assert!(!of(bad), "{bad:?}");
    }
}

/// Generates claims that name an owner, in a small alphabet so that similar ones occur.
fn owners() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let text = || "[ab\\x00.,\"]{0,3}";
    let value = prop_oneof![text().prop_map(Value::from), vec(text(), 0..3).prop_map(Value::from)];
    let name = proptest::sample::select(&NAMING[..]).prop_map(str::to_owned);
    (btree_map(name, value, 0..NAMING.len()), text(), text()).prop_map(|(mut claims, issuer, subject)| {
        claims.insert("iss".to_owned(), format!("i{issuer}").into());
        claims.insert("sub".to_owned(), format!("s{subject}").into());
        claims
    })
}

proptest! {
    #[test]
    fn different_claims_never_give_one_owner(one in owners(), other in owners()) {
        let key = |claims: &BTreeMap<String, Value>| {
            let mut claims = json!(claims);
            claims["exp"] = json!(2);
            key_of(&claims)
        };
        prop_assert_eq!(key(&one) == key(&other), one == other);
        prop_assert_eq!(key(&one), key(&one.clone()));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,200}", head in "\\PC{0,40}", payload in "\\PC{0,200}") {
        prop_assert!(TokenClaims::read(&text).is_none());
        let _ = TokenClaims::read(&token_of(&head, &payload));
    }
}

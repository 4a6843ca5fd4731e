//! Tokens as an issuer writes them, and a vecho that reads them.

use base64_simd::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::Front;
use crate::harness::client::Answer;
use crate::harness::front::{Ask, texts_of};

/// Time of a test's clock at its start, in seconds.
pub(super) const NOW: u64 = 1_700_000_000;
/// Lifetime of a token in seconds.
pub(super) const LIFETIME: u64 = 3_600;

/// Returns the claims of a managed identity, in the `number`th token that it gets.
pub(super) fn claims(principal: &str, number: u64) -> Value {
    json!({
        "iss": "https://sts.windows.net/tenant/", "tid": "tenant", "aud": "https://cognitiveservices.azure.com",
        "sub": principal, "oid": principal, "appid": "app", "ver": "1.0", "uti": format!("unique-{number}"),
        "iat": NOW + number, "exp": NOW + LIFETIME + number,
    })
}

/// Returns a token with these claims. Nothing verifies its signature but the stub, which compares whole tokens.
pub(super) fn signed(claims: &Value, signature: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode_to_string(text);
    let head = r#"{"typ":"JWT","alg":"RS256","kid":"k"}"#;
    format!("{}.{}.{}", encode(head), encode(&claims.to_string()), encode(signature))
}

/// Returns the `number`th token of a principal.
pub(super) fn token(principal: &str, number: u64) -> String {
    signed(&claims(principal, number), "issuer")
}

/// Returns a token with the claims of the principal's first one, and a signature that the upstream does not accept.
pub(super) fn forged(principal: &str) -> String {
    signed(&claims(principal, 1), "forger")
}

pub(super) async fn start(settings: &[(&str, &str)]) -> Front {
    Front::with(&[&[("auth.identity", "token")], settings].concat()).await
}

pub(super) fn ask(front: &Front, token: &str, texts: &[&str]) -> Ask {
    front.post(texts_of(texts).to_string()).key(token)
}

pub(super) async fn ask_as(front: &Front, token: &str, text: &str) -> Answer {
    ask(front, token, &[text]).send().await
}

/// Asserts that an answer is the upstream's refusal of the credential.
pub(super) fn assert_unauthorized(answer: &Answer) {
    assert_eq!((answer.status, answer.error().1), (401, json!("invalid_api_key")));
}

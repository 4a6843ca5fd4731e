//! Texts of vecho's own, and the call that asks a target for their vectors.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::place::TargetPlace;
use crate::key::{Key, Tag};
use crate::upstream::call::Call;
use crate::upstream::pacing::PaceTurn;
use crate::upstream::{Failure, LaneProperties};
use crate::vector::Vector;
use crate::wire::{Base64, Encoding, Input, RequestForm, write_request};

/// The texts. They never change, because a stored vector of an older version of vecho must stay comparable. They are
/// short, and differ in language and kind, so a change of the model shows in each.
pub const CANARY_TEXTS: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog.",
    "fn area(width: u32, height: u32) -> u32 { width * height }",
    "Nach dem Regen ist die Straße nass. 雨の後、道は濡れている。",
];

/// Tokens of the texts, about as many as any model counts.
pub(super) const CANARY_TOKENS: usize = 60;

/// Returns the keys of the texts in a space. No request has such a key.
pub fn canary_keys(space: &Key) -> Vec<Key> {
    CANARY_TEXTS.iter().map(|text| space.extend(Tag::Control, b"canary").extend(Tag::Text, text.as_bytes())).collect()
}

/// Answer of a target to the texts.
pub(super) struct CanaryAnswer {
    pub(super) vectors: Vec<Vector>,
    /// The name of the model in the answer.
    pub(super) model: Option<String>,
}

/// Asks a target for the vectors of the texts, in a turn if there is one, beside `call`, whose reservation covers the answer. Of the headers of
/// the call, the request has only those in `kept`.
pub(super) async fn ask(
    place: &Arc<TargetPlace>,
    properties: &LaneProperties,
    (call, turn, kept): (&Call<'_>, Option<PaceTurn>, &[HeaderName]),
) -> Result<CanaryAnswer, Failure> {
    let mut headers = HeaderMap::new();
    for name in kept {
        for value in properties.headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Numbers are unambiguous, and every server understands a request without `encoding_format`.
    let form = RequestForm::default();
    let properties = LaneProperties {
        headers,
        user: None,
        encoding: Encoding::Float,
        base64: Base64::Unproven,
        form,
        ..properties.clone()
    };
    let inputs: Vec<Input<'static>> = CANARY_TEXTS.iter().map(|text| Input::Text(Cow::Borrowed(*text))).collect();
    let body: Bytes = write_request(&properties.space, &inputs.iter().collect::<Vec<_>>(), form, None);
    let asked =
        Call { body, inputs: inputs.len(), encoding: Encoding::Float, has_repetitions: false, batch: &[], ..*call };
    let answer = place.executor.ask((&properties, &asked), (turn, CANARY_TOKENS)).await?;
    Ok(CanaryAnswer { vectors: answer.vectors, model: answer.model })
}

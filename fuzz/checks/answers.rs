//! Answers of an upstream: only valid JSON is accepted, and accepted vectors are forwarded bit for bit.

use serde::de::IgnoredAny;
use vecho::vector::packed::Packed;
use vecho::wire::{Base64, Encoding, Expected, ReadAnswer, Rendering, read_answer};

/// Checks one answer, as the answer to one, two and three inputs.
pub(crate) fn check(body: &[u8]) {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let is_json = serde_json::from_slice::<IgnoredAny>(text).is_ok();
    for inputs in 1..=3 {
        let expected = |base64| Expected { inputs, asked: None, known: None, base64 };
        let trusted = read_answer(body, &expected(Base64::Trusted));
        let unproven = read_answer(body, &expected(Base64::Unproven));
        if unproven.is_ok() {
            assert_eq!(unproven, trusted, "trust only adds answers");
        }
        let Ok(answer) = trusted else { continue };
        assert!(is_json, "an answer that is not JSON was believed");
        believed(&answer, body, inputs);
        for encoding in [Encoding::Float, Encoding::Base64] {
            rendered(&answer, encoding);
        }
    }
}

fn believed(answer: &ReadAnswer, body: &[u8], inputs: usize) {
    let dimension = answer.vectors[0].dimension();
    assert_eq!(answer.vectors.len(), inputs);
    for vector in &answer.vectors {
        assert_eq!(vector.dimension(), dimension);
        assert!(vector.components().all(f32::is_finite) && vector.components().any(|component| component != 0.0));
    }
    let as_other = Expected { inputs, asked: None, known: Some(dimension + 1), base64: Base64::Trusted };
    assert!(read_answer(body, &as_other).is_err(), "a known dimension is required");
    let of_more = Expected { inputs: inputs + 1, asked: None, known: None, base64: Base64::Trusted };
    assert!(read_answer(body, &of_more).is_err(), "an answer has one number of vectors");
}

fn rendered(answer: &ReadAnswer, encoding: Encoding) {
    let inputs = answer.vectors.len();
    let rendering = Rendering {
        vectors: answer.vectors.iter().cloned().map(Packed::from).collect(),
        slots: (0_u32..).take(inputs).collect(),
        encoding,
        model: answer.model.clone().unwrap_or_default(),
        prompt_tokens: answer.prompt_tokens.unwrap_or(0),
        members: answer.members.clone(),
        mocks: Vec::new(),
    };
    let written = rendering.to_bytes();
    assert!(written.len() <= rendering.largest_len());
    assert!(rendering.exact_len().is_none_or(|told| told == written.len() as u64));
    let dimension = answer.vectors[0].dimension();
    let expected = Expected { inputs, asked: None, known: Some(dimension), base64: Base64::Unproven };
    let read = read_answer(&written, &expected).expect("an answer of ours must be readable");
    assert_eq!(read.vectors, answer.vectors);
    assert_eq!((&read.model, &read.members), (&answer.model, &answer.members));
    assert_eq!(read.prompt_tokens, Some(rendering.prompt_tokens));
}

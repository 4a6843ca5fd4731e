//! `cache.codec`: encodings of stored vectors, tested from outside.

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::{Behaviour, Front, Stub};

const SMALL: &str = "text-embedding-3-small";

fn asked(encoding: &str) -> Value {
    json!({"model": SMALL, "input": "x", "encoding_format": encoding})
}

fn bits(answer: &Answer) -> Vec<u32> {
    answer.vectors()[0].iter().map(|component| component.to_bits()).collect()
}

/// Returns a vector that cannot be packed without loss, and an answer with that vector.
fn unpackable_vector() -> (Vec<f32>, Behaviour) {
    let vector: Vec<f32> = (1..=1536_u16).map(|n| f32::from(n).sin()).collect();
    let data = json!([{"object": "embedding", "index": 0, "embedding": vector}]);
    let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
    let body = json!({"object": "list", "data": data, "model": SMALL, "usage": usage}).to_string();
    (vector, Behaviour::Status { code: 200, headers: vec![("content-type", "application/json".to_owned())], body })
}

fn one_minus_cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test]
async fn a_vector_of_the_default_service_takes_half_the_memory() {
    let bytes = async |codec| {
        let front = Front::with(&[("cache.codec", codec)]).await;
        front.ask(&asked("float")).await;
        front.reaches("vecho_cache_bytes{tier=\"memory\"}", 1.0).await;
        front.metric("vecho_cache_bytes{tier=\"memory\"}").await
    };
    let plain = bytes("f32").await;
    for (codec, saved) in [("lossless", 3072 - 4), ("bf16", 3072 - 4), ("int8", 3 * 1536 - 4)] {
        let really = plain - bytes(codec).await;
        assert!((really - f64::from(saved)).abs() < 0.5, "{codec}: {really}");
    }
}

/// A caller that sends a request twice must not see two different vectors. The first answer is therefore written from
/// the stored encoding.
#[tokio::test]
async fn misses_and_later_hits_return_the_same_numbers() {
    for codec in ["lossless", "bf16", "int8", "f32"] {
        for (first, second) in [("float", "base64"), ("base64", "float")] {
            let front = Front::with(&[("cache.codec", codec)]).await;
            let fetched = front.ask(&asked(first)).await;
            let hit = front.ask(&asked(second)).await;
            assert_eq!((fetched.cache(), hit.cache()), ("miss", "hit"), "{codec}");
            assert_eq!(bits(&fetched), bits(&hit), "{codec}");
            let is_exact = fetched.vectors()[0] == Stub::vector(SMALL, None, "x");
            assert_eq!(is_exact, codec != "int8", "{codec}");
        }
    }
}

#[tokio::test]
async fn only_lossy_codecs_change_numbers_within_the_documented_error() {
    for (codec, largest) in [("lossless", None), ("bf16", Some(2e-6)), ("int8", Some(4e-4)), ("f32", None)] {
        let front = Front::with(&[("cache.codec", codec)]).await;
        let (vector, behaviour) = unpackable_vector();
        front.stub.next(behaviour);
        let fetched = front.ask(&asked("float")).await;
        let hit = front.ask(&asked("float")).await;
        assert_eq!((front.calls(), bits(&fetched)), (1, bits(&hit)), "{codec}");
        assert_eq!(fetched.vectors()[0] == vector, largest.is_none(), "{codec}");
        let error = one_minus_cosine(&fetched.vectors()[0], &vector);
        assert!(largest.is_none_or(|largest| error <= largest), "{codec}: {error:.2e}");
    }
}

#[tokio::test]
async fn no_store_answers_have_the_same_numbers_as_stored_ones() {
    let front = Front::with(&[("cache.codec", "int8")]).await;
    let unstored = front.post(asked("float").to_string()).header("cache-control", "no-store").send().await;
    assert_eq!(bits(&unstored), bits(&front.ask(&asked("float")).await));
}

//! One stored vector serves both encodings bit for bit, regardless of which one was requested first.

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::TINY;
use crate::harness::{Behaviour, Front, Stub};

const SMALL: &str = "text-embedding-3-small";

fn asked(model: &str, encoding: &str) -> Value {
    json!({"model": model, "input": ["x", "y"], "encoding_format": encoding})
}

fn expected(model: &str) -> Vec<Vec<f32>> {
    ["x", "y"].map(|text| Stub::vector(model, None, text)).into()
}

/// Returns the text of each embedding exactly as written in the body.
fn embeddings(answer: &Answer) -> Vec<String> {
    let body = String::from_utf8(answer.body.to_vec()).expect("an answer is text");
    let rest = body.split("\"embedding\":").skip(1);
    rest.map(|item| item[..item.find('}').expect("an item ends")].to_owned()).collect()
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|component| component.to_le_bytes()).collect();
    format!("\"{}\"", base64_simd::STANDARD.encode_to_string(bytes))
}

fn bits(vectors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    vectors.iter().map(|vector| vector.iter().map(|component| component.to_bits()).collect()).collect()
}

async fn assert_second_is_served_from_first(model: &str, first: &str, second: &str) {
    let front = Front::start().await;
    let fetched = front.ask(&asked(model, first)).await;
    assert_eq!(bits(&fetched.vectors()), bits(&expected(model)), "{first}");
    let hit = front.ask(&asked(model, second)).await;
    assert_eq!((hit.cache(), front.calls()), ("hit", 1));
    assert_eq!(bits(&hit.vectors()), bits(&expected(model)), "{first} then {second}");
    assert_eq!(is_base64(&hit), second == "base64");
}

fn is_base64(answer: &Answer) -> bool {
    let texts = embeddings(answer);
    let base64 = texts.iter().filter(|text| text.starts_with('"')).count();
    assert!(base64 == 0 || base64 == texts.len(), "one answer has one encoding");
    base64 > 0
}

#[tokio::test]
async fn base64_is_served_from_entries_fetched_as_floats() {
    for model in [TINY, SMALL] {
        assert_second_is_served_from_first(model, "float", "base64").await;
    }
}

#[tokio::test]
async fn floats_are_served_from_entries_fetched_as_base64() {
    for model in [TINY, SMALL] {
        assert_second_is_served_from_first(model, "base64", "float").await;
    }
}

#[tokio::test]
async fn floats_are_served_from_a_call_that_the_upstream_answered_in_base64() {
    let front = Front::with(&[("upstream.encoding", "base64")]).await;
    let with_dimensions = |input: &str, encoding: &str| json!({"model": TINY, "input": input, "dimensions": 12, "encoding_format": encoding});
    front.ask(&with_dimensions("x", "float")).await;
    let hit = front.ask(&with_dimensions("x", "float")).await;
    assert_eq!(bits(&hit.vectors()), bits(&[Stub::vector(TINY, Some(12), "x")]));
    assert_eq!(front.stub.embedding_calls()[0].json()["encoding_format"], "base64");
    assert!(!is_base64(&hit));
}

#[tokio::test]
async fn base64_is_bit_exact_on_misses_and_hits() {
    let front = Front::start().await;
    for cache in ["miss", "hit", "hit"] {
        let answer = front.ask(&asked(SMALL, "base64")).await;
        assert_eq!(answer.cache(), cache);
        assert_eq!(embeddings(&answer), expected(SMALL).iter().map(|vector| base64(vector)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn floats_are_written_as_the_shortest_decimal_that_round_trips() {
    let front = Front::start().await;
    for _ in 0..2 {
        let answer = front.ask(&asked(SMALL, "float")).await;
        for (text, vector) in embeddings(&answer).iter().zip(expected(SMALL)) {
            let numbers: Vec<&str> = text.trim_matches(['[', ']']).split(',').collect();
            assert_eq!(numbers.len(), vector.len());
            for (number, component) in numbers.iter().zip(vector) {
                assert_eq!(number.parse::<f32>().expect("a number").to_bits(), component.to_bits(), "{number}");
                assert!(digits(number) <= digits(&format!("{component:e}")), "{number} is longer than {component:e}");
            }
        }
    }
}

/// Returns the number of significant digits of a decimal.
fn digits(number: &str) -> usize {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    all.trim_start_matches('0').trim_end_matches('0').len()
}

/// Returns an answer with one vector, written exactly like this.
fn answer_with(numbers: &str) -> Behaviour {
    let body = format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{numbers}}}],"model":"tiny","usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    );
    Behaviour::Status { code: 200, headers: Vec::new(), body }
}

async fn assert_reads_back(numbers: &str, expected: &[f32]) {
    let front = Front::start().await;
    front.stub.next(answer_with(numbers));
    for encoding in ["float", "base64", "float"] {
        let answer = front.ask(&json!({"model": TINY, "input": "x", "encoding_format": encoding})).await;
        assert_eq!(bits(&answer.vectors()), bits(&[expected.to_vec()]), "{numbers} as {encoding}");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn extreme_f32_values_are_kept_in_both_encodings() {
    let edges = [f32::MIN_POSITIVE, f32::MAX, f32::MIN, -0.0, 0.1, 16_777_216.0, 1e-45, -1.5e-42, 0.333_333_34, 1.0];
    let text = edges.map(|number| format!("{number:e}")).join(", ");
    assert_reads_back(&format!("[{text}]"), &edges).await;
}

#[tokio::test]
async fn long_decimals_are_rounded_once_to_the_nearest_f32() {
    let text = "[ 0.012345678901234567 ,1.00000005960464477540,-3.0000001788139343262,\n2E-3,7 ]";
    assert_reads_back(text, &[0.012_345_679, 1.000_000_1, -3.000_000_2, 0.002, 7.0]).await;
}

#[tokio::test]
async fn a_streamed_answer_contains_every_vector() {
    let texts: Vec<String> = (0..128).map(|number| format!("text {number}")).collect();
    let expected: Vec<Vec<f32>> = texts.iter().map(|text| Stub::vector(SMALL, None, text)).collect();
    for encoding in ["float", "base64"] {
        let front = Front::start().await;
        for cache in ["miss", "hit", "hit"] {
            let answer = front.ask(&json!({"model": SMALL, "input": texts, "encoding_format": encoding})).await;
            assert!(answer.body.len() > 1_000_000);
            assert_eq!((answer.cache(), bits(&answer.vectors())), (cache, bits(&expected)), "{encoding}");
            assert_eq!(answer.indices(), (0..128).map(Some).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_missing_or_null_encoding_means_floats() {
    let front = Front::start().await;
    for body in [json!({"model": TINY, "input": "x"}), json!({"model": TINY, "input": "x", "encoding_format": null})] {
        let answer = front.ask(&body).await;
        assert!(!is_base64(&answer));
        assert_eq!(answer.vectors(), [Stub::vector(TINY, None, "x")]);
    }
}

#[tokio::test]
async fn a_partial_hit_is_written_in_the_requested_encoding() {
    let front = Front::start().await;
    front.ask(&json!({"model": TINY, "input": "x", "encoding_format": "float"})).await;
    front.ask(&json!({"model": TINY, "input": "z", "encoding_format": "base64"})).await;
    for encoding in ["base64", "float"] {
        let input = if encoding == "float" { ["x", "z", "new"] } else { ["x", "z", "newer"] };
        let answer = front.ask(&json!({"model": TINY, "input": input, "encoding_format": encoding})).await;
        assert_eq!(bits(&answer.vectors()), bits(&input.map(|text| Stub::vector(TINY, None, text))));
        assert_eq!((is_base64(&answer), answer.cache()), (encoding == "base64", "partial"));
    }
}

#[tokio::test]
async fn a_call_requests_the_encoding_of_its_caller() {
    let front = Front::start().await;
    for input in ["first", "second"] {
        let answer = front.ask(&json!({"model": TINY, "input": input, "encoding_format": "base64"})).await;
        assert!(is_base64(&answer));
    }
    let asked: Vec<Value> =
        front.stub.embedding_calls().iter().map(|call| call.json()["encoding_format"].clone()).collect();
    assert_eq!(asked, ["base64", "base64"]);
}

#[tokio::test]
async fn the_body_is_compact_json_in_the_documented_order() {
    let front = Front::start().await;
    for _ in 0..2 {
        let answer = front.ask(&json!({"model": TINY, "input": ["x"], "encoding_format": "base64"})).await;
        let vector = base64(&Stub::vector(TINY, None, "x"));
        let expected = format!(
            "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"index\":0,\"embedding\":{vector}}}],\
             \"model\":\"tiny\",\"usage\":{{\"prompt_tokens\":1,\"total_tokens\":1}}}}"
        );
        assert_eq!(String::from_utf8_lossy(&answer.body), expected);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

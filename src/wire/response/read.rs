//! The upstream's answer to vectors, or the reason why it is not fit to be kept.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::vector::{NotAVector, Vector};

/// A validated answer.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// One vector per input, in the order of the inputs.
    pub vectors: Vec<Vector>,
    /// The model that the upstream says answered.
    pub model: Option<String>,
    /// Tokens the upstream counted for the whole call.
    pub prompt_tokens: Option<u64>,
}

/// Why a 200 is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It has more bytes than are read.
    #[error("it is too large")]
    TooLarge,
    /// It is not JSON of the expected shape.
    #[error("it is not an embeddings answer")]
    Shape,
    /// It holds another number of vectors than there were inputs.
    #[error("it holds another number of vectors than there were inputs")]
    Count,
    /// An `index` is missing, out of range or used twice.
    #[error("its indices are not a permutation")]
    Index,
    /// Vectors differ in length, or are not as long as they have to be.
    #[error("a vector has the wrong dimension")]
    Dimension,
    /// It stands in for an answer that its sender did not have.
    #[error("it is a stand-in and says so")]
    StandIn,
    /// Some base64 is broken.
    #[error("its base64 is broken")]
    Base64,
    /// The numbers are no vector.
    #[error("a vector is unusable: {0}")]
    Vector(#[from] NotAVector),
}

/// What an answer has to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// How many inputs it answers.
    pub inputs: usize,
    /// The length that was asked for.
    pub dimension: Option<usize>,
    /// What base64 is measured against.
    pub base64: Base64,
}

/// What is known of an upstream's base64. Some put float64 or int8 there, and nothing in the bytes tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64 {
    /// It is known to be f32.
    Trusted,
    /// Numbers have proven how long a vector is.
    Proven(usize),
    /// Nothing is known: it is not believed.
    Unproven,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    vecho: Option<Marks>,
}

/// What another vecho behind this one marks.
#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    mock: Vec<u64>,
}

#[derive(Deserialize)]
struct Item<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

/// Reads an answer. Vectors may be base64 or numbers, whatever was asked.
pub fn read_answer(body: &[u8], expected: &Expected) -> Result<ReadAnswer, Unreadable> {
    let answer: Body<'_> = serde_json::from_slice(body).map_err(|_| Unreadable::Shape)?;
    if answer.vecho.is_some_and(|marks| !marks.mock.is_empty()) {
        return Err(Unreadable::StandIn);
    }
    if answer.data.len() != expected.inputs {
        return Err(Unreadable::Count);
    }
    let mut slots: Vec<Option<Vector>> = vec![None; expected.inputs];
    for item in &answer.data {
        let slot = item.index.and_then(|index| slots.get_mut(usize::try_from(index).ok()?)).ok_or(Unreadable::Index)?;
        if slot.is_some() {
            return Err(Unreadable::Index);
        }
        *slot = Some(read_vector(item.embedding.get(), expected.base64)?);
    }
    let vectors: Vec<Vector> = slots.into_iter().flatten().collect();
    check_dimensions(&vectors, expected.dimension)?;
    let prompt_tokens = answer.usage.and_then(|usage| usage.prompt_tokens);
    Ok(ReadAnswer { vectors, model: answer.model.filter(|model| !model.is_empty()), prompt_tokens })
}

fn check_dimensions(vectors: &[Vector], known: Option<usize>) -> Result<(), Unreadable> {
    let Some(expected) = known.or_else(|| vectors.first().map(Vector::dimension)) else {
        return Ok(());
    };
    if vectors.iter().all(|vector| vector.dimension() == expected) { Ok(()) } else { Err(Unreadable::Dimension) }
}

fn read_vector(json: &str, base64: Base64) -> Result<Vector, Unreadable> {
    if !json.starts_with('"') {
        return read_numbers(json);
    }
    let vector = read_base64(json)?;
    match base64 {
        Base64::Trusted => Ok(vector),
        Base64::Proven(dimension) if vector.dimension() == dimension => Ok(vector),
        Base64::Proven(_) | Base64::Unproven => Err(Unreadable::Dimension),
    }
}

/// The alphabet has no character that JSON must escape, but a server may escape any: then the first try fails.
fn read_base64(json: &str) -> Result<Vector, Unreadable> {
    let decode = |text: &str| base64_simd::STANDARD.decode_to_vec(text.as_bytes());
    let plain = json[1..].strip_suffix('"').ok_or(Unreadable::Shape)?;
    let bytes = match decode(plain) {
        Ok(bytes) => bytes,
        Err(_) if plain.contains('\\') => {
            let text: String = serde_json::from_str(json).map_err(|_| Unreadable::Shape)?;
            decode(&text).map_err(|_| Unreadable::Base64)?
        }
        Err(_) => return Err(Unreadable::Base64),
    };
    Ok(Vector::from_le_bytes(&bytes)?)
}

/// Reads each number straight to f32: the way through f64 would round twice.
fn read_numbers(json: &str) -> Result<Vector, Unreadable> {
    let list = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(Unreadable::Shape)?;
    let mut bytes = Vec::with_capacity(list.len() / 2);
    for number in list.split(',') {
        let number: f32 = number.trim_ascii().parse().map_err(|_| Unreadable::Shape)?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(Vector::from_le_bytes(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(inputs: usize, base64: Base64) -> Expected {
        Expected { inputs, dimension: None, base64 }
    }

    fn vectors(data: &str, inputs: usize) -> Result<Vec<Vec<f32>>, Unreadable> {
        let body = format!(r#"{{"object":"list","data":{data},"model":"m","usage":{{"prompt_tokens":3}}}}"#);
        let answer = read_answer(body.as_bytes(), &expected(inputs, Base64::Trusted))?;
        assert_eq!((answer.model.as_deref(), answer.prompt_tokens), (Some("m"), Some(3)));
        Ok(answer.vectors.iter().map(|vector| vector.components().collect()).collect())
    }

    #[test]
    fn the_index_decides_not_the_position() {
        let data = r#"[{"index":1,"embedding":[2.0, 1]},{"index":0,"embedding":"AACAPwAAAEA="}]"#;
        assert_eq!(vectors(data, 2), Ok(vec![vec![1.0, 2.0], vec![2.0, 1.0]]));
    }

    #[test]
    fn an_answer_that_might_be_wrong_is_not_believed() {
        let cases = [
            (r#"[{"index":0,"embedding":[1]}]"#, 2, Unreadable::Count),
            (r#"[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]"#, 2, Unreadable::Index),
            (r#"[{"index":0,"embedding":[1]},{"index":2,"embedding":[2]}]"#, 2, Unreadable::Index),
            (r#"[{"embedding":[1]}]"#, 1, Unreadable::Index),
            (r#"[{"index":0,"embedding":[1]},{"index":1,"embedding":[2,3]}]"#, 2, Unreadable::Dimension),
            (r#"[{"index":0,"embedding":"AACAPw"}]"#, 1, Unreadable::Base64),
            (r#"[{"index":0,"embedding":"AACA"}]"#, 1, Unreadable::Vector(NotAVector::Ragged)),
            (r#"[{"index":0,"embedding":[1e999]}]"#, 1, Unreadable::Vector(NotAVector::NotFinite)),
            (r#"[{"index":0,"embedding":[0,0]}]"#, 1, Unreadable::Vector(NotAVector::AllZero)),
            (r#"[{"index":0,"embedding":[]}]"#, 1, Unreadable::Shape),
            (r#"[{"index":0,"embedding":[[1]]}]"#, 1, Unreadable::Shape),
            (r#"[{"index":0,"embedding":["1"]}]"#, 1, Unreadable::Shape),
            (r#"[{"index":0,"embedding":null}]"#, 1, Unreadable::Shape),
            (r#"[{"index":0,"embedding":{"float":[1]}}]"#, 1, Unreadable::Shape),
        ];
        for (data, inputs, expected) in cases {
            assert_eq!(vectors(data, inputs), Err(expected), "{data}");
        }
        assert_eq!(read_answer(b"<html>", &expected(1, Base64::Trusted)), Err(Unreadable::Shape));
    }

    #[test]
    fn float64_in_base64_is_noticed_once_the_dimension_is_known() {
        let body = br#"{"data":[{"index":0,"embedding":"AAAAAAAA8D8AAAAAAAAAQA=="}]}"#;
        assert_eq!(read_answer(body, &expected(1, Base64::Proven(2))), Err(Unreadable::Dimension));
    }

    #[test]
    fn base64_proves_nothing_by_itself() {
        let body = br#"{"data":[{"index":0,"embedding":"AACAPwAAAEA="}]}"#;
        assert_eq!(read_answer(body, &expected(1, Base64::Unproven)), Err(Unreadable::Dimension));
        assert!(read_answer(body, &expected(1, Base64::Proven(2))).is_ok());
    }

    #[test]
    fn another_vechos_mock_is_not_believed() {
        let answer = |marks: &str| format!(r#"{{"data":[{{"index":0,"embedding":[1]}}],"vecho":{marks}}}"#);
        let read = |marks: &str| read_answer(answer(marks).as_bytes(), &expected(1, Base64::Trusted));
        assert_eq!(read(r#"{"mock":[0]}"#), Err(Unreadable::StandIn));
        assert!(read(r#"{"mock":[]}"#).is_ok());
    }

    #[test]
    fn escaped_base64_is_base64() {
        let data = r#"[{"index":0,"embedding":"AACAPwAA\u0041EA\u003d"}]"#;
        assert_eq!(vectors(data, 1), Ok(vec![vec![1.0, 2.0]]));
    }

    #[test]
    fn numbers_are_rounded_once() {
        // Lies just above the middle of two f32; by way of f64 it would be rounded to even, downwards.
        let data = r#"[{"index":0,"embedding":[1.00000005960464477540]}]"#;
        assert_eq!(vectors(data, 1), Ok(vec![vec![1.000_000_1]]));
    }
}

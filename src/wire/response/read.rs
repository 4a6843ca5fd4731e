//! The upstream's answer to vectors, or the reason why it is not fit to be kept.

use std::iter;
use std::sync::Arc;

use base64_simd::AsOut;
use serde::Deserialize;

use super::cursor::Cursor;
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
    /// There was no memory for it.
    #[error("there is no room for it")]
    NoRoom,
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

/// What stands in an answer: the members that mean something here.
#[derive(Default)]
struct Body<'a> {
    data: Option<Vec<Item<'a>>>,
    model: Option<Nullable<String>>,
    usage: Option<Nullable<Usage>>,
    vecho: Option<Nullable<Marks>>,
}

/// A value or `null`, which mean that the member stands there.
#[derive(Deserialize)]
struct Nullable<T>(Option<T>);

/// What another vecho behind this one marks.
#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    mock: Vec<u64>,
}

/// One vector, not yet looked into.
#[derive(Default)]
struct Item<'a> {
    index: Option<Nullable<u64>>,
    embedding: Option<&'a [u8]>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

/// Reads an answer. Vectors may be base64 or numbers, whatever was asked.
pub fn read_answer(body: &[u8], expected: &Expected) -> Result<ReadAnswer, Unreadable> {
    let answer = read_body(body, expected.inputs)?;
    if answer.vecho.and_then(into_option).is_some_and(|marks| !marks.mock.is_empty()) {
        return Err(Unreadable::StandIn);
    }
    let data = answer.data.ok_or(Unreadable::Shape)?;
    if data.len() != expected.inputs {
        return Err(Unreadable::Count);
    }
    let mut slots: Vec<Option<Vector>> = vec![None; expected.inputs];
    for item in data {
        let index = item.index.and_then(into_option).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| slots.get_mut(index)).ok_or(Unreadable::Index)?;
        if slot.is_some() {
            return Err(Unreadable::Index);
        }
        *slot = Some(read_vector(item.embedding.ok_or(Unreadable::Shape)?, expected.base64)?);
    }
    let vectors: Vec<Vector> = slots.into_iter().flatten().collect();
    check_dimensions(&vectors, expected.dimension)?;
    let prompt_tokens = answer.usage.and_then(into_option).and_then(|usage| usage.prompt_tokens);
    let model = answer.model.and_then(into_option).filter(|model| !model.is_empty());
    Ok(ReadAnswer { vectors, model, prompt_tokens })
}

fn read_body(text: &[u8], most_items: usize) -> Result<Body<'_>, Unreadable> {
    let (mut body, mut cursor) = (Body::default(), Cursor::new(text));
    cursor.object(|cursor, name| match name {
        "data" => put(&mut body.data, read_items(cursor, most_items)?),
        "model" => put(&mut body.model, cursor.value()?),
        "usage" => put(&mut body.usage, cursor.value()?),
        "vecho" => put(&mut body.vecho, cursor.value()?),
        _ => cursor.skip(),
    })?;
    cursor.end()?;
    Ok(body)
}

fn read_items<'a>(cursor: &mut Cursor<'a>, most_items: usize) -> Result<Vec<Item<'a>>, Unreadable> {
    let mut items = Vec::with_capacity(most_items);
    cursor.array(|cursor| {
        let mut item = Item::default();
        cursor.object(|cursor, name| match name {
            "index" => put(&mut item.index, cursor.value()?),
            "embedding" => put(&mut item.embedding, cursor.raw()?),
            _ => cursor.skip(),
        })?;
        // Three bytes make an item, which takes many more here.
        if items.len() == most_items {
            return Err(Unreadable::Count);
        }
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

fn into_option<T>(Nullable(value): Nullable<T>) -> Option<T> {
    value
}

/// A member that stands there twice says nothing.
fn put<T>(place: &mut Option<T>, value: T) -> Result<(), Unreadable> {
    if place.replace(value).is_some() { Err(Unreadable::Shape) } else { Ok(()) }
}

fn check_dimensions(vectors: &[Vector], known: Option<usize>) -> Result<(), Unreadable> {
    let Some(expected) = known.or_else(|| vectors.first().map(Vector::dimension)) else {
        return Ok(());
    };
    if vectors.iter().all(|vector| vector.dimension() == expected) { Ok(()) } else { Err(Unreadable::Dimension) }
}

fn read_vector(json: &[u8], base64: Base64) -> Result<Vector, Unreadable> {
    if !json.starts_with(b"\"") {
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
fn read_base64(json: &[u8]) -> Result<Vector, Unreadable> {
    match decode(&json[1..json.len() - 1]) {
        Err(Unreadable::Base64) if json.contains(&b'\\') => {
            let text: String = serde_json::from_slice(json).map_err(|_| Unreadable::Shape)?;
            decode(text.as_bytes())
        }
        decoded => decoded,
    }
}

/// Decodes into the memory that the vector stays in.
fn decode(text: &[u8]) -> Result<Vector, Unreadable> {
    let length = base64_simd::STANDARD.decoded_length(text).map_err(|_| Unreadable::Base64)?;
    let mut bytes: Arc<[u8]> = iter::repeat_n(0, length).collect();
    let room = Arc::get_mut(&mut bytes).expect("nobody else must have it yet");
    base64_simd::STANDARD.decode(text, room.as_out()).map_err(|_| Unreadable::Base64)?;
    Ok(Vector::from_shared(bytes)?)
}

/// Reads each number straight to f32: the way through f64 would round twice.
fn read_numbers(json: &[u8]) -> Result<Vector, Unreadable> {
    let json = str::from_utf8(json).map_err(|_| Unreadable::Shape)?;
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
            (r"[{},{},and so on]", 1, Unreadable::Count),
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

    #[test]
    fn what_is_not_the_json_of_an_answer_is_not_read() {
        let item = r#"{"index":0,"embedding":"AACAPwAAAEA="}"#;
        let good = format!(r#"{{"data":[{item}]}}"#);
        let cases = [
            format!("{good}x"),
            format!("{good}{good}"),
            good[..good.len() - 1].to_owned(),
            format!(r#"{{"data":[{item}],}}"#),
            format!(r#"{{"data":[{item},]}}"#),
            format!(r#"{{"data":[{item}] "model":"m"}}"#),
            format!(r#"{{"data":[{item}],"data":[{item}]}}"#),
            format!(r#"{{"data":[{item}],"model":"a","model":"b"}}"#),
            format!(r#"{{"data":[{item}],"other":nul}}"#),
            format!(r#"{{"data":[{item}],"model":1}}"#),
            format!("[{good}]"),
            r#"{"model":"m"}"#.to_owned(),
            r#"{"data":[{"index":0,"index":0,"embedding":"AACAPwAAAEA="}]}"#.to_owned(),
            r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA=","embedding":[1,2]}]}"#.to_owned(),
            r#"{"data":[{"index":0}]}"#.to_owned(),
            r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA="#.to_owned(),
            r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA=\"#.to_owned(),
            r#"{"data":[{"index":0,"embedding":"AACAPwAA\x41EA="}]}"#.to_owned(),
        ];
        assert!(read_answer(good.as_bytes(), &expected(1, Base64::Trusted)).is_ok());
        for body in cases {
            assert_eq!(read_answer(body.as_bytes(), &expected(1, Base64::Trusted)), Err(Unreadable::Shape), "{body}");
        }
    }

    #[test]
    fn spaces_escapes_and_members_that_nobody_knows_change_nothing() {
        let body = r#"
            { "object" : "li\"st", "x" : { "data" : [ 1, {} ], "y" : "\\" } ,
              "d\u0061ta" : [ { "embedding" : "AACAPwAA\/AA=" , "object" : null, "index" : 0 } ] , "usage" : null } "#;
        let answer = read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("it is readable");
        assert_eq!(answer.vectors[0].as_le_bytes(), [0, 0, 0x80, 0x3f, 0, 0, 0xfc, 0]);
    }
}

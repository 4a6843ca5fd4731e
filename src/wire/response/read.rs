//! Converts the upstream's answer to vectors, or returns the reason why it must not be stored.

use std::iter;
use std::sync::Arc;

use base64_simd::AsOut;
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::AnswerFault;
use super::cursor::{ARRAY, Cursor, OBJECT};
use super::proof::{is_evidently_f32, is_evidently_f64};
use crate::process::pace::Pace;
use crate::vector::Vector;

/// A validated answer.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// One vector per input, in the order of the inputs.
    pub vectors: Vec<Vector>,
    /// Model that answered, according to the upstream.
    pub model: Option<String>,
    /// Tokens that the upstream counted for the whole call.
    pub prompt_tokens: Option<u64>,
    /// Further scalar members, such as `id`.
    pub members: Members,
}

/// Names of members of an answer, each with the JSON of its scalar value.
pub type Members = Vec<(String, Box<str>)>;

/// Maximum number of further members of an answer that are stored.
const MAX_MEMBERS: usize = 16;
/// Maximum size of their names and values together.
const MAX_MEMBER_BYTES: usize = 4 * 1024;
/// Maximum number of tokens of a call that is accepted.
const MAX_TOKENS: f64 = 4_294_967_295.0;
/// Byte order mark, which some servers put before their JSON and most clients ignore.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Expectations that an answer must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Number of inputs that it answers.
    pub inputs: usize,
    /// Dimension that the request asked for. Some servers ignore it, so another dimension has an error of its own.
    pub asked: Option<usize>,
    /// Known dimension of the space, from answers in numbers. It takes precedence over the requested one.
    pub known: Option<usize>,
    /// What is known of the upstream's base64.
    pub base64: Base64,
}

impl Expected {
    /// Returns true if vectors may have this dimension. A server that ignores the requested dimension answers with
    /// longer vectors, because a request asks for fewer components than a model has. Shorter vectors are an accident.
    fn allows(&self, dimension: usize) -> bool {
        match (self.known, self.asked) {
            (Some(known), _) => dimension == known,
            (None, Some(asked)) => dimension >= asked,
            (None, None) => true,
        }
    }
}

/// Knowledge of an upstream's base64. Some servers encode float64 or int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64 {
    /// It is known to be f32.
    Trusted,
    /// It is f32 if a vector has this many components. Earlier answers in numbers or the request gave the dimension.
    Proven(usize),
    /// Nothing is known: the bytes must prove that they are f32.
    Unproven,
}

/// Members of an answer that are evaluated.
#[derive(Default)]
struct AnswerMembers<'a> {
    data: Option<Vec<Item<'a>>>,
    model: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
    vecho: Option<Nullable<Marks>>,
    members: Members,
    member_bytes: usize,
}

/// A value or `null`. It distinguishes a null member from an absent one.
#[derive(Deserialize)]
struct Nullable<T>(Option<T>);

/// Marks of another vecho behind this one.
#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    mock: Vec<u64>,
}

/// One vector, not yet parsed.
#[derive(Default)]
struct Item<'a> {
    index: Option<Nullable<Number>>,
    embedding: Option<&'a [u8]>,
}

/// Token counts of an answer. Each part is parsed separately, so an unreadable part affects no other.
#[derive(Deserialize)]
struct Usage<'a> {
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    total_tokens: Option<&'a RawValue>,
}

/// Reads an answer at once. Vectors may be base64 or numbers, whatever was asked for. Must not be called by a worker.
pub fn read_answer(body: &[u8], expected: &Expected) -> Result<ReadAnswer, AnswerFault> {
    read_at_pace(body, expected, &mut None).now_or_never().expect("without a pace nothing waits")
}

/// Reads an answer like [`read_answer`]. While a large one is read, other tasks of the thread run in between.
pub async fn read_answer_in_slices(body: &[u8], expected: &Expected) -> Result<ReadAnswer, AnswerFault> {
    read_at_pace(body, expected, &mut Some(Pace::default())).await
}

async fn read_at_pace(body: &[u8], expected: &Expected, pace: &mut Option<Pace>) -> Result<ReadAnswer, AnswerFault> {
    let answer = read_body(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body), expected.inputs, pace).await?;
    // Mocks of a vecho behind this one must never be stored as vectors.
    if answer.vecho.and_then(into_option).is_some_and(|marks| !marks.mock.is_empty()) {
        return Err(AnswerFault::UpstreamFallback);
    }
    let data = answer.data.ok_or(AnswerFault::Shape)?;
    if data.len() != expected.inputs {
        return Err(AnswerFault::Count);
    }
    // If one item has no index, all are counted by position, and the indices that exist must agree.
    let are_counted = data.iter().any(|item| !item.has_index());
    let (mut slots, mut has_base64) = (vec![None; expected.inputs], false);
    for (position, item) in data.into_iter().enumerate() {
        let index = item.index(if are_counted { Some(position) } else { None })?;
        // A slot that is filled already means a duplicate index.
        let slot = slots.get_mut(index).filter(|slot| slot.is_none()).ok_or(AnswerFault::Index)?;
        let embedding = item.embedding.ok_or(AnswerFault::Shape)?;
        has_base64 |= is_string(embedding);
        *slot = Some(read_vector(embedding)?);
        after(pace, embedding).await;
    }
    // Count and indices are checked, so each slot holds a vector and `flatten` drops none.
    let vectors: Vec<Vector> = slots.into_iter().flatten().collect();
    let dimension = common_dimension(&vectors)?;
    // The bytes of base64 tell no type. Numbers need no such check.
    if has_base64 {
        check_base64(&vectors, expected)?;
    }
    if !expected.allows(dimension) {
        return Err(AnswerFault::OtherDimension(dimension));
    }
    Ok(ReadAnswer {
        vectors,
        model: answer.model.and_then(read_model),
        prompt_tokens: answer.usage.and_then(read_tokens),
        members: answer.members,
    })
}

async fn read_body<'a>(
    text: &'a [u8],
    most_items: usize,
    pace: &mut Option<Pace>,
) -> Result<AnswerMembers<'a>, AnswerFault> {
    let (mut body, mut cursor) = (AnswerMembers::default(), Cursor::new(text));
    let mut has_member = cursor.begin(OBJECT)?;
    while has_member {
        let name = cursor.name()?;
        match &*name {
            "data" => put(&mut body.data, read_items(&mut cursor, most_items, pace).await?)?,
            "model" => put(&mut body.model, cursor.value()?)?,
            "usage" => put(&mut body.usage, cursor.value()?)?,
            "vecho" => put(&mut body.vecho, cursor.value()?)?,
            // Our own answer always says `list`.
            "object" => cursor.skip()?,
            other => body.keep(other, cursor.value()?),
        }
        has_member = cursor.go_on(OBJECT)?;
    }
    cursor.end()?;
    Ok(body)
}

/// Notes that a part of the text was read.
async fn after(pace: &mut Option<Pace>, text: &[u8]) {
    if let Some(pace) = pace {
        pace.after(text.len()).await;
    }
}

impl AnswerMembers<'_> {
    /// Stores a further member if it is a scalar and within the limits.
    fn keep(&mut self, name: &str, value: &RawValue) {
        let (value, bytes) = (value.get(), name.len() + value.get().len());
        let has_room = self.members.len() < MAX_MEMBERS && self.member_bytes + bytes <= MAX_MEMBER_BYTES;
        if has_room && !value.starts_with(['{', '[']) && self.members.iter().all(|(kept, _)| kept != name) {
            self.member_bytes += bytes;
            self.members.push((name.to_owned(), value.into()));
        }
    }
}

impl Item<'_> {
    fn has_index(&self) -> bool {
        matches!(self.index, Some(Nullable(Some(_))))
    }

    /// Returns the place of its vector. If items are counted by `position`, an index must agree with it.
    fn index(&self, position: Option<usize>) -> Result<usize, AnswerFault> {
        let said = match &self.index {
            // An index may be written as `0.0`.
            Some(Nullable(Some(number))) => Some(whole(number).ok_or(AnswerFault::Index)?),
            _ => None,
        };
        match (said, position) {
            (Some(said), None) => Ok(said),
            (said, Some(position)) if said.is_none_or(|said| said == position) => Ok(position),
            _ => Err(AnswerFault::Index),
        }
    }
}

/// Returns the value of a JSON number that is a whole number, possibly written with a fraction of zero.
fn whole(number: &Number) -> Option<usize> {
    let whole = number.as_f64().filter(|number| (0.0..=MAX_TOKENS).contains(number) && number.fract() == 0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number within 32 bits"
    )]
    whole.map(|number| number as usize)
}

fn read_model(json: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(json.get()).ok().filter(|model| !model.is_empty())
}

/// Returns the tokens of the prompt, or the total, which is the same number for embeddings.
fn read_tokens(json: &RawValue) -> Option<u64> {
    // An array would be accepted as a list of the members in order.
    let json = Some(json.get()).filter(|json| json.starts_with('{'))?;
    let usage: Usage<'_> = serde_json::from_str(json).ok()?;
    let count = |part: &RawValue| match serde_json::from_str::<Value>(part.get()) {
        Ok(Value::Number(number)) => whole(&number),
        _ => None,
    };
    usage.prompt_tokens.and_then(count).or_else(|| usage.total_tokens.and_then(count)).map(|tokens| tokens as u64)
}

async fn read_items<'a>(
    cursor: &mut Cursor<'a>,
    most_items: usize,
    pace: &mut Option<Pace>,
) -> Result<Vec<Item<'a>>, AnswerFault> {
    // The list never grows, because further items are refused below.
    let mut items = Vec::with_capacity(most_items);
    let mut has_item = cursor.begin(ARRAY)?;
    while has_item {
        let mut item = Item::default();
        cursor.object(|cursor, name| match name {
            "index" => put(&mut item.index, cursor.value()?),
            "embedding" => put(&mut item.embedding, cursor.raw()?),
            _ => cursor.skip(),
        })?;
        // An item of three bytes takes far more memory here, so the number of items is limited.
        if items.len() == most_items {
            return Err(AnswerFault::Count);
        }
        let text = item.embedding.unwrap_or_default();
        items.push(item);
        after(pace, text).await;
        has_item = cursor.go_on(ARRAY)?;
    }
    Ok(items)
}

fn into_option<T>(Nullable(value): Nullable<T>) -> Option<T> {
    value
}

/// Stores a member. Duplicate members are rejected.
fn put<T>(place: &mut Option<T>, value: T) -> Result<(), AnswerFault> {
    if place.replace(value).is_some() { Err(AnswerFault::Shape) } else { Ok(()) }
}

fn common_dimension(vectors: &[Vector]) -> Result<usize, AnswerFault> {
    let dimension = vectors.first().map_or(0, Vector::dimension);
    let is_common = vectors.iter().all(|vector| vector.dimension() == dimension);
    if is_common { Ok(dimension) } else { Err(AnswerFault::Dimension) }
}

/// Checks that base64 was f32, unless this is already known.
fn check_base64(vectors: &[Vector], expected: &Expected) -> Result<(), AnswerFault> {
    let dimension = vectors.first().map_or(0, Vector::dimension);
    let is_as_long_as_told = expected.asked == Some(dimension) || expected.base64 == Base64::Proven(dimension);
    let is_f32 = if expected.base64 == Base64::Trusted || expected.known == Some(dimension) {
        true
    } else if is_as_long_as_told {
        // As many components as expected as f32 are strong evidence already.
        // A server that ignores the requested dimension may send float64 vectors of half that dimension.
        !vectors.iter().all(is_evidently_f64)
    } else {
        vectors.iter().all(is_evidently_f32)
    };
    if is_f32 { Ok(()) } else { Err(AnswerFault::Dimension) }
}

fn is_string(json: &[u8]) -> bool {
    json.starts_with(b"\"")
}

fn read_vector(json: &[u8]) -> Result<Vector, AnswerFault> {
    if is_string(json) { read_base64(json) } else { read_numbers(json) }
}

/// Decodes a base64 string. Its alphabet needs no escapes in JSON, but a server may escape any character; then the
/// first attempt fails.
fn read_base64(json: &[u8]) -> Result<Vector, AnswerFault> {
    match decode(&json[1..json.len() - 1]) {
        Err(AnswerFault::Base64) if json.contains(&b'\\') => {
            let text: String = serde_json::from_slice(json).map_err(|_| AnswerFault::Shape)?;
            decode(text.as_bytes())
        }
        decoded => decoded,
    }
}

/// Decodes into the memory that the vector will own.
fn decode(text: &[u8]) -> Result<Vector, AnswerFault> {
    // The standard alphabet with padding is the one that OpenAI's service uses.
    let length = base64_simd::STANDARD.decoded_length(text).map_err(|_| AnswerFault::Base64)?;
    let mut bytes: Arc<[u8]> = iter::repeat_n(0, length).collect();
    let free = Arc::get_mut(&mut bytes).expect("nobody else must have it yet");
    base64_simd::STANDARD.decode(text, free.as_out()).map_err(|_| AnswerFault::Base64)?;
    Ok(Vector::from_shared(bytes)?)
}

/// Parses each number directly to f32, because parsing to f64 first would round twice.
fn read_numbers(json: &[u8]) -> Result<Vector, AnswerFault> {
    // The text is a JSON value by now, so a part that is no number belongs to a nested value.
    let json = str::from_utf8(json).map_err(|_| AnswerFault::Shape)?;
    let list = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(AnswerFault::Shape)?;
    let mut bytes = Vec::with_capacity(list.len() / 2);
    for number in list.split(',') {
        let number: f32 = number.trim_ascii().parse().map_err(|_| AnswerFault::Shape)?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(Vector::from_le_bytes(&bytes)?)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

//! Memory of a request in addition to its body: an upper bound before it is read, and the amount afterwards.

use super::{EmbedRequest, Input, MAX_INPUTS};

/// Memory of an input while its request is read: an entry in a list that grows by doubling.
const READ_INPUT_BYTES: usize = 96;

/// Memory of a candidate: an entry in a list that grows by doubling, and one in the list of the inputs.
const CANDIDATE_BYTES: usize = 64;

/// Memory of a token while its request is read: a number in a list that grows by doubling, old and new list together.
const READ_TOKEN_BYTES: usize = 12;

/// Memory of an input, without its text or tokens, while its request is answered. It covers the key, the entries in the
/// tables of the request and of the calls in flight, and two copies of the `Input` itself, since a call outlives the
/// request's body.
const INPUT_BYTES: usize = 400;

/// Memory of a token while its request is answered, in the request and in its call.
const TOKEN_BYTES: usize = 8;

/// Returns an upper bound of the memory to read this body, in bytes. It counts JSON punctuation
/// everywhere, even in texts.
pub fn reading_bytes(body: &[u8]) -> usize {
    let [quotes, brackets, commas, escapes] = counts(body, *b"\"[,\\");
    // Parsing stops at the first input beyond the limit.
    let inputs = (quotes / 2 + brackets).min(MAX_INPUTS + 1);
    // A text with escapes is unescaped in a buffer that grows by doubling, then copied.
    let copies = if escapes == 0 { 1 } else { 3 };
    copies * body.len() + inputs * READ_INPUT_BYTES + (commas + brackets) * READ_TOKEN_BYTES
}

/// Returns an upper bound of the memory to read this similarity request, in bytes. Its candidates stay in the body.
pub fn similar_bytes(body: &[u8]) -> usize {
    let [commas] = counts(body, *b",");
    (commas + 1).min(MAX_INPUTS + 1) * CANDIDATE_BYTES
}

/// Counts each of these bytes in a body. The counters of a chunk are bytes, so the compiler compares many at a time.
fn counts<const N: usize>(body: &[u8], wanted: [u8; N]) -> [usize; N] {
    let mut sums = [0_usize; N];
    // A chunk has at most 255 bytes, so a counter of one byte cannot overflow.
    for chunk in body.chunks(u8::MAX.into()) {
        for (sum, wanted) in sums.iter_mut().zip(wanted) {
            let in_chunk = chunk.iter().fold(0_u8, |count, byte| count + u8::from(*byte == wanted));
            *sum += usize::from(in_chunk);
        }
    }
    sums
}

impl EmbedRequest<'_> {
    /// Returns the memory of the request until it is answered, in bytes, without its body and the vectors. `body_bytes`
    /// is the length of the body.
    pub fn answering_bytes(&self, body_bytes: usize) -> usize {
        let tokens = |input: &Input<'_>| match input {
            Input::Text(_) => 0,
            Input::Tokens(ids) => ids.len(),
        };
        let tokens: usize = self.inputs.iter().map(tokens).sum();
        // The call needs the texts a second time, and its own body.
        2 * body_bytes + self.inputs.len() * INPUT_BYTES + tokens * TOKEN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::wire::{PathModel, read_request};

    fn request(inputs: &str) -> Vec<u8> {
        format!(r#"{{"model":"m","input":[{inputs}]}}"#).into_bytes()
    }

    /// Returns the heap memory of a parsed request, in bytes.
    fn read_bytes(body: &[u8]) -> usize {
        let request = read_request(body, &BTreeSet::new(), PathModel::No).expect("it is understood");
        let own = |input: &Input<'_>| match input {
            Input::Text(std::borrow::Cow::Owned(text)) => text.capacity(),
            Input::Text(std::borrow::Cow::Borrowed(_)) => 0,
            Input::Tokens(ids) => ids.capacity() * size_of::<u32>(),
        };
        request.inputs.capacity() * size_of::<Input<'_>>() + request.inputs.iter().map(own).sum::<usize>()
    }

    #[test]
    fn parsing_memory_stays_within_its_bound() {
        let bodies = [
            request("1,".repeat(100_000).trim_end_matches(',')),
            request("[1],".repeat(50_000).trim_end_matches(',')),
            request("\"a\",".repeat(50_000).trim_end_matches(',')),
            request(&format!("\"{}\"", "\\u4e2d".repeat(50_000))),
            request(&format!("\"{}\"", "prose, with \\\"quotes\\\". ".repeat(5_000))),
        ];
        for body in bodies {
            let (taken, bound) = (read_bytes(&body), reading_bytes(&body));
            assert!(taken <= bound, "{taken} of {bound} for {}", String::from_utf8_lossy(&body[..60]));
        }
    }

    #[test]
    fn parsing_prose_takes_less_than_twice_its_body() {
        let body = request(&format!("\"{}\"", "A sentence of some words, as they are. ".repeat(1_000)));
        assert!(reading_bytes(&body) < 2 * body.len());
    }

    #[test]
    fn quotes_in_a_text_raise_the_bound_no_further_than_the_maximum_of_inputs() {
        let body = request(&format!("\"{}\"", "\\\"".repeat(4 * MAX_INPUTS)));
        assert!(reading_bytes(&body) <= 3 * body.len() + (MAX_INPUTS + 2) * READ_INPUT_BYTES);
    }

    #[test]
    fn the_memory_of_a_request_counts_inputs_tokens_and_body() {
        let answering = |inputs: &str| {
            let body = request(inputs);
            let request = read_request(&body, &BTreeSet::new(), PathModel::No).expect("it is understood");
            request.answering_bytes(body.len())
        };
        assert!(answering("\"a\",\"b\"") >= answering("\"a\"") + INPUT_BYTES);
        assert!(answering(&format!("\"{}\"", "a".repeat(1_001))) >= answering("\"a\"") + 2_000);
        // As many bytes of body, and more tokens.
        assert_eq!(answering("[1,2,3]"), answering("[11111]") + 2 * TOKEN_BYTES);
    }
}

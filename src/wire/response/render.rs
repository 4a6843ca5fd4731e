//! Renders our own answer in pieces of a bounded size, so a very large answer is never built as a whole.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Encoding;
use super::Members;
use crate::vector::COMPONENT_BYTES;
use crate::vector::packed::Packed;

/// Target size of a frame. Larger ones need fresh pages instead of the allocator's free lists; smaller ones
/// cost more writes.
const PIECE_BYTES: usize = 64 * 1024;

/// Upper bound of one component's text with its comma: sign, nine digits, point, exponent.
const COMPONENT_TEXT_BYTES: usize = 17;

/// An answer that is ready to be written.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// The distinct vectors.
    pub vectors: Arc<[Packed]>,
    /// For each input, in order, the index of its vector.
    pub slots: Arc<[u32]>,
    /// Encoding of the vectors.
    pub encoding: Encoding,
    /// The model's name.
    pub model: String,
    /// `usage.prompt_tokens`
    pub prompt_tokens: u64,
    /// Further members of the answer.
    pub members: Members,
    /// Inputs answered with mocks. Any such input adds the `vecho` member.
    pub mocks: Vec<u32>,
}

impl Rendering {
    /// Returns the whole answer in one buffer, which may have spare capacity.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_vec())
    }

    /// Returns the whole answer without spare capacity, for answers that are stored for long.
    pub fn to_lasting_bytes(&self) -> Bytes {
        let mut body = self.to_vec();
        body.shrink_to_fit();
        Bytes::from(body)
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.largest_len());
        self.write_items(0..self.slots.len(), &mut body);
        body
    }

    /// Returns the exact length if it is known without rendering: base64 has a fixed length, numbers have not.
    pub fn exact_len(&self) -> Option<u64> {
        if self.encoding == Encoding::Float {
            return None;
        }
        let items: usize = (0..self.slots.len()).map(|place| self.largest_item_len(place) - spare_digits(place)).sum();
        let mut tail = Vec::new();
        self.write_tail(&mut tail);
        Some((HEAD.len() + items + self.slots.len().saturating_sub(1) + tail.len()) as u64)
    }

    /// Returns an upper bound of the length.
    pub fn largest_len(&self) -> usize {
        let items: usize = (0..self.slots.len()).map(|place| self.largest_item_len(place) + 1).sum();
        // A character of a name takes at most six bytes, and the place of a mock ten digits and a comma.
        let members: usize = self.members.iter().map(|(name, value)| name.len() * 6 + value.len() + 4).sum();
        HEAD.len() + items + TAIL_BYTES + self.model.len() * 6 + members + self.mocks.len() * 11
    }

    /// Renders the inputs from `from` on until a piece is full. Returns the piece and the first input that is not
    /// rendered yet. The first piece contains the head, the last one the tail.
    pub fn piece(&self, from: usize) -> (Bytes, usize) {
        let mut until = from;
        let mut expected_bytes = 0;
        // One item is rendered even if it alone exceeds the piece, so that each piece makes progress.
        while until < self.slots.len() && (expected_bytes < PIECE_BYTES || until == from) {
            expected_bytes += self.largest_item_len(until) + 1;
            until += 1;
        }
        // Room for the head or the tail, which are in the first and the last piece.
        let mut body = Vec::with_capacity(expected_bytes + 256);
        self.write_items(from..until, &mut body);
        (Bytes::from(body), until)
    }

    /// Returns an upper bound of the length of a piece.
    pub fn largest_piece_len(&self) -> usize {
        let largest_item = (0..self.slots.len()).map(|place| self.largest_item_len(place)).max().unwrap_or(0);
        PIECE_BYTES + largest_item
    }

    /// Returns the number of inputs.
    pub fn inputs(&self) -> usize {
        self.slots.len()
    }

    fn vector(&self, place: usize) -> &Packed {
        &self.vectors[self.slots[place] as usize]
    }

    fn write_items(&self, places: Range<usize>, body: &mut Vec<u8>) {
        if places.start == 0 {
            body.extend_from_slice(HEAD.as_bytes());
        }
        for place in places.clone() {
            if place > 0 {
                body.push(b',');
            }
            self.write_item(place, body);
        }
        if places.end == self.slots.len() {
            self.write_tail(body);
        }
    }

    fn write_item(&self, place: usize, body: &mut Vec<u8>) {
        body.extend_from_slice(ITEM_HEAD.as_bytes());
        write_json(body, &place);
        match self.encoding {
            Encoding::Base64 => {
                body.extend_from_slice(b",\"embedding\":\"");
                self.vector(place).for_each_piece(|piece| base64_simd::STANDARD.encode_append(piece, body));
                body.extend_from_slice(b"\"}");
            }
            Encoding::Float => {
                body.extend_from_slice(b",\"embedding\":");
                write_numbers(self.vector(place), body);
                body.push(b'}');
            }
        }
    }

    /// Returns the length of an item in base64, with the maximum digits for its place. For numbers it is an upper
    /// bound.
    fn largest_item_len(&self, place: usize) -> usize {
        let frame = ITEM_HEAD.len() + PLACE_DIGITS + ",\"embedding\":\"\"}".len();
        let vector = self.vector(place);
        frame
            + match self.encoding {
                Encoding::Base64 => (vector.dimension() * COMPONENT_BYTES).div_ceil(3) * 4,
                Encoding::Float => vector.dimension() * COMPONENT_TEXT_BYTES,
            }
    }

    fn write_tail(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(b"],\"model\":");
        write_json(body, &self.model);
        body.extend_from_slice(b",\"usage\":{\"prompt_tokens\":");
        write_json(body, &self.prompt_tokens);
        body.extend_from_slice(b",\"total_tokens\":");
        write_json(body, &self.prompt_tokens);
        body.push(b'}');
        for (name, value) in &self.members {
            body.push(b',');
            write_json(body, name);
            body.push(b':');
            body.extend_from_slice(value.as_bytes());
        }
        // Only answers with mocks have this member, so all others look like those of the service.
        if !self.mocks.is_empty() {
            body.extend_from_slice(b",\"vecho\":{\"mock\":");
            write_json(body, &self.mocks);
            body.push(b'}');
        }
        body.push(b'}');
    }
}

fn write_json(body: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(body, value).expect("names and numbers must serialize into memory");
}

const HEAD: &str = "{\"object\":\"list\",\"data\":[";

/// Upper bound of the tail with the longest numbers, without the model's name and the places of mocks.
const TAIL_BYTES: usize = 160;

/// Maximum digits of an item's place.
const PLACE_DIGITS: usize = 10;

const ITEM_HEAD: &str = "{\"object\":\"embedding\",\"index\":";

/// Returns the number of unused digits of a place.
fn spare_digits(place: usize) -> usize {
    PLACE_DIGITS - 1 - place.checked_ilog10().unwrap_or(0) as usize
}

/// Writes each component as the shortest decimal that parses to the same f32.
fn write_numbers(vector: &Packed, body: &mut Vec<u8>) {
    let mut text = zmij::Buffer::new();
    // The opening bracket takes the place of the first comma.
    let mut before = b'[';
    vector.for_each_piece(|piece| {
        for component in piece.as_chunks::<COMPONENT_BYTES>().0 {
            body.push(before);
            body.extend_from_slice(text.format_finite(f32::from_le_bytes(*component)).as_bytes());
            before = b',';
        }
    });
    body.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::Vector;
    use crate::vector::packed::Codec;
    use crate::wire::{Base64, Expected, read_answer};

    fn rendering(encoding: Encoding, mocks: Vec<u32>) -> Rendering {
        let vectors = [[1.0_f32, -2.5e-10], [0.1, 3.0e30]];
        let vectors = vectors.iter().map(|v| Vector::from_components(v).expect("it is a vector"));
        let vectors: Vec<_> = vectors.map(Packed::from).collect();
        let slots = [0, 1, 0].repeat(5).into();
        let (model, members) = ("m\"x".to_owned(), Vec::new());
        Rendering { vectors: vectors.into(), slots, encoding, model, prompt_tokens: 8, members, mocks }
    }

    #[test]
    fn both_encodings_round_trip_bit_for_bit() {
        for encoding in [Encoding::Float, Encoding::Base64] {
            let rendering = rendering(encoding, vec![]);
            let read = read_answer(
                &rendering.to_bytes(),
                &Expected { inputs: 15, asked: None, known: Some(2), base64: Base64::Proven(2) },
            )
            .expect("it is readable");
            for (place, vector) in read.vectors.iter().enumerate() {
                assert_eq!(vector, &rendering.vector(place).unpack());
            }
            assert_eq!((read.model.as_deref(), read.prompt_tokens), (Some("m\"x"), Some(8)));
        }
    }

    #[test]
    fn packed_and_unpacked_vectors_render_identically() {
        let components: Vec<f32> = (1..1000_u16).map(|n| f32::from(n) / 1234.5).collect();
        let plain = Vector::from_components(&components).expect("it is a vector");
        let write = |vector: &Packed, encoding| {
            let vectors = [vector.clone()].into();
            Rendering { vectors, slots: [0, 0].into(), ..rendering(encoding, vec![]) }.to_bytes()
        };
        for codec in [Codec::Lossless, Codec::Bf16, Codec::Int8] {
            let packed = Packed::pack(&plain, codec);
            assert!(packed.payload().len() < plain.as_le_bytes().len());
            for encoding in [Encoding::Float, Encoding::Base64] {
                assert_eq!(write(&packed, encoding), write(&packed.unpack().into(), encoding));
            }
        }
    }

    #[test]
    fn rendered_bytes_equal_those_of_the_service() {
        let one = Rendering { slots: [0].into(), ..rendering(Encoding::Float, vec![]) };
        let expected = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,-2.5e-10]}],"model":"m\"x","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        assert_eq!(one.to_bytes(), expected);
    }

    #[test]
    fn lengths_are_known_before_rendering() {
        let base64 = rendering(Encoding::Base64, vec![1, 4]);
        assert_eq!(base64.exact_len(), Some(base64.to_bytes().len() as u64));
        let floats = rendering(Encoding::Float, vec![1, 4]);
        assert_eq!(floats.exact_len(), None);
        assert!(floats.to_bytes().len() <= floats.largest_len());
        let members = vec![("i\u{1}d".to_owned(), r#""embd-1""#.into()), ("created".to_owned(), "1.5e9".into())];
        let with_members = Rendering { members, ..rendering(Encoding::Base64, vec![1]) };
        assert_eq!(with_members.exact_len(), Some(with_members.to_bytes().len() as u64));
        assert!(with_members.to_bytes().len() <= with_members.largest_len());
    }

    #[test]
    fn additional_members_round_trip() {
        let members = vec![("id".to_owned(), r#""embd-1""#.into()), ("a\"b".to_owned(), "null".into())];
        let rendering = Rendering { members: members.clone(), ..rendering(Encoding::Float, vec![]) };
        let body = rendering.to_bytes();
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|answer| answer["id"] == "embd-1"));
        let expected = Expected { inputs: 15, asked: None, known: None, base64: Base64::Unproven };
        assert_eq!(read_answer(&body, &expected).map(|answer| answer.members), Ok(members));
    }

    #[test]
    fn a_cached_body_has_no_spare_capacity() {
        for encoding in [Encoding::Float, Encoding::Base64] {
            let rendering = rendering(encoding, vec![]);
            let body = Vec::from(rendering.to_lasting_bytes());
            assert_eq!(body.capacity(), body.len());
            assert_eq!(body, rendering.to_bytes());
        }
    }

    #[test]
    fn pieces_concatenate_to_the_whole_body() {
        let wide = Vector::from_components(&vec![0.123_456_79; 60_000]).expect("it is a vector");
        let rendering =
            Rendering { vectors: vec![Packed::from(wide); 2].into(), ..rendering(Encoding::Base64, vec![2]) };
        let (mut from, mut body, mut pieces) = (0, Vec::new(), 0);
        while from < rendering.inputs() {
            let (piece, until) = rendering.piece(from);
            body.extend_from_slice(&piece);
            from = until;
            pieces += 1;
        }
        assert!(pieces > 1);
        assert_eq!(body, rendering.to_bytes());
    }
}

//! Common properties of a scenario's requests: converts text numbers into a request and checks the response.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Outcome;
use crate::vectors::{self, DEFAULT_DIMENSION, Grid};

/// Words that fill a text up to its length; their content does not matter.
const FILLER: &str = " The proxy keeps one vector for each text and gives the same answer to whoever asks again.";

/// Reason why a write into a `String` cannot fail.
const GROWS: &str = "a String must take what is written";

/// Encoding of the vectors in a response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Little-endian f32 in base64, the default of the official clients.
    Base64,
    /// Decimal numbers.
    Float,
}

/// The common shape of a scenario's requests.
#[derive(Clone)]
pub(crate) struct Shape {
    /// Length of every text in bytes.
    pub(crate) text_bytes: usize,
    /// Components of every vector.
    pub(crate) dimension: usize,
    /// Kind of the vectors, which selects the model.
    pub(crate) grid: Grid,
    /// The requested encoding.
    pub(crate) encoding: Encoding,
    /// Sends a different `user` in every request, so that no two bodies are equal.
    pub(crate) fresh_user: bool,
    /// True if vecho uses a lossy codec, so that responses may differ from the service's bits.
    pub(crate) lossy: bool,
    /// Further header lines, each with its line end.
    pub(crate) headers: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            text_bytes: 500,
            dimension: DEFAULT_DIMENSION,
            grid: Grid::Halves,
            encoding: Encoding::Base64,
            fresh_user: false,
            lossy: false,
            headers: String::new(),
        }
    }
}

impl Shape {
    /// Returns the text with this number.
    pub(crate) fn text(&self, id: u64) -> String {
        let mut text = format!("{id:016x}");
        while text.len() < self.text_bytes {
            text.push_str(FILLER);
        }
        text.truncate(self.text_bytes.max(16));
        text
    }

    /// Writes the whole request for these texts, with its head, into `request` and replaces its content. `serial` makes
    /// it unique.
    pub(crate) fn write_request(&self, ids: &[u64], serial: u64, request: &mut Vec<u8>) {
        let body = self.body(ids, serial);
        let head = format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-load\r\naccept: \
             application/json\r\ncontent-type: application/json\r\n{}content-length: {}\r\n\r\n",
            self.headers,
            body.len()
        );
        request.clear();
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body.as_bytes());
    }

    fn body(&self, ids: &[u64], serial: u64) -> String {
        let mut body = String::with_capacity(ids.len() * (self.text_bytes + 4) + 200);
        body.push_str("{\"input\":");
        if let [id] = ids {
            self.push_text(*id, &mut body);
        } else {
            for (position, id) in ids.iter().enumerate() {
                body.push(if position == 0 { '[' } else { ',' });
                self.push_text(*id, &mut body);
            }
            body.push(']');
        }
        self.push_fields(serial, &mut body);
        body
    }

    fn push_text(&self, id: u64, body: &mut String) {
        body.push('"');
        body.push_str(&self.text(id));
        body.push('"');
    }

    fn push_fields(&self, serial: u64, body: &mut String) {
        write!(body, ",\"model\":\"{}\",\"encoding_format\":", self.grid.model()).expect(GROWS);
        body.push_str(if self.encoding == Encoding::Base64 { "\"base64\"" } else { "\"float\"" });
        if self.dimension != DEFAULT_DIMENSION {
            write!(body, ",\"dimensions\":{}", self.dimension).expect(GROWS);
        }
        if self.fresh_user {
            write!(body, ",\"user\":\"{serial:016x}\"").expect(GROWS);
        }
        body.push('}');
    }

    /// Checks a response to a request for these texts. The error describes the first fault.
    pub(crate) fn check(&self, ids: &[u64], body: &[u8]) -> Outcome<()> {
        let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| format!("unreadable answer: {error}"))?;
        if answer.data.len() != ids.len() {
            return Err(format!("{} vectors for {} texts", answer.data.len(), ids.len()).into());
        }
        for (position, (item, id)) in answer.data.iter().zip(ids).enumerate() {
            if item.index != position {
                return Err(format!("index {} at position {position}", item.index).into());
            }
            let expected = vectors::le_bytes(self.text(*id).as_bytes(), self.dimension, self.grid);
            let found = self.le_bytes(item.embedding)?;
            let is_right = if self.lossy { found.len() == expected.len() } else { found == expected };
            if !is_right {
                return Err(format!("wrong vector at position {position}").into());
            }
        }
        Ok(())
    }

    fn le_bytes(&self, embedding: &RawValue) -> Outcome<Vec<u8>> {
        let text = embedding.get();
        match self.encoding {
            Encoding::Base64 => {
                let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                Ok(base64_simd::STANDARD.decode_to_vec(inner.ok_or("numbers where base64 was asked")?)?)
            }
            Encoding::Float => {
                let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let numbers = inner.ok_or("a string where numbers were asked")?.split(',');
                let mut bytes = Vec::with_capacity(self.dimension * 4);
                for number in numbers {
                    bytes.extend_from_slice(&number.trim().parse::<f32>()?.to_le_bytes());
                }
                Ok(bytes)
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    index: usize,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

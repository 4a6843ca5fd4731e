//! The upstream's vectors: one per model, dimension and input, the same in every process.

use std::fmt::Write as _;

/// One input of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&[u32]> for Input {
    fn from(tokens: &[u32]) -> Self {
        Self::Tokens(tokens.to_vec())
    }
}

impl<const N: usize> From<[u32; N]> for Input {
    fn from(tokens: [u32; N]) -> Self {
        Self::Tokens(tokens.to_vec())
    }
}

/// Returns the API's token count of one input: `cl100k_base` tokens of a text, the length of a token array.
pub(crate) fn tokens(input: impl Into<Input>) -> usize {
    match input.into() {
        Input::Text(text) => bpe_openai::cl100k_base().count(text.as_str()),
        Input::Tokens(tokens) => tokens.len(),
    }
}

/// All parameters of a vector except its input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    pub(crate) model: String,
    pub(crate) dimensions: Option<usize>,
    /// Fields of other servers that shape the vector, as `name=value` lines.
    pub(crate) extras: String,
}

impl Space {
    /// Returns the length of this space's vectors.
    pub(crate) fn dimension(&self) -> usize {
        self.dimensions.unwrap_or(match self.model.as_str() {
            "text-embedding-3-small" | "text-embedding-ada-002" => 1536,
            "text-embedding-3-large" => 3072,
            _ => 8,
        })
    }

    /// Returns the space of another model with vectors of the same length.
    pub(crate) fn of_model(&self, model: &str) -> Self {
        Self { model: model.to_owned(), dimensions: Some(self.dimension()), extras: self.extras.clone() }
    }

    /// Returns the vector of one input. Every component is `f32(half) / f32(norm)`, as in real vectors.
    pub(crate) fn vector(&self, input: &Input) -> Vec<f32> {
        let mut random = vec![0; self.dimension() * 2];
        self.hasher(input).finalize_xof().fill(&mut random);
        let halves: Vec<f32> =
            random.as_chunks::<2>().0.iter().map(|bytes| half_value(u16::from_le_bytes(*bytes))).collect();
        let norm = norm(&halves);
        halves.iter().map(|half| half / norm).collect()
    }

    fn hasher(&self, input: &Input) -> blake3::Hasher {
        let mut head = String::new();
        let _ = write!(head, "{:?} {} {:?} ", self.model, self.dimension(), self.extras);
        let mut hasher = blake3::Hasher::new();
        hasher.update(head.as_bytes());
        match input {
            Input::Text(text) => hasher.update(b"text").update(text.as_bytes()),
            Input::Tokens(tokens) => {
                hasher.update(b"tokens");
                for token in tokens {
                    hasher.update(&token.to_le_bytes());
                }
                &mut hasher
            }
        };
        hasher
    }
}

/// Converts sixteen random bits to a half-precision number with a magnitude from 2^-8 to 1, of either sign.
fn half_value(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let mantissa = 1.0 + f32::from(bits & 0x03ff) / 1024.0;
    let exponent = i32::from((bits >> 10) & 0x7) - 8;
    sign * mantissa * 2.0_f32.powi(exponent)
}

fn norm(halves: &[f32]) -> f32 {
    let squares: f64 = halves.iter().map(|half| f64::from(*half) * f64::from(*half)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "the norm is one f32, as in real vectors")]
    let norm = squares.sqrt() as f32;
    norm
}

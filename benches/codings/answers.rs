//! Answers whose vectors have the statistics of real ones.

use std::fmt;

use vecho::vector::Vector;
use vecho::vector::packed::Packed;
use vecho::wire::{Encoding, Rendering};

const DIMENSION: u16 = 1536;

/// Numbers of a vector.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// Half-precision numbers divided by one norm, as in vectors of OpenAI.
    Halves,
    /// f32 of any kind, as other servers send them.
    Any,
}

/// An answer to measure.
pub(crate) struct Answer {
    pub(crate) vectors: u32,
    pub(crate) encoding: Encoding,
    pub(crate) numbers: Numbers,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoding = if self.encoding == Encoding::Float { "floats" } else { "base64" };
        let numbers = match self.numbers {
            Numbers::Halves => "halves",
            Numbers::Any => "any f32",
        };
        write!(f, "{} × {encoding}, {numbers}", self.vectors)
    }
}

impl Answer {
    pub(crate) fn rendering(&self) -> Rendering {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let vectors: Vec<Packed> = (0..self.vectors).map(|_| Packed::from(self.vector(&mut random))).collect();
        let slots = (0..self.vectors).collect::<Vec<_>>().into();
        let (vectors, model, encoding) = (vectors.into(), "text-embedding-3-small".to_owned(), self.encoding);
        Rendering { vectors, slots, encoding, model, prompt_tokens: 8, members: Vec::new(), mocks: Vec::new() }
    }

    /// Returns a vector of length 1 in a random direction.
    #[expect(clippy::cast_possible_truncation, reason = "the numbers are those of an f32 vector")]
    fn vector(&self, random: &mut Random) -> Vector {
        let scale = f64::from(DIMENSION).sqrt().recip();
        let mut components: Vec<f32> = (0..DIMENSION).map(|_| (random.normal() * scale) as f32).collect();
        if matches!(self.numbers, Numbers::Halves) {
            for component in &mut components {
                *component = half(*component);
            }
        }
        let squares: f64 = components.iter().map(|component| f64::from(*component).powi(2)).sum();
        let norm = squares.sqrt() as f32;
        for component in &mut components {
            *component /= norm;
        }
        Vector::from_components(&components).expect("it is a vector")
    }
}

/// Rounds to a number of half precision.
fn half(component: f32) -> f32 {
    /// Smallest normal number of half precision.
    const NORMAL: f32 = 1.0 / 16_384.0;
    // A normal number has eleven bits; below, the numbers have one distance.
    let unit = if component.abs() < NORMAL { NORMAL / 1024.0 } else { power_of_two(component) / 1024.0 };
    (component / unit).round_ties_even() * unit
}

/// Returns the largest power of two that is not above the size of a number.
fn power_of_two(number: f32) -> f32 {
    f32::from_bits(number.abs().to_bits() & 0x7f80_0000)
}

/// A source of random numbers, always the same.
struct Random(u64);

impl Random {
    #[expect(clippy::cast_precision_loss, reason = "a random number needs no precision")]
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

//! The stand-in service's vectors: a fixed function of the text, so every response can be checked from its request.

/// Number of components if a request names no dimension.
pub(crate) const DEFAULT_DIMENSION: usize = 1536;

/// Small, fast random number generator; the same seed gives the same numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns the next 64 bits (splitmix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number below `bound`, uniform enough for load.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        // An f64 holds 53 bits; the shift leaves exactly those.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
        let number = (self.next() >> 11) as f64;
        number / 9_007_199_254_740_992.0
    }
}

/// Numbers that a service's vectors consist of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// Half-precision numbers divided by one norm, as `OpenAI` sends them. The lossless codec packs them.
    Halves,
    /// f32 of any kind, as TEI, vLLM and Ollama send them. They are stored as they are.
    Any,
}

impl Grid {
    /// Returns the model whose vectors are of this kind.
    pub(crate) const fn model(self) -> &'static str {
        match self {
            Self::Halves => "text-embedding-3-small",
            Self::Any => "any-f32",
        }
    }

    /// Returns the kind of the vectors of `model`.
    pub(crate) fn of(model: &str) -> Self {
        if model == Self::Any.model() { Self::Any } else { Self::Halves }
    }
}

/// Returns the vector of `text`: unit length, little-endian f32.
///
/// On the grid of halves, each component is `f32(h) / f32(n)` bit for bit, with h a half-precision number and n one
/// norm, as in the real service's vectors. The integers used here are half-precision numbers, and scaling both by a
/// power of two changes no bit of the quotient. Off the grid, lower digits make the numerators of no use as halves.
pub(crate) fn le_bytes(text: &[u8], dimension: usize, grid: Grid) -> Vec<u8> {
    let numerators = numerators(text, dimension);
    let sum_of_squares: i64 = numerators.iter().map(|n| i64::from(*n) * i64::from(*n)).sum();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "rounding to f32 is the format")]
    let norm = (sum_of_squares as f64).sqrt() as f32;
    let mut bytes = Vec::with_capacity(numerators.len() * 4);
    for numerator in numerators {
        let number = f32::from(numerator);
        // A fraction with many digits, far finer than the steps of halves.
        let number = if grid == Grid::Any { number + (number * 0.618_034).fract() } else { number };
        bytes.extend_from_slice(&(number / norm).to_le_bytes());
    }
    bytes
}

/// Returns integers from -1023 to 1024, each a half-precision number.
fn numerators(text: &[u8], dimension: usize) -> Vec<i16> {
    let hash = blake3::hash(text);
    let mut random = Random(u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")));
    let mut numerators = Vec::with_capacity(dimension + 4);
    while numerators.len() < dimension {
        for pair in random.next().to_le_bytes().as_chunks::<2>().0 {
            let bits = u16::from_le_bytes(*pair) & 0x07ff;
            numerators.push(i16::try_from(bits).expect("eleven bits fit") - 1023);
        }
    }
    numerators.truncate(dimension);
    numerators
}

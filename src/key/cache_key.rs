//! The key of one vector.

use std::fmt;

use super::part::{BUFFER_BYTES, PART_HEAD_BYTES, Tag, part_head};
use super::process_secret::MAC_BYTES;

/// Identifier of one vector: the hash of scope, upstream, space and input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Creates a key from its raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses the hexadecimal form in which a key is shown.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() || digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |place: usize| char::from(pair[place]).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Returns the raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key of this context extended by one part. Hashes one short contiguous buffer, which is much cheaper
    /// than continuing a hasher that has already started. The context's key is as hard to guess as its secret, so an
    /// extension of a keyed context is keyed too.
    #[must_use]
    pub fn extend(&self, tag: Tag, bytes: &[u8]) -> Self {
        const HEAD_BYTES: usize = 32 + PART_HEAD_BYTES;
        let whole = HEAD_BYTES + bytes.len();
        // Most inputs are short. Without this buffer, each input of a batch would cost an allocation.
        let (mut short, mut long) = ([0; BUFFER_BYTES], Vec::new());
        let buffer = if whole <= BUFFER_BYTES {
            &mut short[..whole]
        } else {
            long.resize(whole, 0);
            &mut long[..]
        };
        buffer[..32].copy_from_slice(&self.0);
        buffer[32..HEAD_BYTES].copy_from_slice(&part_head(tag, bytes.len()));
        buffer[HEAD_BYTES..].copy_from_slice(bytes);
        Self(*blake3::hash(buffer).as_bytes())
    }

    pub(super) fn of_mac(mac: [u8; MAC_BYTES]) -> Self {
        let mut key = [0; 32];
        // The other bytes stay zero. Maps hash only the first eight bytes of a key.
        key[..MAC_BYTES].copy_from_slice(&mac);
        Self(key)
    }

    /// Returns an endless pseudorandom byte stream that is determined by this key.
    pub fn stream(&self) -> KeyStream {
        KeyStream(blake3::Hasher::new().update(&self.0).finalize_xof())
    }

    /// Returns a 64-bit mark of the key, evenly distributed and never zero.
    pub fn mark(&self) -> u64 {
        let first = self.0.first_chunk::<8>().expect("a key must have 32 bytes");
        // Zero marks an empty place in `SeenKeys`.
        u64::from_le_bytes(*first) | 1 << 63
    }

    /// Returns a small, evenly distributed number for choosing a shard. The map inside a shard uses other bytes of the
    /// key.
    pub fn shard(&self) -> usize {
        usize::from(self.0[31])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Byte stream of [`Key::stream`].
pub struct KeyStream(blake3::OutputReader);

impl KeyStream {
    /// Fills `bytes` with the next bytes of the stream.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

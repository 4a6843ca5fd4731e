//! Cache keys: 32 bytes of blake3 over everything that can change a vector.
//!
//! Every part goes into the hash behind a one-byte tag and its length, so that no two different sequences of parts
//! feed the hash the same bytes. Texts are never kept, only these keys.

use std::fmt;

use crate::config::Secret;

/// Bumped whenever the recipe below changes, so that entries of an older recipe are never found.
const RECIPE: &[u8] = b"vecho key 1";

/// Identifies one vector: the hash of scope, upstream, space and input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A small number taken from the key, evenly spread, for choosing a shard.
    pub fn shard(&self) -> usize {
        usize::from(self.0[0])
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

/// What a part of a key is. The numbers are written into every key: never reuse one.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Tag {
    /// The kind of scope and, for a credential, its hash.
    Scope = 1,
    /// The caller's `x-vecho-namespace`.
    Namespace = 2,
    /// The address that would be called, path and query included.
    Upstream = 3,
    /// The model's name.
    Model = 4,
    /// The `dimensions` asked for.
    Dimensions = 5,
    /// Name of a further field that shapes the vector.
    ExtraName = 6,
    /// Value of such a field, as canonical JSON.
    ExtraValue = 7,
    /// A text input's UTF-8 bytes.
    Text = 8,
    /// A token input's ids, each as four little-endian bytes.
    Tokens = 9,
    /// The bytes of a whole request body.
    Body = 10,
    /// A header's name.
    HeaderName = 11,
    /// A header's value.
    HeaderValue = 12,
    /// Any other decision that shapes a rendered answer.
    Control = 13,
}

/// Builds keys that share a beginning: start it once a request, [`KeyBuilder::fork`] it per input.
#[derive(Clone)]
pub struct KeyBuilder(blake3::Hasher);

impl KeyBuilder {
    /// Starts a key. With a secret the hash is keyed, so that who can read a shared store cannot test it for known texts.
    pub fn new(secret: Option<&Secret>) -> Self {
        let mut hasher = match secret {
            Some(secret) => blake3::Hasher::new_keyed(&blake3::derive_key(
                "vecho 2026 cache key secret",
                secret.reveal().as_bytes(),
            )),
            None => blake3::Hasher::new(),
        };
        hasher.update(RECIPE);
        Self(hasher)
    }

    /// Adds one part.
    pub fn part(&mut self, tag: Tag, bytes: &[u8]) -> &mut Self {
        let mut head = [0_u8; 9];
        head[0] = tag as u8;
        head[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.update(&head);
        self.0.update(bytes);
        self
    }

    /// A copy to go on with, leaving this one as it is.
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// The key of all parts so far.
    pub fn finish(&self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(Tag, &[u8])]) -> Key {
        let mut builder = KeyBuilder::new(None);
        for (tag, bytes) in parts {
            builder.part(*tag, bytes);
        }
        builder.finish()
    }

    #[test]
    fn moving_a_boundary_between_parts_changes_the_key() {
        let whole = key(&[(Tag::Model, b"ab"), (Tag::Text, b"c")]);
        assert_ne!(whole, key(&[(Tag::Model, b"a"), (Tag::Text, b"bc")]));
        assert_ne!(whole, key(&[(Tag::Model, b"abc")]));
    }

    #[test]
    fn the_same_bytes_under_another_tag_are_another_key() {
        assert_ne!(key(&[(Tag::Text, b"[1,2]")]), key(&[(Tag::Tokens, b"[1,2]")]));
    }

    #[test]
    fn a_secret_changes_every_key() {
        let plain = KeyBuilder::new(None).finish();
        let keyed = KeyBuilder::new(Some(&Secret::new("s3cret"))).finish();
        assert_ne!(plain, keyed);
        assert_ne!(keyed, KeyBuilder::new(Some(&Secret::new("other"))).finish());
    }
}

//! Derivation of keys from their parts.

use super::cache_key::Key;
use super::part::{BUFFER_BYTES, PART_HEAD_BYTES, Tag, part_head};
use super::process_secret::ProcessSecret;
use crate::config::Secret;

/// Version of the derivation. It must change with it, so entries with older keys are never found.
pub(super) const RECIPE: &[u8] = b"vecho key 1";

/// Builder for the key of a context, part by part. [`Key::extend`] then adds each input.
pub struct KeyBuilder<'a> {
    recipe: Recipe<'a>,
    /// Bytes that are not hashed yet.
    pending: Vec<u8>,
    /// Hasher of all earlier bytes, once they exceed the buffer.
    begun: Option<Box<blake3::Hasher>>,
}

/// Method that turns the parts into a key.
enum Recipe<'a> {
    Plain,
    Keyed([u8; 32]),
    Process(&'a ProcessSecret),
}

impl KeyBuilder<'static> {
    /// Starts a key. With a secret the hash is keyed, so readers of a shared store cannot test it for known texts.
    pub fn new(secret: Option<&Secret>) -> Self {
        let derive = |secret: &Secret| blake3::derive_key("vecho 2026 cache key secret", secret.reveal().as_bytes());
        Self::start(secret.map_or(Recipe::Plain, |secret| Recipe::Keyed(derive(secret))))
    }
}

impl<'a> KeyBuilder<'a> {
    /// Starts a key that is only compared with others of the same secret.
    pub fn of_process(secret: &'a ProcessSecret) -> Self {
        Self::start(Recipe::Process(secret))
    }

    fn start(recipe: Recipe<'a>) -> Self {
        let mut pending = Vec::with_capacity(BUFFER_BYTES);
        pending.extend_from_slice(RECIPE);
        Self { recipe, pending, begun: None }
    }

    /// Adds one part.
    pub fn part(&mut self, tag: Tag, bytes: &[u8]) -> &mut Self {
        let head = part_head(tag, bytes.len());
        // A part that fits is only copied. Most keys are then hashed in one call.
        if self.pending.len() + PART_HEAD_BYTES + bytes.len() <= BUFFER_BYTES {
            self.pending.extend_from_slice(&head);
            self.pending.extend_from_slice(bytes);
        } else {
            self.add(&head);
            self.add(bytes);
        }
        self
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() <= BUFFER_BYTES {
            self.pending.extend_from_slice(bytes);
            return;
        }
        let start = match &self.recipe {
            Recipe::Plain => None,
            Recipe::Keyed(secret) => Some(secret),
            Recipe::Process(secret) => {
                // The bytes before the MAC determine that it follows, because they include the length of the part. The
                // encoding stays unambiguous.
                self.pending.extend_from_slice(&secret.mac(bytes));
                return;
            }
        };
        let start = || Box::new(start.map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed));
        self.begun.get_or_insert_with(start).update(&self.pending).update(bytes);
        self.pending.clear();
    }

    /// Returns the key of all parts so far.
    pub fn finish(&self) -> Key {
        let hash = match (&self.begun, &self.recipe) {
            // The hasher is cloned, so further parts can follow.
            (Some(begun), _) => begun.clone().update(&self.pending).finalize(),
            (None, Recipe::Plain) => blake3::hash(&self.pending),
            (None, Recipe::Keyed(secret)) => blake3::keyed_hash(secret, &self.pending),
            (None, Recipe::Process(secret)) => return Key::of_mac(secret.mac(&self.pending)),
        };
        Key::from_bytes(*hash.as_bytes())
    }
}

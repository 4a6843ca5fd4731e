//! Cache keys: 32 bytes of blake3 over everything that can change a vector.
//!
//! Each part is hashed with a one-byte tag and its length, so two different sequences of parts never feed the hash the
//! same bytes. Texts are never stored, only these keys.

mod passing;
mod seen;
mod spread;

use std::fmt;

use crate::config::Secret;
use passing::MAC_BYTES;

pub use passing::PassingSecret;
pub use seen::SeenKeys;
pub use spread::{KeyMap, Spread};

/// Version of the derivation below. It must change with the derivation, so entries with older keys are never found.
const RECIPE: &[u8] = b"vecho key 1";

/// Identifier of one vector: the hash of scope, upstream, space and input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Creates a key from its raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
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
        let (mut short, mut long) = ([0; GATHERED_BYTES], Vec::new());
        let buffer = if whole <= GATHERED_BYTES {
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

    fn of_mac(mac: [u8; MAC_BYTES]) -> Self {
        let mut key = [0; 32];
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

/// Kind of a part of a key. The numbers are part of every key, so a number must never be reused.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Tag {
    /// Kind of scope and, for a credential, its hash.
    Scope = 1,
    /// Caller's `x-vecho-namespace`.
    Namespace = 2,
    /// URL of the upstream call, including path and query.
    Upstream = 3,
    /// Name of the model.
    Model = 4,
    /// Requested `dimensions`.
    Dimensions = 5,
    /// Name of any other field that affects the vector.
    ExtraName = 6,
    /// Value of such a field, as canonical JSON.
    ExtraValue = 7,
    /// UTF-8 bytes of a text input.
    Text = 8,
    /// Ids of a token input, each as four little-endian bytes.
    Tokens = 9,
    /// Bytes of a whole request body.
    Body = 10,
    /// Name of a header.
    HeaderName = 11,
    /// Value of a header.
    HeaderValue = 12,
    /// Encoding of the vectors in the response.
    Encoding = 13,
    /// Any other property that separates entries.
    Control = 15,
    /// Value of the `user` field.
    User = 14,
}

const PART_HEAD_BYTES: usize = 9;

/// Up to this size, the parts of a key are gathered and hashed in one call, because each update of a hasher has a fixed
/// cost. Allocators have a size class of up to 1 KB.
const GATHERED_BYTES: usize = 960;

fn part_head(tag: Tag, length: usize) -> [u8; PART_HEAD_BYTES] {
    let mut head = [0_u8; PART_HEAD_BYTES];
    head[0] = tag as u8;
    head[1..].copy_from_slice(&(length as u64).to_le_bytes());
    head
}

/// Builder for the key of a context, part by part. [`Key::extend`] then adds each input.
pub struct KeyBuilder<'a> {
    recipe: Recipe<'a>,
    /// Bytes that are not hashed yet.
    gathered: Vec<u8>,
    /// Hasher of all earlier bytes, once they exceed the buffer.
    begun: Option<Box<blake3::Hasher>>,
}

/// Method that turns the parts into a key.
enum Recipe<'a> {
    Plain,
    Keyed([u8; 32]),
    Passing(&'a PassingSecret),
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
    pub fn passing(secret: &'a PassingSecret) -> Self {
        Self::start(Recipe::Passing(secret))
    }

    fn start(recipe: Recipe<'a>) -> Self {
        let mut gathered = Vec::with_capacity(GATHERED_BYTES);
        gathered.extend_from_slice(RECIPE);
        Self { recipe, gathered, begun: None }
    }

    /// Adds one part.
    pub fn part(&mut self, tag: Tag, bytes: &[u8]) -> &mut Self {
        let head = part_head(tag, bytes.len());
        if self.gathered.len() + PART_HEAD_BYTES + bytes.len() <= GATHERED_BYTES {
            self.gathered.extend_from_slice(&head);
            self.gathered.extend_from_slice(bytes);
        } else {
            self.add(&head);
            self.add(bytes);
        }
        self
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() <= GATHERED_BYTES {
            self.gathered.extend_from_slice(bytes);
            return;
        }
        let start = match &self.recipe {
            Recipe::Plain => None,
            Recipe::Keyed(secret) => Some(secret),
            Recipe::Passing(secret) => {
                // The bytes before the MAC determine that it follows, because they include the length of the part. The
                // encoding stays unambiguous.
                self.gathered.extend_from_slice(&secret.mac(bytes));
                return;
            }
        };
        let start = || Box::new(start.map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed));
        self.begun.get_or_insert_with(start).update(&self.gathered).update(bytes);
        self.gathered.clear();
    }

    /// Returns the key of all parts so far.
    pub fn finish(&self) -> Key {
        let hash = match (&self.begun, &self.recipe) {
            (Some(begun), _) => begun.clone().update(&self.gathered).finalize(),
            (None, Recipe::Plain) => blake3::hash(&self.gathered),
            (None, Recipe::Keyed(secret)) => blake3::keyed_hash(secret, &self.gathered),
            (None, Recipe::Passing(secret)) => return Key::of_mac(secret.mac(&self.gathered)),
        };
        Key(*hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn extending_keeps_context_tag_and_bytes_apart() {
        let context = key(&[(Tag::Model, b"m")]);
        let text = context.extend(Tag::Text, b"[1,2]");
        assert_eq!(text, context.extend(Tag::Text, b"[1,2]"));
        assert_ne!(text, context.extend(Tag::Tokens, b"[1,2]"));
        assert_ne!(text, key(&[(Tag::Model, b"n")]).extend(Tag::Text, b"[1,2]"));
    }

    #[test]
    fn passing_keys_are_equal_exactly_for_equal_parts_under_one_secret() {
        let (secret, other) = (PassingSecret::new(), PassingSecret::new());
        let lengths = [0, 1, 15, 16, 900, 940, 941, 960, 5_000, 100_000];
        let key = |secret: &PassingSecret, length: usize, last: u8| {
            let mut bytes = vec![7; length];
            bytes.push(last);
            KeyBuilder::passing(secret).part(Tag::Model, b"m").part(Tag::Body, &bytes).finish()
        };
        let keys: Vec<Key> = lengths.iter().flat_map(|length| [1, 2].map(|last| key(&secret, *length, last))).collect();
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        for (place, length) in lengths.iter().enumerate() {
            assert_eq!(keys[2 * place], key(&secret, *length, 1), "{length}");
            assert_ne!(keys[2 * place], key(&other, *length, 1), "{length}");
        }
        let halves = KeyBuilder::passing(&secret).part(Tag::Model, b"m7").part(Tag::Body, &[1]).finish();
        assert_ne!(halves, key(&secret, 1, 1));
    }

    #[test]
    fn an_extended_key_is_the_hash_of_context_and_part_however_long_it_is() {
        let context = key(&[(Tag::Model, b"m")]);
        for length in [0, 1, 919, 920, 5_000] {
            let bytes = vec![7; length];
            let row = [context.as_bytes().as_slice(), &part_head(Tag::Text, length), &bytes].concat();
            assert_eq!(context.extend(Tag::Text, &bytes).as_bytes(), blake3::hash(&row).as_bytes(), "{length}");
        }
    }

    #[test]
    fn a_secret_changes_every_key() {
        let plain = KeyBuilder::new(None).finish();
        let keyed = KeyBuilder::new(Some(&Secret::new("s3cret"))).finish();
        assert_ne!(plain, keyed);
        assert_ne!(keyed, KeyBuilder::new(Some(&Secret::new("other"))).finish());
    }

    #[test]
    fn a_key_is_the_hash_of_its_parts_in_a_row_however_long_they_are() {
        let secret = Secret::new("s3cret");
        let derived = blake3::derive_key("vecho 2026 cache key secret", b"s3cret");
        for lengths in [[0, 5, 7], [922, 0, 0], [940, 1, 1], [10, 5_000, 30], [2_000, 2_000, 1_000]] {
            let (mut plain, mut keyed) = (KeyBuilder::new(None), KeyBuilder::new(Some(&secret)));
            let mut row = RECIPE.to_vec();
            for (fill, length) in (1..).zip(lengths) {
                let bytes = vec![fill; length];
                plain.part(Tag::Text, &bytes);
                keyed.part(Tag::Text, &bytes);
                row.extend_from_slice(&part_head(Tag::Text, length));
                row.extend_from_slice(&bytes);
            }
            assert_eq!(plain.finish().as_bytes(), blake3::hash(&row).as_bytes(), "{lengths:?}");
            assert_eq!(keyed.finish().as_bytes(), blake3::keyed_hash(&derived, &row).as_bytes(), "{lengths:?}");
        }
    }

    const TAGS: [Tag; 3] = [Tag::Model, Tag::Text, Tag::Tokens];

    /// Index of a tag in [`TAGS`], and bytes.
    type OwnedPart = (usize, Vec<u8>);

    /// Generates sequences from few tags and bytes, so equal and nearly equal sequences are common.
    fn sequences() -> impl Strategy<Value = Vec<OwnedPart>> {
        prop::collection::vec((0..TAGS.len(), prop::collection::vec(0_u8..2, 0..3)), 0..4)
    }

    fn key_of(parts: &[OwnedPart]) -> Key {
        key(&parts.iter().map(|(tag, bytes)| (TAGS[*tag], bytes.as_slice())).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn two_keys_are_equal_exactly_if_their_parts_are(one in sequences(), other in sequences()) {
            prop_assert_eq!(key_of(&one) == key_of(&other), one == other);
        }

        #[test]
        fn a_part_that_spells_two_others_is_another_key(parts in sequences(), more in sequences()) {
            let mut spelt = Vec::new();
            for (tag, bytes) in &more {
                spelt.extend_from_slice(&part_head(TAGS[*tag], bytes.len()));
                spelt.extend_from_slice(bytes);
            }
            let mut one = parts.clone();
            one.push((0, spelt));
            let mut other = parts;
            other.push((0, Vec::new()));
            other.extend(more.clone());
            prop_assert_eq!(key_of(&one) == key_of(&other), more.is_empty());
        }

        #[test]
        fn extended_keys_are_equal_exactly_if_context_tag_and_bytes_are(
            one in (sequences(), 0..TAGS.len(), prop::collection::vec(0_u8..2, 0..3)),
            other in (sequences(), 0..TAGS.len(), prop::collection::vec(0_u8..2, 0..3)),
        ) {
            let extended = |(context, tag, bytes): &(Vec<OwnedPart>, usize, Vec<u8>)| {
                key_of(context).extend(TAGS[*tag], bytes)
            };
            prop_assert_eq!(extended(&one) == extended(&other), one == other);
        }
    }
}

use proptest::prelude::*;

use super::builder::RECIPE;
use super::part::part_head;
use super::*;
use crate::config::Secret;

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
    let (secret, other) = (ProcessSecret::new(), ProcessSecret::new());
    let lengths = [0, 1, 15, 16, 900, 940, 941, 960, 5_000, 100_000];
    let key = |secret: &ProcessSecret, length: usize, last: u8| {
        let mut bytes = vec![7; length];
        bytes.push(last);
        KeyBuilder::of_process(secret).part(Tag::Model, b"m").part(Tag::Body, &bytes).finish()
    };
    let keys: Vec<Key> = lengths.iter().flat_map(|length| [1, 2].map(|last| key(&secret, *length, last))).collect();
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    for (place, length) in lengths.iter().enumerate() {
        assert_eq!(keys[2 * place], key(&secret, *length, 1), "{length}");
        assert_ne!(keys[2 * place], key(&other, *length, 1), "{length}");
    }
    let halves = KeyBuilder::of_process(&secret).part(Tag::Model, b"m7").part(Tag::Body, &[1]).finish();
    assert_ne!(halves, key(&secret, 1, 1));
}

#[test]
fn an_extended_key_is_the_hash_of_context_and_part_at_any_length() {
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
fn a_key_is_the_hash_of_its_concatenated_parts_at_any_length() {
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
    fn a_part_that_encodes_two_parts_gives_another_key(parts in sequences(), more in sequences()) {
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

//! The fixed texts, and the keys of their vectors.

use crate::key::{Key, Tag};

/// The texts. They never change, because a stored vector of an older version of vecho must stay comparable. They are
/// short, and differ in language and kind, so a change of the model shows in each.
pub(in crate::flow) const TEXTS: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog.",
    "fn area(width: u32, height: u32) -> u32 { width * height }",
    "Nach dem Regen ist die Straße nass. 雨の後、道は濡れている。",
];

/// Returns the keys of the texts in a space. No request has such a key.
pub(in crate::flow) fn keys(space: &Key) -> Vec<Key> {
    TEXTS.iter().map(|text| space.extend(Tag::Control, b"canary").extend(Tag::Text, text.as_bytes())).collect()
}

//! File format of purge counts and unsent purges: `"vecho purges 1\n\n"`, then the count (8), the length of the name
//! (4) and the name for each entry, then a checksum (16) over all of it. Numbers are little-endian.
//!
//! If there are unsent purges, the file begins with `"vecho purges 2\n\n"` and the number of counts (8). The unsent
//! purges follow the counts in the same form. If there are forgotten keys, the file begins with `"vecho purges 3\n\n"`,
//! their number (8) and the number of counts (8). Then come the count (8) and the key (32) of each, and the rest as in
//! version 2. Without either the file has version 1, which every version of this program can read.

use super::checksum::{CHECKSUM_BYTES, checksum, cut};
use crate::cache::purges::{ForgottenKeys, PurgeCounts, SavedPurges};
use crate::key::Key;

const MAGIC: [u8; 16] = *b"vecho purges 1\n\n";
const MAGIC_WITH_UNSENT: [u8; 16] = *b"vecho purges 2\n\n";
const MAGIC_WITH_KEYS: [u8; 16] = *b"vecho purges 3\n\n";

pub(super) fn to_bytes(noted: &SavedPurges) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !noted.forgotten.is_empty() {
        bytes.extend_from_slice(&MAGIC_WITH_KEYS);
        bytes.extend_from_slice(&(noted.forgotten.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(noted.counts.len() as u64).to_le_bytes());
        for (key, count) in &noted.forgotten {
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
        }
    } else if noted.unsent.is_empty() {
        bytes.extend_from_slice(&MAGIC);
    } else {
        bytes.extend_from_slice(&MAGIC_WITH_UNSENT);
        bytes.extend_from_slice(&(noted.counts.len() as u64).to_le_bytes());
    }
    for (name, count) in noted.counts.iter().chain(&noted.unsent) {
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    let sum = checksum(&[&bytes]);
    bytes.extend_from_slice(&sum);
    bytes
}

/// Decodes the file; `None` if the bytes are damaged or of another version.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<SavedPurges> {
    let (sealed, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let mut rest = sealed;
    if checksum(&[sealed]) != sum {
        return None;
    }
    let (keys, counts) = match cut(&mut rest)? {
        // Version 1 has no unsent purges: all entries of the file are counts.
        MAGIC => (0, u64::MAX),
        MAGIC_WITH_UNSENT => (0, u64::from_le_bytes(cut(&mut rest)?)),
        MAGIC_WITH_KEYS => (u64::from_le_bytes(cut(&mut rest)?), u64::from_le_bytes(cut(&mut rest)?)),
        _ => return None,
    };
    let forgotten = forgotten(&mut rest, keys)?;
    Some(SavedPurges { forgotten, counts: names(&mut rest, counts)?, unsent: names(&mut rest, u64::MAX)? })
}

fn forgotten(rest: &mut &[u8], keys: u64) -> Option<ForgottenKeys> {
    let mut forgotten = ForgottenKeys::new();
    for _ in 0..keys {
        let count = u64::from_le_bytes(cut(rest)?);
        forgotten.insert(Key::from_bytes(cut(rest)?), count);
    }
    Some(forgotten)
}

/// Decodes names with their counts, `most` of them or as many as there are.
fn names(rest: &mut &[u8], most: u64) -> Option<PurgeCounts> {
    let mut counts = PurgeCounts::new();
    while !rest.is_empty() && (counts.len() as u64) < most {
        let count = u64::from_le_bytes(cut(rest)?);
        let length = usize::try_from(u32::from_le_bytes(cut(rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        counts.insert(std::str::from_utf8(name).ok()?.to_owned(), count);
        *rest = after;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::purges::UnsentPurges;

    #[test]
    fn saved_purges_round_trip_and_every_flipped_bit_is_detected() {
        let counts = PurgeCounts::from([(String::new(), 3), ("text-embedding-3-small".to_owned(), 1 << 40)]);
        let some = UnsentPurges::from([("everything".to_owned(), 2), ("model:m".to_owned(), 1)]);
        let keys = ForgottenKeys::from([(Key::from_bytes([1; 32]), 7), (Key::from_bytes([2; 32]), 1 << 41)]);
        let cases = [(UnsentPurges::new(), ForgottenKeys::new()), (some.clone(), ForgottenKeys::new()), (some, keys)];
        for (unsent, forgotten) in cases {
            let noted = SavedPurges { counts: counts.clone(), forgotten, unsent };
            let bytes = to_bytes(&noted);
            assert_eq!(from_bytes(&bytes), Some(noted));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(from_bytes(&damaged), None, "bit {bit}");
            }
        }
        assert_eq!(from_bytes(&to_bytes(&SavedPurges::default())), Some(SavedPurges::default()));
        assert_eq!(from_bytes(b""), None);
    }

    #[test]
    fn a_file_without_unsent_purges_has_the_format_of_version_1() {
        let with_unsent =
            SavedPurges { unsent: UnsentPurges::from([("everything".to_owned(), 1)]), ..SavedPurges::default() };
        assert_eq!(to_bytes(&SavedPurges::default())[..16], MAGIC);
        assert_eq!(to_bytes(&with_unsent)[..16], MAGIC_WITH_UNSENT);
    }
}

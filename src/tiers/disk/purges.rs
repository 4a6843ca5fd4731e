//! The counts of purges as a file: `"vecho purges 1\n\n"`, then for each name its count (8), its length (4) and itself,
//! then a checksum (16) over all of it. Numbers are little-endian.

use super::checksum::{CHECKSUM_BYTES, checksum, cut};
use crate::epochs::PurgeCounts;

const MAGIC: [u8; 16] = *b"vecho purges 1\n\n";

pub(super) fn to_bytes(counts: &PurgeCounts) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, count) in counts {
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    let sum = checksum(&[&bytes]);
    bytes.extend_from_slice(&sum);
    bytes
}

/// Nothing if the bytes are damaged or of another version.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<PurgeCounts> {
    let (sealed, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let mut rest = sealed;
    if checksum(&[sealed]) != sum || cut(&mut rest)? != MAGIC {
        return None;
    }
    let mut counts = PurgeCounts::new();
    while !rest.is_empty() {
        let count = u64::from_le_bytes(cut(&mut rest)?);
        let length = usize::try_from(u32::from_le_bytes(cut(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        counts.insert(std::str::from_utf8(name).ok()?.to_owned(), count);
        rest = after;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_back_and_any_flipped_bit_is_seen() {
        let counts = PurgeCounts::from([(String::new(), 3), ("text-embedding-3-small".to_owned(), 1 << 40)]);
        let bytes = to_bytes(&counts);
        assert_eq!(from_bytes(&bytes), Some(counts));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(from_bytes(&damaged), None, "bit {bit}");
        }
        assert_eq!(from_bytes(&to_bytes(&PurgeCounts::new())), Some(PurgeCounts::new()));
        assert_eq!(from_bytes(b""), None);
    }
}

//! What tells damaged bytes of the store's own from whole ones.

/// Enough that damage is never taken for sense by accident.
pub(super) const CHECKSUM_BYTES: usize = 16;

/// The checksum of all parts, one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk().expect("a hash must be longer than a checksum")
}

/// Cuts a fixed number of bytes off the front.
pub(super) fn cut<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (front, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*front)
}

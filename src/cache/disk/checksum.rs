//! Checksums of the store's own headers, footers and files.

/// Long enough that damaged bytes never match by accident.
pub(super) const CHECKSUM_BYTES: usize = 16;

/// Returns the checksum of all parts in sequence.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk().expect("a hash must be longer than a checksum")
}

/// Removes a fixed number of bytes from the front of a slice and returns them.
pub(super) fn cut<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (front, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*front)
}

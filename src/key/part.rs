//! Parts of a key, and the bytes that separate them in the hash.

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
    /// Name of a claim of a bearer token.
    Claim = 16,
    /// Text of a claim.
    ClaimText = 17,
    /// Number of the texts of a claim that is a list, as eight little-endian bytes.
    ClaimTexts = 18,
}

/// Tag and length in front of the bytes of a part.
pub(super) const PART_HEAD_BYTES: usize = 9;

/// Up to this size, the parts of a key are collected and hashed in one call, because each update of a hasher has a
/// fixed cost. Allocators have a size class of up to 1 KB.
pub(super) const BUFFER_BYTES: usize = 960;

/// Returns the tag and the length that are hashed in front of a part.
pub(super) fn part_head(tag: Tag, length: usize) -> [u8; PART_HEAD_BYTES] {
    let mut head = [0_u8; PART_HEAD_BYTES];
    head[0] = tag as u8;
    head[1..].copy_from_slice(&(length as u64).to_le_bytes());
    head
}

//! Parses the body of an embeddings request within the memory of its admission.

use super::admission::Admission;
use super::intake::path_model;
use crate::config::Config;
use crate::flow::RequestOrigin;
use crate::upstream::classify_path;
use crate::wire::{Bypass, BypassCause, EmbedRequest, read_request, reading_bytes};

/// Reason why a body was not parsed.
pub(super) enum Unread {
    /// There is no memory for it.
    NoRoom,
    /// The request cannot be cached.
    Bypass(BypassCause),
}

impl From<Unread> for BypassCause {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::NoRoom => Bypass::TooLarge.into(),
            Unread::Bypass(cause) => cause,
        }
    }
}

/// Parses a body. The admission first covers the memory for the parser, then the memory for the answer. `other_bytes`
/// are needed with each of them.
pub(super) fn read_admitted<'b>(
    (body, other_bytes): (&'b [u8], usize),
    config: &Config,
    origin: &RequestOrigin<'_>,
    admission: &mut Admission,
) -> Result<EmbedRequest<'b>, Unread> {
    let held_bytes = admission.held_bytes();
    if !admission.reserve(reading_bytes(body) + other_bytes) {
        return Err(Unread::NoRoom);
    }
    let request = read_request(body, &config.cache.extra_fields, path_model(classify_path(origin.uri.path())));
    // The parser has finished, so its memory is no longer reserved.
    admission.reduce_to(held_bytes);
    let request = request.map_err(Unread::Bypass)?;
    if !admission.reserve(request.answering_bytes(body.len()) + other_bytes) {
        return Err(Unread::NoRoom);
    }
    Ok(request)
}

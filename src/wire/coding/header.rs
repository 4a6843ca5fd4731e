//! The `Content-Encoding` header.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Maximum number of codings of one body. Each one costs a pass over the body.
pub(super) const MAX_CODINGS: usize = 3;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, `x-gzip`: RFC 1952, one or more members.
    Gzip,
    /// `deflate`: RFC 1950; raw RFC 1951 is accepted because some servers send it.
    Deflate,
    /// `br`: RFC 7932.
    Brotli,
    /// `zstd`: RFC 8878, with the window limit of RFC 9659.
    Zstd,
}

/// Returns the content codings that these headers name, in the order in which they were applied. The list is empty for
/// a plain body. Returns `None` if a coding is unknown or if there are too many.
pub fn content_codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is_plain = name.is_empty() || name.eq_ignore_ascii_case(b"identity");
            if !is_plain {
                codings.push(Coding::named(name)?);
            }
        }
    }
    (codings.len() <= MAX_CODINGS).then_some(codings)
}

impl Coding {
    /// Returns the coding with this name, in any case.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        const NAMES: [(&str, Coding); 5] = [
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br", Coding::Brotli),
            ("zstd", Coding::Zstd),
        ];
        NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(_, coding)| *coding)
    }
}

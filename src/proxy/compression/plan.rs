//! Decides whether the answer to a request may be compressed, and in which coding.

use http::HeaderMap;

use crate::config::CompressionMode;
use crate::wire::{AcceptedCodings, ChosenCoding, PREFERRED_CODINGS};

/// Compression of the answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum CompressionPlan {
    /// Answers to this caller are plain, whatever it accepts.
    Unavailable,
    /// The caller's headers decide. `None` is a plain answer.
    Negotiated(Option<ChosenCoding>),
}

impl CompressionPlan {
    /// Returns the plan for a caller with these headers.
    pub(in crate::proxy) fn new(mode: CompressionMode, caller_is_near: bool, headers: &HeaderMap) -> Self {
        let is_available = match mode {
            CompressionMode::Auto => !caller_is_near,
            CompressionMode::On => true,
            CompressionMode::Off => false,
        };
        // A hit of a caller nearby is answered without a look at the header.
        if is_available {
            Self::Negotiated(AcceptedCodings::of(headers).choose(&PREFERRED_CODINGS))
        } else {
            Self::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, HeaderValue};

    use super::*;
    use crate::wire::AnswerCoding;

    #[test]
    fn only_distant_callers_get_compressed_answers_unless_the_mode_is_fixed() {
        let accepting = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        let gzip = CompressionPlan::Negotiated(Some(ChosenCoding { coding: AnswerCoding::Gzip, refuses_plain: false }));
        for (mode, near, distant) in [
            (CompressionMode::Auto, CompressionPlan::Unavailable, gzip),
            (CompressionMode::On, gzip, gzip),
            (CompressionMode::Off, CompressionPlan::Unavailable, CompressionPlan::Unavailable),
        ] {
            let plans = [true, false].map(|is_near| CompressionPlan::new(mode, is_near, &accepting));
            assert_eq!(plans, [near, distant], "{mode:?}");
        }
    }
}

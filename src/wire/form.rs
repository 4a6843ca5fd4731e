//! Spelling of a request. Different spellings mean the same to OpenAI's service, but not to every compatible server.

use super::Encoding;

/// Spelling of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestForm {
    /// True if `input` is one text or one token array, not a list of them.
    pub is_single: bool,
    /// `encoding_format` as written.
    pub encoding: WrittenEncoding,
    /// True if `dimensions` is present and null.
    pub has_null_dimensions: bool,
    /// True if `user` is present and null.
    pub has_null_user: bool,
}

/// `encoding_format` as written in a request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WrittenEncoding {
    /// The member is absent.
    #[default]
    Absent,
    /// The member is null.
    Null,
    /// The member has this value.
    Value(Encoding),
}

impl WrittenEncoding {
    /// Returns the encoding in which the service answers.
    pub const fn meaning(self) -> Encoding {
        match self {
            Self::Absent | Self::Null => Encoding::Float,
            Self::Value(encoding) => encoding,
        }
    }
}

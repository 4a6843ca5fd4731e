//! Spelling of a request, which means the same to the service of OpenAI but not to every server like it.

use super::Encoding;

/// Spelling of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestForm {
    /// `input` is one text or one token array, not a list of them.
    pub is_single: bool,
    /// `encoding_format` as it is written.
    pub encoding: WrittenEncoding,
    /// `dimensions` is present and null.
    pub has_null_dimensions: bool,
    /// `user` is present and null.
    pub has_null_user: bool,
}

/// `encoding_format` as it is written in a request body.
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
    /// The encoding that the service answers in.
    pub const fn meaning(self) -> Encoding {
        match self {
            Self::Absent | Self::Null => Encoding::Float,
            Self::Value(encoding) => encoding,
        }
    }
}

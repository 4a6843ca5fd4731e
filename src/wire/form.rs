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

impl RequestForm {
    /// Returns bytes that are equal for equal forms only.
    pub const fn to_bytes(self) -> [u8; 4] {
        let encoding = match self.encoding {
            WrittenEncoding::Absent => 0,
            WrittenEncoding::Null => 1,
            WrittenEncoding::Value(Encoding::Float) => 2,
            WrittenEncoding::Value(Encoding::Base64) => 3,
        };
        [self.is_single as u8, encoding, self.has_null_dimensions as u8, self.has_null_user as u8]
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn different_forms_have_different_bytes() {
        let encodings = [
            WrittenEncoding::Absent,
            WrittenEncoding::Null,
            WrittenEncoding::Value(Encoding::Float),
            WrittenEncoding::Value(Encoding::Base64),
        ];
        let mut seen = BTreeSet::new();
        for encoding in encodings {
            for bits in 0..8_u8 {
                let [is_single, has_null_dimensions, has_null_user] = [1, 2, 4].map(|bit| bits & bit > 0);
                let form = RequestForm { is_single, encoding, has_null_dimensions, has_null_user };
                assert!(seen.insert(form.to_bytes()), "{form:?}");
            }
        }
    }
}

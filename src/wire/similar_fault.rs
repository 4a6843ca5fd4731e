//! Faults of similarity requests.

use super::{Bypass, BypassCause, MAX_INPUT_TOKENS};

/// Fault of a similarity request: a message for people, and the member that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SimilarFault {
    message: String,
    /// The member.
    pub param: Option<&'static str>,
    /// True if an entry has more tokens than its model takes.
    pub is_too_long: bool,
}

impl SimilarFault {
    /// Creates a fault.
    pub fn new(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { message: message.into(), param, is_too_long: false }
    }

    /// Creates the fault of an entry that is too long: the one at `place` of a list, or the whole member. Without a
    /// member, it is any of them.
    pub fn too_long(member: Option<&'static str>, place: Option<usize>) -> Self {
        let entry = place.map_or_else(String::new, |place| format!("[{place}]"));
        let member_name = member.unwrap_or("An entry of query or candidates");
        let message = format!("{member_name}{entry} has more than {MAX_INPUT_TOKENS} tokens (limits.long_input).");
        Self { is_too_long: true, ..Self::new(member, message) }
    }

    /// Creates a fault of a member, whose name begins the message.
    pub(super) fn of(param: &'static str, message: &str) -> Self {
        Self::new(Some(param), format!("{param} {message}"))
    }
}

/// Explains why an embeddings request of these candidates would not be cached. Such requests cannot be ranked.
impl From<BypassCause> for SimilarFault {
    fn from(cause: BypassCause) -> Self {
        let member = match cause.subject() {
            Some((_, "input")) => "An entry of query or candidates",
            Some((_, name)) => name,
            None => "a member",
        };
        let message = match cause.reason {
            Bypass::NotJson => "The body is not a JSON object.".to_owned(),
            Bypass::LoneSurrogate => "A text has half of a surrogate pair.".to_owned(),
            Bypass::DuplicateKey => format!("{member} occurs twice."),
            Bypass::UnknownField => {
                format!("{member} may change the vectors. Remove it, or name it in cache.extra_fields.")
            }
            Bypass::WrongType => format!("{member} has a type or a value that is not allowed."),
            reason => format!("The inputs cannot be embedded through the cache: {}.", reason.label()),
        };
        Self::new(None, message)
    }
}

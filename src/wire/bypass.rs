//! Reason of a bypass, with the member or path that caused it.

pub use crate::observe::metrics::Bypass;

/// Maximum number of characters of a member or path that are shown.
const MAX_CHARS: usize = 100;

/// Reason why a request passes through uncached, and the member or path that caused it, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BypassCause {
    /// The reason.
    pub reason: Bypass,
    subject: Option<(&'static str, String)>,
}

impl BypassCause {
    /// Creates a cause in the member `name` of the body. Reasons that concern the whole body ignore the name.
    pub fn in_member(reason: Bypass, name: Option<String>) -> Self {
        let names_member = matches!(reason, Bypass::UnknownField | Bypass::WrongType | Bypass::DuplicateKey);
        Self { reason, subject: name.filter(|_| names_member).map(|name| ("member", shown(&name))) }
    }

    /// Creates the cause for a path that is similar to `/embeddings`.
    pub fn other_path(path: &str) -> Self {
        Self { reason: Bypass::OtherPath, subject: Some(("path", shown(path))) }
    }

    /// Returns `member` or `path`, and its shortened text.
    pub fn subject(&self) -> Option<(&'static str, &str)> {
        self.subject.as_ref().map(|(kind, text)| (*kind, text.as_str()))
    }

    /// Returns the value of `x-vecho-bypass-reason`: a token, and the subject as a parameter with a quoted
    /// string (RFC 9651).
    pub fn header_text(&self) -> String {
        let mut text = self.reason.label().to_owned();
        if let Some((kind, subject)) = &self.subject {
            text.extend(["; ", kind, "=\""]);
            for letter in subject.chars() {
                match letter {
                    '"' | '\\' => text.extend(['\\', letter]),
                    // RFC 9651, section 3.3.3: a string holds only printable ASCII.
                    ' '..='~' => text.push(letter),
                    _ => text.push('?'),
                }
            }
            text.push('"');
        }
        text
    }
}

impl From<Bypass> for BypassCause {
    fn from(reason: Bypass) -> Self {
        Self { reason, subject: None }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> String {
        BypassCause::in_member(Bypass::UnknownField, Some(name.to_owned())).header_text()
    }

    #[test]
    fn the_header_states_the_reason_and_its_subject() {
        assert_eq!(member("late_chunking"), r#"unknown_field; member="late_chunking""#);
        assert_eq!(BypassCause::other_path("/api/embed").header_text(), r#"other_path; path="/api/embed""#);
        assert_eq!(BypassCause::from(Bypass::NotJson).header_text(), "not_json");
        assert_eq!(BypassCause::in_member(Bypass::NotJson, Some("input".to_owned())), Bypass::NotJson.into());
    }

    #[test]
    fn a_subject_is_shortened_escaped_and_quoted() {
        assert_eq!(member("a\"b\\c"), r#"unknown_field; member="a\"b\\c""#);
        assert_eq!(member("a\r\nb\u{7f}\u{e9}"), r#"unknown_field; member="a??b??""#);
        assert_eq!(member(&"x".repeat(10_000)).len(), "unknown_field; member=\"\"".len() + MAX_CHARS);
    }
}

//! Result of one check.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::app::Advice;

/// Timeout of each network step.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Verdict of a check, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckVerdict {
    Ok,
    Warning,
    Fault,
}

/// Result of a check: one line of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CheckResult {
    pub(super) check: &'static str,
    pub(super) verdict: CheckVerdict,
    /// The observation. Never contains a secret.
    pub(super) message: String,
    /// An action of the reader, as a clause that begins with a verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl CheckResult {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: CheckVerdict::Ok, message: message.into(), remedy: None }
    }

    pub(super) fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: CheckVerdict::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn fault(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: CheckVerdict::Fault, ..Self::warning(check, message, remedy) }
    }
}

impl From<Advice> for CheckResult {
    fn from(advice: Advice) -> Self {
        Self::warning(advice.subject, advice.message, advice.remedy)
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            CheckVerdict::Ok => "ok",
            CheckVerdict::Warning => "warning",
            CheckVerdict::Fault => "fault",
        };
        write!(f, "{verdict:<8} {:<14} {}", self.check, self.message)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

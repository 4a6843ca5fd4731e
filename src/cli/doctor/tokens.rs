//! Tokens of the callers of a running vecho.

use super::check::CheckResult;
use super::ports::RunningVecho;

/// Warns if each new token of a caller begins with an empty cache. Says nothing otherwise.
pub(super) fn check(running: &RunningVecho) -> Option<CheckResult> {
    let callers = running.rotating_callers;
    (callers > 0).then(|| {
        let message = format!(
            "{callers} callers of the running vecho renew their tokens, and each new token begins with an empty cache"
        );
        let remedy = "set auth.identity to token (for opaque tokens cache.scope to shared), and restart vecho";
        CheckResult::warning("tokens", message, remedy)
    })
}

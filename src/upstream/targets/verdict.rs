//! What the failure of a call at one place means for the other places, and for the caller.

use std::time::Duration;

use super::place::TargetPlace;
use crate::upstream::{Class, Failure, UnavailableReason, UriTooLong};
use crate::wire::AnswerFault;

/// Removes an answer that vecho cannot read, unless it is the first target's: callers would read it as one of that.
pub(super) fn as_seen_by_callers(failure: Failure, place: &TargetPlace) -> Failure {
    let is_foreign = place.index > 0 && matches!(failure.class, Class::InvalidAnswer(..));
    if is_foreign { Failure { reply: None, ..failure } } else { failure }
}

/// Returns the failure of a comparison as that of a request: what a place answers to the texts of vecho's own is no
/// answer to it, except for a refusal of the key or of the model.
pub(super) fn of_comparison(failure: Failure) -> Failure {
    let is_own = match failure.class {
        Class::InvalidAnswer(..) => true,
        Class::Refused => !moves_on(&failure),
        _ => false,
    };
    if is_own { Failure { reply: None, ..failure } } else { failure }
}

/// Returns true if another place may answer where this one failed. A refusal of the request itself is its answer; one
/// of the target's own key, or of its models, is not.
pub(super) fn moves_on(failure: &Failure) -> bool {
    let status = failure.reply.as_ref().map_or(0, |reply| reply.status.as_u16());
    match failure.class {
        // The first three depend on the request and on this process. A budget covers the calls to all targets.
        Class::InvalidAnswer(AnswerFault::TooLarge | AnswerFault::NoRoom | AnswerFault::OtherDimension(_), _)
        | Class::OverBudget(_) => false,
        Class::Throttled | Class::NotInTime { .. } | Class::InvalidAnswer(..) => true,
        Class::Refused => matches!(status, 401 | 403 | 404),
        Class::Unavailable(reason) => !matches!(
            reason,
            UnavailableReason::Timeout
                | UnavailableReason::MergeTimeout
                | UnavailableReason::Expired
                | UnavailableReason::Stopping
        ),
    }
}

/// Returns the failure that says more of the request: an answer before an outage.
pub(super) fn worse(last: Option<Failure>, failure: Failure) -> Failure {
    match last {
        Some(last) if last.outage.is_none() && failure.outage.is_some() => last,
        // The target that admits calls sooner says how long the caller has to wait.
        Some(last) if is_limit(&last) && is_limit(&failure) && named(&last) < named(&failure) => last,
        // Without its reply, an answer that cannot be read says nothing.
        Some(last) if matches!(failure.class, Class::InvalidAnswer(..)) && failure.reply.is_none() => last,
        _ => failure,
    }
}

/// Returns the time that a place has named. One that has named none may take as long as it likes.
fn named(failure: &Failure) -> Duration {
    failure.retry_after().unwrap_or(Duration::MAX)
}

/// Returns true if a place limits the rate.
pub(super) const fn is_limit(failure: &Failure) -> bool {
    matches!(failure.class, Class::Throttled | Class::NotInTime { .. })
}

/// Returns the failure of a call that no place serves.
pub(super) fn no_target() -> Failure {
    let detail = "no target serves this model at present; `explain` on the ops port gives the state of each";
    Failure::unavailable(UnavailableReason::Status, detail)
}

/// Returns the failure of a call that has waited at a place: a refusal of a target says more than a turn that comes too
/// late.
pub(super) fn not_in_time(failure: Failure, last: Option<Failure>) -> Failure {
    match (failure.class, last) {
        (Class::NotInTime { .. }, Some(refused)) if refused.class == Class::Throttled => refused,
        _ => failure,
    }
}

pub(super) fn too_long(error: UriTooLong) -> Failure {
    Failure::unavailable(UnavailableReason::Status, error.to_string())
}

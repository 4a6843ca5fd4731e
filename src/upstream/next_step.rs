//! The next step after a failed attempt of a call.

use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{HostFault, Pass};
use super::call::Call;
use super::retry::backoff;
use super::{Class, Failure, UnavailableReason};
use crate::config::Config;
use crate::observe::metrics::RetryReason;
use crate::process::random;

/// A failure that took longer than this is not repeated here.
const SLOW_FAILURE: Duration = Duration::from_secs(1);

/// Longest wait that an upstream may ask for if `retry.max_wait` is shorter.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(5);

/// Next step after a failed attempt.
pub(super) enum NextStep {
    GiveUp,
    RetryAfter(Duration, RetryReason),
    /// The call is repeated when the rate limits of the service admit it.
    WaitForTurn,
}

/// Number of refusals up to which a call is repeated before the calls that wait for their first turn.
pub(super) const FIRST_AGAIN: u32 = 2;

/// Attempts of a call so far.
#[derive(Default)]
pub(super) struct Tries {
    pub(super) attempts: u32,
    /// Number of refusals for the rate after which it waited for another turn.
    pub(super) held: u32,
    /// Time of the first of them.
    pub(super) first_held: Option<Instant>,
    /// True if it was repeated because its connection ended.
    reconnected: bool,
    /// True if it was repeated because the upstream reset its stream.
    resent: bool,
}

impl Tries {
    /// Returns the number of free repetitions, which do not count as attempts.
    fn free(&self) -> u32 {
        u32::from(self.reconnected) + u32::from(self.resent) + self.held
    }

    /// Returns true if the call may be repeated for free. One reason does not use up the repetition of the other: a
    /// stream may be reset on a connection that then ends.
    fn repeat_free(&mut self, class: Class) -> bool {
        let repeated = match class {
            Class::Unavailable(UnavailableReason::Dropped) => &mut self.reconnected,
            Class::Unavailable(UnavailableReason::Reset) => &mut self.resent,
            _ => return false,
        };
        !std::mem::replace(repeated, true)
    }
}

impl Call<'_> {
    /// Tells the breaker what a failed attempt says about the host.
    pub(super) fn tell(&self, pass: Pass<'_>, failure: &Failure, (next, config): (&NextStep, &Config)) {
        match (next, failure.class) {
            // These prove nothing about the host: a kept connection that was closed at the same moment, an answer that
            // takes long, and a failure that one of several requests may have caused.
            (NextStep::RetryAfter(_, RetryReason::ReusedConnection), _)
            | (_, Class::Unavailable(UnavailableReason::Timeout | UnavailableReason::MergeTimeout)) => {
                drop(pass);
            }
            (_, Class::Unavailable(reason)) if reason.has_ended_early() && self.is_merged() => drop(pass),
            (_, Class::Unavailable(reason))
                if reason.has_ended_early()
                    || matches!(reason, UnavailableReason::Connect | UnavailableReason::UpstreamFallback) =>
            {
                let requests: Vec<u64> = self.batch.iter().map(|piece| piece.own().id).collect();
                let (cause, is_unreachable) = (&*failure.detail, reason == UnavailableReason::Connect);
                pass.failed(&config.breaker, &HostFault { cause, is_unreachable, requests: &requests });
            }
            // Refusals, error statuses and unreadable bodies are answers, so the host is reachable.
            _ => pass.answered(),
        }
    }

    /// Returns the next step after a failed attempt, judged by the call itself.
    pub(super) fn next(
        &self,
        failure: &Failure,
        tries: &mut Tries,
        (deadline, took, config): (Instant, Duration, &Config),
    ) -> NextStep {
        // This is typical of a kept connection that the upstream closed at the same moment. It says nothing about the
        // upstream's health, so one repetition is free.
        if tries.repeat_free(failure.class) {
            return NextStep::RetryAfter(Duration::ZERO, RetryReason::ReusedConnection);
        }
        // Each request of a merged call is sent separately next.
        let is_load = failure.class == Class::Throttled && tries.held > 0;
        let is_for_each = self.is_merged() && (is_load || failure.may_be_a_neighbours());
        let attempts_left = tries.attempts < self.attempts + tries.free();
        // Repeating a slow call would take as long again, and the caller's client repeats as well. Without vecho a
        // request has no parts, so calls for parts are repeated here.
        let is_slow = took > SLOW_FAILURE && failure.class != Class::Throttled && !self.is_part;
        if is_for_each || is_slow || !failure.may_be_retried() || !attempts_left {
            return NextStep::GiveUp;
        }
        let reason = if failure.class == Class::Throttled { RetryReason::Throttled } else { RetryReason::Unavailable };
        let wait = match failure.retry_after() {
            // A caller that would have to wait longer gets the failure and decides for itself.
            Some(asked) if asked > config.retry.max_wait.max(LONGEST_ASKED_WAIT) => return NextStep::GiveUp,
            Some(asked) => asked.max(Duration::from_millis(1)),
            None => backoff(&config.retry, tries.attempts + 1 - tries.free(), random::fraction()),
        };
        let in_time = Instant::now().checked_add(wait).is_some_and(|at| at < deadline);
        if in_time { NextStep::RetryAfter(wait, reason) } else { NextStep::GiveUp }
    }
}

//! What is left of limits that the service does not name, as Azure reports it. Bulk calls leave a part of it to
//! interactive ones.
//!
//! The largest report so far stands for the limit. It may be much smaller than that, so it never limits the rate; it
//! only tells bulk calls when to yield. They go on when a report says so. Without calls there are no reports, so one
//! bulk call is tried after a while.

use std::time::Duration;

use tokio::time::Instant;

use super::reported::Resource;

/// If less than the reserve is left for this long, others use it or the limit has been lowered, and yielding does not
/// help. A limit per minute would have been full by then.
const NEVER_FULL: Duration = Duration::from_secs(75);

/// Time without a call after which a bulk call is tried although less than the reserve is left. It is long, because the
/// call may use up much of the reserve of a fixed minute.
const TRIED_AFTER: Duration = Duration::from_secs(10);

/// Reports of each resource without the limit itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remainders {
    known: [Option<Remainder>; 2],
    /// Time of the last call or report.
    used: Option<Instant>,
    /// Tokens of the calls in flight.
    in_flight: usize,
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug)]
struct Remainder {
    /// Largest report.
    most: f64,
    /// Last report.
    reported: f64,
    /// What is left of it after the calls that were begun since.
    left: f64,
    /// True if the last two reports differ. Some services report a value of some seconds ago.
    is_live: bool,
    /// Time of the first of the reports below the reserve.
    scarce_since: Option<Instant>,
}

impl Remainders {
    /// Takes over a report with the answer to a call with this many tokens. `others` are in flight, and the report may
    /// not count them.
    pub(super) fn report(
        &mut self,
        resource: Resource,
        (left, tokens, others): (u64, usize, usize),
        (reserve, now): (f64, Instant),
    ) {
        let ahead = match resource {
            Resource::Requests => others,
            Resource::Tokens => self.in_flight.saturating_sub(tokens),
        };
        let (left, ahead) = (float(left), float(ahead as u64));
        self.used = Some(now);
        let first = Remainder { most: left, reported: left, left, is_live: false, scarce_since: None };
        let known = self.known[resource as usize].get_or_insert(first);
        known.is_live = left.to_bits() != known.reported.to_bits();
        (known.reported, known.left, known.most) = (left, left - ahead, known.most.max(left));
        if left >= reserve * known.most {
            known.scarce_since = None;
        } else if now.saturating_duration_since(*known.scarce_since.get_or_insert(now)) >= NEVER_FULL {
            (known.most, known.scarce_since) = (left, None);
        }
    }

    /// Forgets a resource, because the service names its limit.
    pub(super) const fn forget(&mut self, resource: Resource) {
        self.known[resource as usize] = None;
    }

    /// Counts a call with this many tokens.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) {
        self.used = Some(now);
        self.in_flight += tokens;
        for resource in Resource::ALL {
            if let Some(known) = &mut self.known[resource as usize] {
                known.left -= float(resource.amount(tokens) as u64);
            }
        }
    }

    /// Corrects the tokens of a counted call.
    pub(super) fn correct(&mut self, before: usize, after: usize) {
        self.ended(before);
        self.in_flight += after;
        if let Some(known) = &mut self.known[Resource::Tokens as usize] {
            known.left += float(before as u64) - float(after as u64);
        }
    }

    /// Ends the count of a call in flight.
    pub(super) const fn ended(&mut self, tokens: usize) {
        self.in_flight = self.in_flight.saturating_sub(tokens);
    }

    /// Gives back a call with this many tokens that was not made.
    pub(super) fn give_back(&mut self, tokens: usize) {
        for resource in Resource::ALL {
            if let Some(known) = &mut self.known[resource as usize] {
                known.left += float(resource.amount(tokens) as u64);
            }
        }
    }

    /// Returns the time until a call with this many tokens may be made, if no report comes before.
    pub(super) fn wait(&self, tokens: usize, reserve: f64, now: Instant) -> Duration {
        match self.used {
            Some(used) if !self.admits(tokens, reserve) => {
                TRIED_AFTER.saturating_sub(now.saturating_duration_since(used))
            }
            _ => Duration::ZERO,
        }
    }

    /// Returns true if a call with this many tokens leaves the reserve untouched.
    fn admits(&self, tokens: usize, reserve: f64) -> bool {
        Resource::ALL.into_iter().all(|resource| {
            let amount = float(resource.amount(tokens) as u64);
            let known = self.known[resource as usize];
            // A call that is larger than all of the limit goes when the limit is unused.
            known.is_none_or(|known| {
                let amount = amount.min((1.0 - 2.0 * reserve) * known.most);
                !known.is_live || known.left - amount >= reserve * known.most
            })
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits and tokens are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admits_after(reports: &[(u64, u64)]) -> bool {
        let (mut remainders, begun) = (Remainders::default(), Instant::now());
        for (second, left) in reports {
            let now = begun + SECOND * u32::try_from(*second).expect("it is small");
            remainders.report(Resource::Requests, (*left, 0, 0), (0.1, now));
        }
        remainders.admits(10, 0.1)
    }

    #[test]
    fn a_tenth_of_the_largest_report_is_reserved() {
        assert!(admits_after(&[(0, 100), (1, 11)]));
        assert!(!admits_after(&[(0, 100), (1, 10)]));
        assert!(admits_after(&[(0, 100), (1, 10), (2, 99)]));
    }

    #[test]
    fn a_call_that_is_larger_than_the_limit_goes_when_the_limit_is_unused() {
        let (mut remainders, now) = (Remainders::default(), Instant::now());
        for left in [100, 89] {
            remainders.report(Resource::Tokens, (left, 0, 0), (0.1, now));
        }
        assert!(!remainders.admits(500, 0.1));
        remainders.report(Resource::Tokens, (90, 0, 0), (0.1, now));
        assert!(remainders.admits(500, 0.1));
    }

    #[test]
    fn reports_that_do_not_change_say_nothing() {
        assert!(admits_after(&[(0, 100), (1, 2), (2, 2)]));
        assert!(!admits_after(&[(0, 100), (1, 2), (2, 2), (3, 1)]));
        assert!(admits_after(&[(0, 0)]), "the first report is no limit");
    }

    #[test]
    fn a_limit_that_others_use_up_is_not_reserved_for_ever() {
        let scarce = [(0, 100), (1, 5), (70, 4)];
        assert!(!admits_after(&scarce));
        assert!(admits_after(&[&scarce[..], &[(76, 5)]].concat()));
    }

    #[test]
    fn calls_in_flight_and_begun_calls_count() {
        let (mut remainders, now) = (Remainders::default(), Instant::now());
        remainders.report(Resource::Tokens, (1_000, 0, 0), (0.1, now));
        remainders.take(50, now);
        remainders.take(300, now);
        remainders.report(Resource::Tokens, (900, 50, 1), (0.1, now));
        assert!(remainders.admits(500, 0.1) && !remainders.admits(501, 0.1));
        remainders.take(100, now);
        assert!(remainders.admits(400, 0.1) && !remainders.admits(401, 0.1));
        assert_eq!(remainders.wait(401, 0.1, now + 3 * SECOND), 7 * SECOND, "then one call is tried");
        remainders.forget(Resource::Tokens);
        assert!(remainders.admits(1_000_000, 0.1));
    }
}

//! What is left of limits that do not refill steadily, as far as is known. Bulk calls leave a part of it to interactive
//! ones.
//!
//! If the service does not name a limit, as Azure, the largest report so far stands for it. It may be much smaller than
//! the limit, so it never limits the rate; it only tells bulk calls when to yield. They go on when a report says so.
//! Without calls there are no reports, so one bulk call is tried after a while.
//!
//! If the service names a limit, a bucket counts it as one that refills steadily, so this counts only if the reports
//! show that it does not: many services give all of a minute's limit at once.

use std::time::Duration;

use tokio::time::Instant;

use super::reported::{QuotaReport, Resource};

/// If less than the reserve is left for this long, others use it or the limit has been lowered, and yielding does not
/// help. A limit per minute would have been full by then.
const NEVER_FULL: Duration = Duration::from_secs(75);

/// Time without a call after which a bulk call is tried although less than the reserve is left. It is long, because the
/// call may use up much of the reserve of a fixed minute.
const TRIED_AFTER: Duration = Duration::from_secs(10);

/// Share of a limit that would have refilled steadily before the reports are compared with it.
const COMPARED: f64 = 0.02;

/// A limit is full again once a minute at most. If what is left becomes plenty twice in a shorter time than this,
/// several limits are reported in turn, and one of them says nothing about the others.
const FULL_AGAIN: Duration = Duration::from_secs(50);

/// Part of a limit by which what is left rises then, at least.
const JUMP: f64 = 0.25;

/// Time for which such reports hold no bulk call back.
const MIXED_FOR: Duration = Duration::from_mins(10);

/// A call that is held back looks at least this often.
const LOOKED_WITHIN: Duration = Duration::from_secs(15);

/// Reports of each resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remainders {
    known: [Option<Remainder>; 2],
    /// Since when bulk calls are held back, and the last look of one.
    denied: Option<(Instant, Instant)>,
    /// Time of the last call or report.
    used: Option<Instant>,
    /// Tokens of the calls in flight.
    in_flight: usize,
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug)]
struct Remainder {
    /// The limit, if the service names it.
    limit: Option<u64>,
    /// The limit, or the largest report.
    most: f64,
    /// Last report, and its time.
    reported: f64,
    at: Instant,
    /// What is left of it after the calls that were begun since.
    left: f64,
    /// Time at which all of it is left, if the service has said so.
    full_at: Option<Instant>,
    /// True if the last two reports differ. Some services report a value of some seconds ago.
    is_live: bool,
    /// True if a bucket counts the limit, since the reports rise as a bucket does. It changes if a comparison says so
    /// clearly, or two in a row.
    refills: bool,
    was_refilled: bool,
    /// What a bucket would have refilled lately, and what the reports say of it.
    expected: f64,
    risen: f64,
    /// Time of the first of the reports below the reserve.
    scarce_since: Option<Instant>,
    /// Time at which much more was left than shortly before.
    jumped: Option<Instant>,
    /// Time until which several limits seem to be reported in turn.
    mixed_until: Option<Instant>,
}

impl Remainder {
    fn new(report: &QuotaReport, now: Instant) -> Self {
        let left = float(report.left);
        Self {
            limit: report.limit,
            most: report.limit.map_or(left, float),
            reported: left,
            at: now,
            left,
            full_at: None,
            is_live: false,
            refills: report.limit.is_some(),
            was_refilled: report.limit.is_some(),
            expected: 0.0,
            risen: 0.0,
            scarce_since: None,
            jumped: None,
            mixed_until: None,
        }
    }

    /// Takes over a report. Calls in flight may use this much of it.
    fn report(&mut self, report: &QuotaReport, ahead: f64, (reserve, now): (f64, Instant)) {
        self.refresh(now);
        let left = float(report.left);
        self.note_jump(left, ahead, (reserve, now));
        self.compare(left - ahead, now);
        self.is_live = left.to_bits() != self.reported.to_bits();
        (self.reported, self.at, self.left, self.most) = (left, now, left - ahead, self.most.max(left));
        self.full_at = report.reset.and_then(|reset| now.checked_add(reset));
        if left >= reserve * self.most {
            self.scarce_since = None;
        } else if now.saturating_duration_since(*self.scarce_since.get_or_insert(now)) >= NEVER_FULL {
            (self.most, self.scarce_since) = (left, None);
        }
    }

    /// Notes that much more is left than a bucket would have refilled.
    fn note_jump(&mut self, left: f64, ahead: f64, (reserve, now): (f64, Instant)) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let plenty = reserve * self.most;
        // Twice as much as a bucket; reports of calls that were in flight together may arrive in another order.
        let usual = (JUMP + passed / 30.0) * self.most + ahead;
        if self.reported >= plenty || left < plenty || left - self.reported <= usual {
            return;
        }
        if self.jumped.replace(now).is_some_and(|last| now.saturating_duration_since(last) < FULL_AGAIN) {
            self.mixed_until = now.checked_add(MIXED_FOR);
        }
    }

    /// Compares what is left with what a bucket of the limit per minute would have refilled since the last report.
    fn compare(&mut self, left: f64, now: Instant) {
        let Some(limit) = self.limit else { return };
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let room = (self.most - self.left).max(0.0);
        self.expected += (float(limit) / 60.0 * passed).min(room);
        self.risen += left - self.left;
        if self.expected >= COMPARED * self.most {
            let is_refilled = self.risen >= self.expected / 2.0;
            let is_clear = self.risen <= self.expected / 10.0;
            if is_clear || is_refilled == self.was_refilled {
                self.refills = is_refilled;
            }
            (self.was_refilled, self.expected, self.risen) = (is_refilled, 0.0, 0.0);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.full_at.is_some_and(|full| full <= now) {
            (self.left, self.full_at) = (self.most, None);
        }
        self.mixed_until = self.mixed_until.filter(|until| *until > now);
    }

    /// Lets the reserve be used, because waiting does not raise what is left.
    const fn forget_reserve(&mut self) {
        self.left = self.left.max(0.0);
        (self.most, self.scarce_since) = (self.left, None);
    }

    /// Takes an amount, or gives a negative one back.
    fn take(&mut self, amount: f64, now: Instant) {
        self.refresh(now);
        self.left -= amount;
    }

    /// Returns true if a call that uses this much leaves the reserve untouched.
    fn admits(&self, amount: f64, reserve: f64) -> bool {
        // A call that is larger than all of the limit goes when the limit is unused.
        let amount = amount.min((1.0 - 2.0 * reserve) * self.most);
        amount <= self.beyond(reserve)
    }

    /// Returns what is left beyond the reserve.
    fn beyond(&self, reserve: f64) -> f64 {
        let says_nothing = self.refills || !self.is_live || self.mixed_until.is_some();
        if says_nothing { f64::INFINITY } else { self.left - reserve * self.most }
    }
}

impl Remainders {
    /// Takes over a report with the answer to a call with this many tokens. `others` are in flight, and the report may
    /// not count them.
    pub(super) fn report(
        &mut self,
        resource: Resource,
        (report, tokens, others): (&QuotaReport, usize, usize),
        (reserve, now): (f64, Instant),
    ) {
        let ahead = match resource {
            Resource::Requests => others,
            Resource::Tokens => self.in_flight.saturating_sub(tokens),
        };
        self.used = Some(now);
        let place = &mut self.known[resource as usize];
        // What is known of another limit says nothing of this one. Some answers may not name it.
        let known = place.take().filter(|known| report.limit.is_none_or(|limit| known.limit == Some(limit)));
        let known = place.insert(known.unwrap_or_else(|| Remainder::new(report, now)));
        known.report(report, float(ahead as u64), (reserve, now));
    }

    /// Counts a call with this many tokens.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) {
        self.used = Some(now);
        self.in_flight += tokens;
        self.each(|known, resource| known.take(float(resource.amount(tokens) as u64), now));
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
        self.each(|known, resource| known.left += float(resource.amount(tokens) as u64));
    }

    /// Returns the time until a call with this many tokens may be made, if no report comes before.
    pub(super) fn wait(&mut self, tokens: usize, reserve: f64, now: Instant) -> Duration {
        let Some(used) = self.used else { return Duration::ZERO };
        let is_futile = self.denied.is_some_and(|(since, _)| now.saturating_duration_since(since) >= NEVER_FULL);
        let most = TRIED_AFTER.saturating_sub(now.saturating_duration_since(used));
        let mut longest = Duration::ZERO;
        self.each(|known, resource| {
            known.refresh(now);
            let amount = float(resource.amount(tokens) as u64);
            if is_futile && !known.admits(amount, reserve) {
                known.forget_reserve();
            } else if !known.admits(amount, reserve) {
                let full = known.full_at.map_or(Duration::MAX, |full| full.saturating_duration_since(now));
                longest = longest.max(full.min(most));
            }
        });
        let is_held = !longest.is_zero();
        let earlier = self.denied.filter(|(_, looked)| now.saturating_duration_since(*looked) < LOOKED_WITHIN);
        self.denied = is_held.then(|| (earlier.map_or(now, |(since, _)| since), now));
        longest
    }

    /// Returns what is left of the limit of tokens beyond the reserve.
    pub(super) fn tokens_beyond(&self, reserve: f64) -> f64 {
        self.known[Resource::Tokens as usize].map_or(f64::INFINITY, |known| known.beyond(reserve))
    }

    fn each(&mut self, mut act: impl FnMut(&mut Remainder, Resource)) {
        for resource in Resource::ALL {
            if let Some(known) = &mut self.known[resource as usize] {
                act(known, resource);
            }
        }
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

    const fn rest(left: u64) -> QuotaReport {
        QuotaReport { limit: None, left, reset: None }
    }

    /// Reports what is left of the calls after some seconds. The other calls are none.
    fn reported(reports: &[(u64, QuotaReport)]) -> (Remainders, Instant) {
        let (mut remainders, begun) = (Remainders::default(), Instant::now());
        let mut now = begun;
        for (second, report) in reports {
            now = begun + SECOND * u32::try_from(*second).expect("it is small");
            remainders.report(Resource::Requests, (report, 0, 0), (0.1, now));
        }
        (remainders, now)
    }

    fn admits_after(reports: &[(u64, u64)]) -> bool {
        let reports: Vec<_> = reports.iter().map(|(second, left)| (*second, rest(*left))).collect();
        let (mut remainders, now) = reported(&reports);
        remainders.wait(10, 0.1, now).is_zero()
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
            remainders.report(Resource::Tokens, (&rest(left), 0, 0), (0.1, now));
        }
        assert!(!remainders.wait(500, 0.1, now).is_zero());
        remainders.report(Resource::Tokens, (&rest(90), 0, 0), (0.1, now));
        assert!(remainders.wait(500, 0.1, now).is_zero());
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
        let admits = |remainders: &mut Remainders, tokens| remainders.wait(tokens, 0.1, now).is_zero();
        remainders.report(Resource::Tokens, (&rest(1_000), 0, 0), (0.1, now));
        remainders.take(50, now);
        remainders.take(300, now);
        remainders.report(Resource::Tokens, (&rest(900), 50, 1), (0.1, now));
        assert!(admits(&mut remainders, 500) && !admits(&mut remainders, 501));
        remainders.take(100, now);
        assert!(admits(&mut remainders, 400) && !admits(&mut remainders, 401));
        assert_eq!(remainders.wait(401, 0.1, now + 3 * SECOND), 7 * SECOND, "then one call is tried");
    }

    #[test]
    fn a_named_limit_counts_if_it_does_not_refill_steadily() {
        let named = |left, reset| QuotaReport { limit: Some(600), left, reset: Some(SECOND * reset) };
        let wait = |reports: &[(u64, QuotaReport)], later: u32| {
            let (mut remainders, now) = reported(reports);
            remainders.wait(10, 0.1, now + SECOND * later)
        };
        let bucket = [(0, named(600, 0)), (1, named(30, 57)), (3, named(50, 55)), (5, named(70, 53))];
        assert_eq!(wait(&bucket, 0), Duration::ZERO, "it rises by ten a second");
        let minute = [(0, named(600, 60)), (1, named(61, 59)), (3, named(60, 57)), (5, named(59, 55))];
        assert_eq!(wait(&minute, 0), 10 * SECOND, "it does not rise");
        let end = [&minute[..], &[(55, named(58, 5))]].concat();
        assert_eq!(wait(&end, 0), 5 * SECOND, "it is full again after that");
        assert_eq!(wait(&end, 5), Duration::ZERO);
        let raised = [&minute[..], &[(6, QuotaReport { limit: Some(6_000), ..named(50, 50) })]].concat();
        assert_eq!(wait(&raised, 0), Duration::ZERO, "another limit is learned anew");
        let unnamed = [&minute[..], &[(6, rest(57)), (7, rest(56))]].concat();
        assert_eq!(wait(&unnamed, 0), 10 * SECOND, "some answers do not name it");
    }

    #[test]
    fn limits_that_are_reported_in_turn_hold_no_call_back() {
        assert!(!admits_after(&[(0, 1_000), (1, 90), (2, 999), (3, 89)]), "it may be full again");
        assert!(admits_after(&[(0, 1_000), (1, 90), (2, 999), (3, 89), (4, 998), (5, 88)]));
        assert!(!admits_after(&[(0, 1_000), (1, 90), (2, 999), (3, 89), (63, 998), (65, 88)]), "a minute later");
        assert!(!admits_after(&[(0, 1_000), (1, 90), (11, 250), (12, 90), (22, 255), (23, 90)]), "a bucket");
    }

    #[test]
    fn a_bulk_call_is_not_held_back_for_ever_beside_others() {
        let (mut remainders, begun) = reported(&[(0, rest(100)), (1, rest(9))]);
        for second in 0..75 {
            let now = begun + SECOND * second;
            assert!(!remainders.wait(1, 0.1, now).is_zero(), "{second} s");
            if second % 4 == 0 {
                remainders.take(0, now);
                remainders.give_back(0);
            }
        }
        assert!(remainders.wait(1, 0.1, begun + 75 * SECOND).is_zero());
    }
}

//! Leases in Redis: their length, and the requests for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::error::LinkError;
use super::holds::{HoldEvent, Holds};
use super::lease_commands::{LeaseForm, LeaseText, LookupForm, LookupPart};
use super::lease_value;
use super::link::{Answers, Link, MAX_RECORD_BYTES};
use super::manager::LinkManager;
use super::tier::RedisTier;
use crate::cache::{LeaseEnd, LeaseHolder, LeaseReply, LeasedValues, Leases, Tier};
use crate::config::LeaseMode;
use crate::key::Key;

/// Shortest automatic lease. A renewal that is late by a second does not lose it.
const SHORTEST: Duration = Duration::from_secs(2);
/// Longest automatic lease, and so the longest time for which a replica that died delays the others.
const LONGEST: Duration = Duration::from_secs(8);
/// Length of an automatic lease if no call time is known.
const UNKNOWN: Duration = Duration::from_secs(4);
/// An automatic lease lasts this many calls. Most calls then end before their lease is renewed.
const CALLS_PER_LEASE: u32 = 4;

/// Number of lease lengths that one fetch waits for a lease of fixed length: one for a holder that vanished, one for its
/// successor.
const FIXED_LENGTHS: u32 = 2;
/// An automatic lease is renewed for as long as its holder lives. If its holder takes this many times as long as usual,
/// it is stuck.
const STUCK_CALLS: u32 = 10;
/// Shortest wait for an automatic lease. The holder may have a queue, and its successor needs time as well.
const SHORTEST_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for an automatic lease if no call time is known.
const UNKNOWN_WAIT: Duration = Duration::from_mins(1);

/// Returns the length of leases whose holder usually calls for `call_time`; `None` without leases.
fn length(mode: LeaseMode, call_time: Option<Duration>) -> Option<Duration> {
    match mode {
        LeaseMode::Off => None,
        LeaseMode::Fixed(length) => Some(length),
        LeaseMode::Auto => {
            let calls = call_time.map(|took| took.saturating_mul(CALLS_PER_LEASE).clamp(SHORTEST, LONGEST));
            Some(calls.unwrap_or(UNKNOWN))
        }
    }
}

fn longest_wait(mode: LeaseMode, call_time: Option<Duration>) -> Duration {
    match mode {
        LeaseMode::Off => Duration::ZERO,
        LeaseMode::Fixed(length) => length.saturating_mul(FIXED_LENGTHS),
        LeaseMode::Auto => call_time.map_or(UNKNOWN_WAIT, |took| took.saturating_mul(STUCK_CALLS).max(SHORTEST_WAIT)),
    }
}

/// Keys whose leases were requested. They are given back if the answer does not arrive, because a lease that was
/// granted unnoticed would delay every replica.
struct Requested<'a> {
    holds: &'a Holds,
    manager: &'a Arc<LinkManager>,
    keys: Vec<Key>,
}

impl Drop for Requested<'_> {
    fn drop(&mut self) {
        self.holds.end_unclear(std::mem::take(&mut self.keys), self.manager);
    }
}

impl RedisTier {
    /// Returns the form of the leases that a request takes now; `None` without leases.
    fn form(&self, call_time: Option<Duration>) -> Option<LeaseForm> {
        let length = length(self.manager.config.lease, call_time)?;
        Some(LeaseForm { value: lease_value::write(self.holds.next_fetch(), call_time), length })
    }

    /// Returns the leases that a look-up takes; `None` if Redis runs no scripts.
    pub(super) fn lookup_form(
        &self,
        link: &Link,
        (leased, call_time): (usize, Option<Duration>),
    ) -> Option<LookupForm> {
        let form = self.form(call_time).filter(|_| !link.refuses_scripts())?;
        Some(LookupForm { form, leased })
    }

    /// Reads records, and takes the leases of missing ones for a fetch that follows.
    pub(super) async fn read_and_lease(
        &self,
        link: &Link,
        part: LookupPart<'_>,
        (form, within): (&LookupForm, Duration),
    ) -> Answers<Bytes> {
        let leased = &part.keys[..form.leased.saturating_sub(part.first).min(part.keys.len())];
        let pair = |(key, record): (&Key, &String)| (self.manager.names.lease(key), record.clone());
        let pairs = leased.iter().zip(part.records).map(pair).collect();
        let mut requested = Requested { holds: &self.holds, manager: &self.manager, keys: leased.to_vec() };
        let (read, leases) = link.read_and_lease(part.records, (pairs, &form.form), within).await;
        requested.keys = unclear(leased, &leases.each);
        if let Some(LinkError::Refused(cause)) = &leases.error {
            requested.keys.clear();
            link.note_refused_scripts(cause);
        }
        self.hold(leased, &leases.each, (HoldEvent::Claim, form.form.length));
        read
    }

    async fn request_leases(&self, keys: &[Key], call_time: Option<Duration>) -> Vec<LeaseReply> {
        // A lease that a look-up has taken is at hand. Nobody else can have fetched its key since.
        let mut replies = self.claim(keys);
        let is_open = |place: &usize| replies[*place].standing == LeaseHolder::Unknown;
        let places: Vec<usize> = (0..keys.len()).filter(is_open).collect();
        let link = self.manager.status.link().filter(|link| !link.refuses_scripts() && !places.is_empty());
        let (Some(link), Some(form)) = (link, self.form(call_time)) else { return replies };
        let open: Vec<Key> = places.iter().map(|place| keys[*place]).collect();
        let until = Instant::now() + self.manager.config.timeout;
        let (mut taken, mut read_bytes, max_read_bytes) =
            (Vec::with_capacity(open.len()), 0, self.parts.max_read_bytes);
        // As in `read`, all values together stay within the limit. The keys that are left are fetched without a lease.
        while taken.len() < open.len() && read_bytes <= max_read_bytes {
            let rest = &open[taken.len()..];
            // Even at its largest size, the next group exceeds the limit by one record at most.
            let count = ((max_read_bytes - read_bytes) / MAX_RECORD_BYTES).clamp(1, rest.len());
            let within = until.saturating_duration_since(Instant::now());
            let replies = self.take(&link, &rest[..count], (&form, within)).await;
            let stored = replies.iter().flatten().filter_map(|(_, stored)| stored.as_ref());
            read_bytes += stored.map(Bytes::len).sum::<usize>();
            taken.extend(replies);
        }
        for (place, taken) in places.into_iter().zip(taken) {
            replies[place] = taken.map_or(LeaseReply::UNKNOWN, reply);
        }
        replies
    }

    async fn take(
        &self,
        link: &Arc<Link>,
        keys: &[Key],
        (form, within): (&LeaseForm, Duration),
    ) -> Vec<Option<(LeaseText, Option<Bytes>)>> {
        let (names, clear_count) = (&self.manager.names, self.manager.ledger.clear_count());
        let pairs = keys.iter().map(|key| (names.lease(key), names.record(key, clear_count))).collect();
        let mut requested = Requested { holds: &self.holds, manager: &self.manager, keys: keys.to_vec() };
        let answers = link.lease(pairs, form, within).await;
        let is_refused = matches!(answers.error, Some(LinkError::Refused(_)));
        let answers = self.judge(link, answers);
        requested.keys = if is_refused { Vec::new() } else { unclear(keys, &answers) };
        let texts: Vec<Option<LeaseText>> = answers.iter().map(|answer| Some(answer.as_ref()?.0.clone())).collect();
        self.hold(keys, &texts, (HoldEvent::Fetch, form.length));
        answers
    }

    /// Notes the leases that were granted.
    fn hold(&self, keys: &[Key], taken: &[Option<LeaseText>], (event, length): (HoldEvent, Duration)) {
        let is_ours = |taken: &Option<LeaseText>| *taken == Some(LeaseText::Granted);
        let ours = keys.iter().zip(taken).filter(|(_, taken)| is_ours(taken)).map(|(key, _)| *key);
        self.holds.add(ours, event, Some(length).filter(|_| self.manager.config.lease == LeaseMode::Auto));
    }
}

/// Returns the keys without an answer, whose leases may have been granted.
fn unclear<T>(keys: &[Key], answers: &[Option<T>]) -> Vec<Key> {
    keys.iter().zip(answers).filter(|(_, answer)| answer.is_none()).map(|(key, _)| *key).collect()
}

const fn at_hand(is_claimed: bool) -> LeaseReply {
    let standing = if is_claimed { LeaseHolder::Ours } else { LeaseHolder::Unknown };
    LeaseReply { stored: None, standing }
}

fn reply((lease, stored): (LeaseText, Option<Bytes>)) -> LeaseReply {
    let standing = match lease {
        LeaseText::Granted => LeaseHolder::Ours,
        LeaseText::Held(value) => lease_value::read(&value),
        LeaseText::Unwanted | LeaseText::Refused => LeaseHolder::Unknown,
    };
    LeaseReply { stored, standing }
}

impl Leases for RedisTier {
    fn tier(&self) -> Tier {
        Tier::Redis
    }

    fn longest_wait(&self, call_time: Option<Duration>) -> Duration {
        longest_wait(self.manager.config.lease, call_time)
    }

    fn look_up<'a>(
        &'a self,
        keys: &'a [Key],
        unleased: usize,
        call_time: Option<Duration>,
    ) -> BoxFuture<'a, LeasedValues> {
        Box::pin(self.find(keys, Some((keys.len() - unleased, call_time))))
    }

    fn claim(&self, keys: &[Key]) -> Vec<LeaseReply> {
        self.holds.claim(keys).into_iter().map(at_hand).collect()
    }

    fn give_back(&self, keys: &[Key]) {
        self.holds.give_back(keys, &self.manager);
    }

    fn take<'a>(&'a self, keys: &'a [Key], call_time: Option<Duration>) -> BoxFuture<'a, Vec<LeaseReply>> {
        Box::pin(self.request_leases(keys, call_time))
    }

    fn release(&self, keys: &[Key], end: LeaseEnd) {
        self.holds.release(keys, end, (&self.queue, &self.manager));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_automatic_lease_lasts_some_calls_within_its_bounds() {
        let auto = |call_time| length(LeaseMode::Auto, call_time).expect("there are leases");
        assert_eq!(auto(None), UNKNOWN);
        assert_eq!(auto(Some(SECOND / 5)), SHORTEST);
        assert_eq!(auto(Some(SECOND)), 4 * SECOND);
        assert_eq!(auto(Some(60 * SECOND)), LONGEST);
        assert_eq!(length(LeaseMode::Fixed(20 * SECOND), Some(SECOND)), Some(20 * SECOND));
        assert_eq!(length(LeaseMode::Off, Some(SECOND)), None);
    }

    #[test]
    fn a_wait_for_a_lease_ends_when_its_holder_must_be_stuck() {
        let auto = |call_time| longest_wait(LeaseMode::Auto, call_time);
        assert_eq!(auto(None), UNKNOWN_WAIT);
        assert_eq!(auto(Some(SECOND / 5)), SHORTEST_WAIT);
        assert_eq!(auto(Some(30 * SECOND)), 300 * SECOND);
        assert_eq!(longest_wait(LeaseMode::Fixed(20 * SECOND), Some(SECOND)), 40 * SECOND);
    }
}

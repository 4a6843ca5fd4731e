//! Leases in Redis: their length, and the requests for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::error::LinkError;
use super::holds::{HoldEvent, Holds};
use super::lease_commands::{LeaseForm, LeaseText};
use super::lease_value;
use super::link::{Link, MAX_RECORD_BYTES};
use super::manager::LinkManager;
use super::tier::RedisTier;
use crate::cache::{LeaseEnd, LeaseHolder, LeaseReply, Leases, Tier};
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

/// Record and lease of one key; `None` without an answer.
type TakenLease = Option<(LeaseText, Option<Bytes>)>;

impl RedisTier {
    /// Returns the form of the leases that a request takes now; `None` without leases.
    fn form(&self, call_time: Option<Duration>, even_if_stored: bool) -> Option<LeaseForm> {
        let length = length(self.manager.config.lease, call_time)?;
        Some(LeaseForm { value: lease_value::write(self.holds.next_fetch(), call_time), length, even_if_stored })
    }

    /// Reads records, and takes the leases of missing ones for a fetch that follows. Returns `None` if Redis runs no
    /// scripts.
    pub(super) async fn read_and_lease(
        &self,
        link: &Arc<Link>,
        keys: &[Key],
        (unleased, call_time): (usize, Option<Duration>),
    ) -> Option<Vec<Option<Bytes>>> {
        let form = self.form(call_time, false)?;
        let taken = self.take_all(link, (keys, keys.len() - unleased), &form).await?;
        self.hold(keys, &taken, (HoldEvent::Claim, form.length));
        Some(taken.into_iter().map(|taken| taken?.1).collect())
    }

    async fn request_leases(&self, keys: &[Key], call_time: Option<Duration>) -> Vec<LeaseReply> {
        let unknown = || vec![LeaseReply::UNKNOWN; keys.len()];
        // A lease that a look-up has taken is at hand. Nobody else can have fetched its key since.
        let mut replies: Vec<LeaseReply> = self.holds.claim(keys).into_iter().map(at_hand).collect();
        let is_open = |place: &usize| replies[*place].standing == LeaseHolder::Unknown;
        let places: Vec<usize> = (0..keys.len()).filter(is_open).collect();
        let (Some(link), Some(form)) = (self.manager.status.link(), self.form(call_time, true)) else {
            return if places.len() == keys.len() { unknown() } else { replies };
        };
        let open: Vec<Key> = places.iter().map(|place| keys[*place]).collect();
        let taken = self.take_all(&link, (&open, open.len()), &form).await.unwrap_or_default();
        self.hold(&open, &taken, (HoldEvent::Fetch, form.length));
        for (place, taken) in places.into_iter().zip(taken) {
            replies[place] = reply(taken);
        }
        replies
    }

    /// Notes the leases that were granted.
    fn hold(&self, keys: &[Key], taken: &[TakenLease], (event, length): (HoldEvent, Duration)) {
        let is_ours = |taken: &TakenLease| matches!(taken, Some((LeaseText::Granted, _)));
        let ours = keys.iter().zip(taken).filter(|(_, taken)| is_ours(taken)).map(|(key, _)| *key);
        self.holds.add(ours, event, Some(length).filter(|_| self.manager.config.lease == LeaseMode::Auto));
    }

    /// Reads records, and requests the leases of the first `leased` keys. As in `read`, the values of one round trip stay
    /// within the limit even at their largest size. Returns `None` if Redis runs no scripts.
    async fn take_all(
        &self,
        link: &Arc<Link>,
        (keys, leased): (&[Key], usize),
        form: &LeaseForm,
    ) -> Option<Vec<TakenLease>> {
        if keys.is_empty() {
            return Some(Vec::new());
        }
        if link.refuses_scripts() {
            return None;
        }
        let (names, clear_count) = (&self.manager.names, self.manager.ledger.clear_count());
        let until = Instant::now() + self.manager.config.timeout;
        let (mut taken, mut read_bytes, max_read_bytes): (Vec<TakenLease>, _, _) =
            (Vec::new(), 0, self.parts.max_read_bytes);
        while taken.len() < keys.len() && read_bytes <= max_read_bytes {
            let first = taken.len();
            let count = ((max_read_bytes - read_bytes) / MAX_RECORD_BYTES).clamp(1, keys.len() - first);
            let open = &keys[first..first + count];
            let pair = |(place, key): (usize, &Key)| {
                let record = names.record(key, clear_count);
                (if first + place < leased { names.lease(key) } else { record.clone() }, record)
            };
            let pairs = open.iter().enumerate().map(pair).collect();
            let mut requested = Requested { holds: &self.holds, manager: &self.manager, keys: open.to_vec() };
            let answers = link.lease(pairs, form, until.saturating_duration_since(Instant::now())).await;
            let error = answers.error.clone();
            let answers = self.judge(link, answers);
            // The rest is given back here: answers that came too late, or not at all.
            requested.keys =
                open.iter().zip(&answers).filter(|(_, taken)| taken.is_none()).map(|(key, _)| *key).collect();
            if let Some(LinkError::Refused(cause)) = &error {
                requested.keys.clear();
                link.note_refused_scripts(cause);
                return None;
            }
            read_bytes +=
                answers.iter().flatten().filter_map(|(_, stored)| Some(stored.as_ref()?.len())).sum::<usize>();
            taken.extend(answers);
            if error.is_some() {
                break;
            }
        }
        // Values that were not read count as missing.
        taken.resize(keys.len(), None);
        Some(taken)
    }
}

const fn at_hand(is_claimed: bool) -> LeaseReply {
    let standing = if is_claimed { LeaseHolder::Ours } else { LeaseHolder::Unknown };
    LeaseReply { stored: None, standing }
}

fn reply(taken: TakenLease) -> LeaseReply {
    let Some((lease, stored)) = taken else { return LeaseReply::UNKNOWN };
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
    ) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(self.find(keys, Some((unleased, call_time))))
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

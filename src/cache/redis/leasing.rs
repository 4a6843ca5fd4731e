//! Leases in Redis: their length, and the requests for them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::lease_commands::{LeaseForm, LeaseText};
use super::lease_value;
use super::link::{Link, MAX_RECORD_BYTES};
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

impl RedisTier {
    async fn request_leases(&self, keys: &[Key], call_time: Option<Duration>) -> Vec<LeaseReply> {
        let mode = self.manager.config.lease;
        let (Some(link), Some(length)) = (self.manager.status.link(), length(mode, call_time)) else {
            return vec![LeaseReply::UNKNOWN; keys.len()];
        };
        let form = LeaseForm { value: lease_value::write(self.holds.next_fetch(), call_time), length };
        let answers = self.take_all(&link, keys, &form).await;
        let is_ours = |answer: &Option<_>| matches!(answer, Some((LeaseText::Granted, _)));
        let ours = keys.iter().zip(&answers).filter(|(_, answer)| is_ours(answer));
        self.holds.add(ours.map(|(key, _)| *key), Some(length).filter(|_| mode == LeaseMode::Auto));
        // A response that came too late may have granted a lease, which would delay every replica.
        let unclear = keys.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        self.holds.end(unclear.map(|(key, _)| *key).collect(), false, &self.manager);
        let reply = |answer| match answer {
            Some((LeaseText::Granted, stored)) => LeaseReply { stored, standing: LeaseHolder::Ours },
            Some((LeaseText::Held(value), stored)) => LeaseReply { stored, standing: lease_value::read(&value) },
            Some((LeaseText::Refused, stored)) => LeaseReply { stored, standing: LeaseHolder::Unknown },
            None => LeaseReply::UNKNOWN,
        };
        answers.into_iter().map(reply).collect()
    }

    async fn take_all(
        &self,
        link: &Arc<Link>,
        keys: &[Key],
        form: &LeaseForm,
    ) -> Vec<Option<(LeaseText, Option<bytes::Bytes>)>> {
        let (names, clear_count) = (&self.manager.names, self.manager.ledger.clear_count());
        let mut answers = Vec::with_capacity(keys.len());
        let until = Instant::now() + self.manager.config.timeout;
        // As in `read`, the values of one round trip stay within the limit even at their largest size.
        for keys in keys.chunks((self.parts.max_read_bytes / MAX_RECORD_BYTES).max(1)) {
            let pairs = keys.iter().map(|key| (names.lease(key), names.record(key, clear_count))).collect();
            let within = until.saturating_duration_since(Instant::now());
            let asked = link.lease(pairs, form, within).await;
            answers.extend(self.judge(link, asked));
        }
        answers
    }
}

impl Leases for RedisTier {
    fn tier(&self) -> Tier {
        Tier::Redis
    }

    fn longest_wait(&self, call_time: Option<Duration>) -> Duration {
        longest_wait(self.manager.config.lease, call_time)
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

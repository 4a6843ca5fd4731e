//! Limits of calls and of tokens per minute.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::TokenBucket;
use super::reported::{QuotaReport, Resource};

/// Limits that the configuration sets for each credential and model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) struct SetLimits {
    /// Maximum number of calls a minute.
    pub(in crate::upstream) requests_per_minute: Option<u64>,
    /// Maximum number of tokens a minute.
    pub(in crate::upstream) tokens_per_minute: Option<u64>,
    /// Maximum number of calls in flight.
    pub(in crate::upstream) concurrent: Option<usize>,
}

/// Part of a configured limit that may be used at once. Services measure over shorter times than a minute as well.
const BURST: f64 = 1.0 / 6.0;

/// A reported limit that takes longer than this to fill is not one per minute.
const A_MINUTE: Duration = Duration::from_secs(61);

const SECONDS_PER_MINUTE: f64 = 60.0;

/// A limit per minute, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitFigures {
    /// Maximum per minute.
    pub per_minute: f64,
    /// What is left now; negative if a call was larger than expected.
    pub left: f64,
}

/// One bucket for each resource that has a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buckets([Option<TokenBucket>; 2]);

impl Buckets {
    /// Creates the buckets of configured limits.
    pub(super) fn configured(limits: &SetLimits, now: Instant) -> Self {
        let bucket = |limit: u64| {
            let limit = float(limit);
            TokenBucket::new(limit / SECONDS_PER_MINUTE, (limit * BURST).max(1.0), now)
        };
        Self([limits.requests_per_minute, limits.tokens_per_minute].map(|limit| limit.map(bucket)))
    }

    /// Limits the buckets of configured limits to a part of these.
    pub(super) fn set_share(&mut self, limits: &SetLimits, share: f64, now: Instant) {
        let limits = [limits.requests_per_minute, limits.tokens_per_minute];
        for (bucket, limit) in self.0.iter_mut().zip(limits) {
            if let (Some(bucket), Some(limit)) = (bucket, limit) {
                let limit = float(limit) * share;
                bucket.set(limit / SECONDS_PER_MINUTE, (limit * BURST).max(1.0), now);
            }
        }
    }

    /// Takes over what the service reports, if it names the limit. It `is_exact` if no other call is in flight.
    pub(super) fn report(&mut self, resource: Resource, (report, is_exact): (&QuotaReport, bool), now: Instant) {
        let Some(limit) = report.limit else { return };
        let (most, left) = (float(limit), float(report.left.min(limit)));
        let per_second = match report.reset {
            // A limit of another time than a minute: what was used comes back until the reset.
            Some(reset) if reset > A_MINUTE && left < most => (most - left) / reset.as_secs_f64(),
            _ => most / SECONDS_PER_MINUTE,
        };
        let bucket = self.0[resource as usize].get_or_insert_with(|| TokenBucket::new(per_second, most, now));
        bucket.set(per_second, most, now);
        bucket.report((left, is_exact), report.reset, now);
    }

    /// Returns the time until a call with this many tokens is within all limits. `reserve` is the part of each limit
    /// that is left to others.
    pub(super) fn wait(&mut self, tokens: usize, reserve: f64, now: Instant) -> Duration {
        self.each(tokens, |bucket, amount| bucket.wait(amount, reserve * bucket.most(), now))
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
    }

    /// Returns the time until several calls of this size have been made.
    pub(super) fn time_for(&mut self, calls: usize, tokens: usize, now: Instant) -> Duration {
        let time = |bucket: &mut TokenBucket, amount: f64| bucket.time_for(amount * float(calls as u64), now);
        self.each(tokens, time).into_iter().flatten().max().unwrap_or_default()
    }

    /// Takes a call with this many tokens.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) {
        self.each(tokens, |bucket, amount| bucket.take(amount, now));
    }

    /// Gives a call back that was not made.
    pub(super) fn give_back(&mut self, tokens: usize, now: Instant) {
        self.each(tokens, |bucket, amount| bucket.take(-amount, now));
    }

    /// Corrects the tokens of a call that was taken.
    pub(super) fn correct(&mut self, before: usize, after: usize, now: Instant) {
        if let Some(bucket) = &mut self.0[Resource::Tokens as usize] {
            bucket.take(float(after as u64) - float(before as u64), now);
        }
    }

    /// Returns what is left of the limit of tokens beyond a part of it.
    pub(super) fn tokens_beyond(&mut self, reserve: f64, now: Instant) -> f64 {
        let bucket = self.0[Resource::Tokens as usize].as_mut();
        bucket.map_or(f64::INFINITY, |bucket| bucket.level(now) - reserve * bucket.most())
    }

    /// Returns the tokens that may be used at once.
    pub(super) fn most_tokens(&self) -> f64 {
        self.0[Resource::Tokens as usize].map_or(f64::INFINITY, |bucket| bucket.most())
    }

    /// Returns the limit of a resource and what is left of it.
    pub(super) fn figures(&mut self, resource: Resource, now: Instant) -> Option<LimitFigures> {
        let bucket = self.0[resource as usize].as_mut()?;
        Some(LimitFigures { per_minute: bucket.per_second() * SECONDS_PER_MINUTE, left: bucket.level(now) })
    }

    /// Returns the used share of the scarcest limit, from 0 to 1.
    pub(super) fn used(&mut self, now: Instant) -> f64 {
        let used = |bucket: &mut TokenBucket, _| 1.0 - (bucket.level(now) / bucket.most()).clamp(0.0, 1.0);
        self.each(0, used).into_iter().flatten().fold(0.0, f64::max)
    }

    fn each<T>(&mut self, tokens: usize, mut act: impl FnMut(&mut TokenBucket, f64) -> T) -> [Option<T>; 2] {
        let amounts = [1.0, float(tokens as u64)];
        let mut places = self.0.iter_mut().zip(amounts);
        std::array::from_fn(|_| {
            let (bucket, amount) = places.next()?;
            bucket.as_mut().map(|bucket| act(bucket, amount))
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits and tokens are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

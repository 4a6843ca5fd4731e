//! A rate that is found out by trial, for services that refuse calls but do not say how many they accept.
//!
//! The calls that were accepted lately are the first value. Afterwards the rate rises until the next refusal: quickly far
//! below the rate that was refused last, slowly close to it. If a large share of the calls is refused, the rate falls to
//! what was accepted, by at least a tenth and at most by half.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::TokenBucket;

/// Lowest rate. The holds after refusals keep calls inside lower limits. A lower rate would outlast a refusal that had
/// another cause.
const LEAST_PER_SECOND: f64 = 1.0;

/// Growth in a second while no rate has been refused yet, or far above one that was.
const QUICK: f64 = 1.5;

/// Share of the refused rate from which on growth is slow, and growth in a second as a part of the refused rate.
const NEAR: f64 = 0.9;
const SLOW: f64 = 0.01;

/// Multiple of the refused rate beyond which the limit must have risen.
const BEYOND: f64 = 1.15;

/// Longest wait before another look, since the rate grows with each look at it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A rate that was refused longer ago means nothing any more.
const REMEMBERED: Duration = Duration::from_mins(10);

/// Rate of calls that the service has probably as its limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundRate {
    bucket: TokenBucket,
    /// The rate at the last refusal, except the first.
    refused_at: Option<f64>,
    refused: Instant,
    grown: Instant,
    /// Tokens of the smallest call whose refusal has set the rate.
    tokens: usize,
}

impl FoundRate {
    /// Begins with the accepted calls per second, after the refusal of a call with this many tokens.
    pub(super) fn new((accepted, tokens): (f64, usize), now: Instant) -> Self {
        Self { bucket: bucket(accepted.max(LEAST_PER_SECOND), now), refused_at: None, refused: now, grown: now, tokens }
    }

    /// Returns the tokens of the smallest call whose refusal has set the rate.
    pub(super) const fn tokens(&self) -> usize {
        self.tokens
    }

    /// Notes the refusal of a call with this many tokens.
    pub(super) fn refused(&mut self, (accepted, tokens): (f64, usize), now: Instant) {
        self.tokens = self.tokens.min(tokens);
        let rate = self.bucket.per_second();
        let lower = (accepted * 0.97).clamp(rate * 0.5, rate * 0.9).max(LEAST_PER_SECOND);
        (self.refused_at, self.refused, self.grown) = (Some(rate), now, now);
        self.set(lower, now);
    }

    /// Returns the time until a call may be within the rate, and raises the rate if calls have been waiting for it.
    pub(super) fn wait(&mut self, reserve: f64, now: Instant) -> Duration {
        let wait = self.bucket.wait(1.0, reserve * self.bucket.most(), now);
        if wait.is_zero() {
            return wait;
        }
        self.grow(now);
        self.bucket.wait(1.0, reserve * self.bucket.most(), now).min(LOOK_AGAIN)
    }

    /// Takes a call, or gives it back.
    pub(super) fn take(&mut self, calls: f64, now: Instant) {
        self.bucket.take(calls, now);
    }

    /// Returns the rate in calls a second.
    pub(super) const fn per_second(&self) -> f64 {
        self.bucket.per_second()
    }

    /// Returns true if the last refusal is so old that the rate means nothing.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.refused) > REMEMBERED
    }

    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.grown).as_secs_f64();
        // Growth counts time in which calls waited. After a pause it begins anew.
        if passed < 0.1 {
            return;
        }
        self.grown = now;
        let (rate, seconds) = (self.bucket.per_second(), passed.min(1.0));
        let quick = rate * QUICK.powf(seconds);
        let next = match self.refused_at {
            Some(refused) if rate < refused * NEAR => quick.min(refused * NEAR),
            Some(refused) if rate < refused * BEYOND => rate + refused * SLOW * seconds,
            None | Some(_) => quick,
        };
        self.set(next, now);
    }

    fn set(&mut self, per_second: f64, now: Instant) {
        self.bucket.set(per_second, per_second.max(1.0), now);
    }
}

/// Returns a bucket that permits a second's calls at once.
fn bucket(per_second: f64, now: Instant) -> TokenBucket {
    TokenBucket::new(per_second, per_second.max(1.0), now)
}

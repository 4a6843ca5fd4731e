//! How much of the configured limits a replica would use.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::SetLimits;

/// Time within which waiting calls are wanted.
const WAITING_WITHIN: f64 = 2.0;

/// Weight of the newest interval.
const NEWEST: f64 = 0.5;

/// Use of the limits by this replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Limits per second: calls and tokens.
    per_second: [Option<f64>; 2],
    /// Calls and tokens since the last exchange.
    begun: [f64; 2],
    /// Time of the last exchange.
    exchanged: Option<Instant>,
    /// Time of the last call.
    used: Option<Instant>,
    smoothed: f64,
    sequence: u64,
}

impl Demand {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    pub(super) fn new(limits: &SetLimits) -> Self {
        let limits = [limits.requests_per_minute, limits.tokens_per_minute];
        let per_second = limits.map(|limit| limit.map(|limit| limit as f64 / 60.0));
        Self { per_second, begun: [0.0; 2], exchanged: None, used: None, smoothed: 0.0, sequence: 0 }
    }

    /// Counts a call.
    #[expect(clippy::cast_precision_loss, reason = "the tokens of a call are far below 2^53")]
    pub(super) fn begin(&mut self, tokens: usize, now: Instant) {
        self.begun[0] += 1.0;
        self.begun[1] += tokens as f64;
        self.used = Some(now);
    }

    /// Gives back a call that was not made.
    #[expect(clippy::cast_precision_loss, reason = "the tokens of a call are far below 2^53")]
    pub(super) fn give_back(&mut self, tokens: usize) {
        // An exchange may have ended the interval meanwhile.
        self.begun[0] = (self.begun[0] - 1.0).max(0.0);
        self.begun[1] = (self.begun[1] - tokens as f64).max(0.0);
    }

    /// Notes a call that waits.
    pub(super) const fn wait(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Returns true if there is a limit, and there were calls within `time`.
    pub(super) fn is_active(&self, time: Duration, now: Instant) -> bool {
        let has_limit = self.per_second.iter().any(Option::is_some);
        has_limit && self.used.is_some_and(|used| now.saturating_duration_since(used) < time)
    }

    /// Returns true if the last exchange is at least this long ago.
    pub(super) fn is_older(&self, time: Duration, now: Instant) -> bool {
        self.exchanged.is_none_or(|at| now.saturating_duration_since(at) >= time)
    }

    /// Begins the next interval. Returns the number of the exchange, and the part of the limits that this replica would
    /// use, with so many calls that wait.
    #[expect(clippy::cast_precision_loss, reason = "the number of waiting calls is small")]
    pub(super) fn exchange(&mut self, waiting: usize, now: Instant) -> (u64, f64) {
        let elapsed = self.exchanged.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64().clamp(0.1, 5.0));
        let tokens_per_call = if self.begun[0] > 0.0 { self.begun[1] / self.begun[0] } else { 0.0 };
        let part = |amounts: [f64; 2], seconds: f64| {
            let parts =
                self.per_second.iter().zip(amounts).filter_map(|(limit, amount)| Some(amount / ((*limit)? * seconds)));
            parts.fold(0.0, f64::max)
        };
        let newest = part(self.begun, elapsed);
        let waiting = waiting as f64;
        let wanted = part([waiting, waiting * tokens_per_call], WAITING_WITHIN);
        self.smoothed =
            if self.exchanged.is_none() { newest } else { NEWEST * newest + (1.0 - NEWEST) * self.smoothed };
        (self.begun, self.exchanged, self.sequence) = ([0.0; 2], Some(now), self.sequence + 1);
        (self.sequence, self.smoothed + wanted)
    }
}

//! Rate limits of the stub, with the arithmetic of real services. Each credential and model has limits of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::calls::Call;
use super::request::EmbedCall;
use super::state::{State, lock};

const SECONDS_PER_MINUTE: f64 = 60.0;

/// Limits of requests and of tokens per minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    pub(crate) requests: f64,
    pub(crate) tokens: f64,
    pub(crate) counted: Counted,
    pub(crate) reported: Reported,
}

/// The way in which a limit is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// A token bucket that is full at first. Its capacity is this part of the limit per minute.
    Bucket { capacity: f64 },
    /// Fixed windows of this length, each with its part of the limit per minute. This much of the first one has passed
    /// when the limits are set.
    Window { length: Duration, passed: Duration },
}

/// The form in which limits and refusals are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Limit, remainder and reset on every answer; the wait on refusals.
    OpenAi,
    /// The remainder on every answer; the wait on refusals.
    Azure,
    /// `retry-after` on refusals.
    RetryAfter,
    /// Nothing.
    Nothing,
}

/// A call as its limits judge it.
#[derive(Clone, Debug)]
pub(crate) struct JudgedCall {
    pub(crate) at: Instant,
    pub(crate) is_accepted: bool,
    pub(crate) tokens: f64,
}

/// Resource that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Requests,
    Tokens,
}

/// State of one limit of one credential and model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pub(super) per_minute: f64,
    pub(super) capacity: f64,
    level: f64,
    at: Instant,
    counted: Counted,
    /// Start of the first window.
    grid: Instant,
}

/// Judgement of one call.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) model: String,
    pub(super) meters: [Meter; 2],
    /// The limit that refuses the call, and the requested amount.
    pub(super) refused_by: Option<(Resource, f64)>,
    pub(super) reported: Reported,
}

/// The limits of all credentials and models, and every call that they have judged.
#[derive(Debug)]
pub(crate) struct Quotas {
    pub(super) quota: Quota,
    /// Start of the first window.
    pub(super) grid: Instant,
    meters: HashMap<(String, String), [Meter; 2]>,
    pub(super) judged: Vec<JudgedCall>,
}

impl Counted {
    /// Returns the amount that may be used at once, of a limit per minute.
    pub(crate) fn capacity(self, per_minute: f64) -> f64 {
        match self {
            Self::Bucket { capacity } => per_minute * capacity,
            Self::Window { length, .. } => per_minute * length.as_secs_f64() / SECONDS_PER_MINUTE,
        }
    }

    /// Returns the start of the first window, if the limits are set now.
    pub(super) fn grid(self, now: Instant) -> Instant {
        match self {
            Self::Bucket { .. } => now,
            Self::Window { passed, .. } => now.checked_sub(passed).expect("a test's windows start after the machine"),
        }
    }
}

impl Meter {
    fn new(per_minute: f64, counted: Counted, grid: Instant, now: Instant) -> Self {
        let capacity = counted.capacity(per_minute);
        Self { per_minute, capacity, level: capacity, at: now, counted, grid }
    }

    fn refill(&mut self, now: Instant) {
        self.level = match self.counted {
            Counted::Bucket { .. } => {
                let refilled = now.duration_since(self.at).as_secs_f64() * self.per_minute / SECONDS_PER_MINUTE;
                (self.level + refilled).min(self.capacity)
            }
            Counted::Window { .. } if self.window_end(self.at) <= now => self.capacity,
            Counted::Window { .. } => self.level,
        };
        self.at = now;
    }

    /// Returns the end of the window at a point in time.
    fn window_end(&self, now: Instant) -> Instant {
        let Counted::Window { length, .. } = self.counted else { return now };
        let number = now.duration_since(self.grid).as_nanos() / length.as_nanos();
        self.grid + length * (u32::try_from(number).expect("a test has few windows") + 1)
    }

    /// Returns what is left of the limit per minute, if all that can be used at once were all of it.
    pub(super) fn remaining(&self) -> f64 {
        (self.per_minute - self.capacity + self.level).max(0.0).floor()
    }

    /// Returns the time until the amount is there.
    pub(super) fn wait_for(&self, amount: f64) -> Duration {
        match self.counted {
            _ if amount <= self.level => Duration::ZERO,
            Counted::Bucket { .. } => {
                Duration::from_secs_f64((amount - self.level) * SECONDS_PER_MINUTE / self.per_minute)
            }
            Counted::Window { .. } => self.window_end(self.at) - self.at,
        }
    }

    /// Returns the time until all of it is left.
    pub(super) fn reset(&self) -> Duration {
        self.wait_for(self.capacity)
    }
}

impl Quotas {
    /// Sets the limits.
    pub(crate) fn new(quota: Quota, now: Instant) -> Self {
        Self { quota, grid: quota.counted.grid(now), meters: HashMap::new(), judged: Vec::new() }
    }

    fn judge(&mut self, (credential, model): (String, String), tokens: usize, now: Instant) -> Verdict {
        let Quota { requests, tokens: per_minute, counted, reported } = self.quota;
        let meters = self.meters.entry((credential, model.clone())).or_insert_with(|| {
            [requests, per_minute].map(|per_minute| Meter::new(per_minute, counted, self.grid, now))
        });
        #[expect(clippy::cast_precision_loss, reason = "a call has few tokens")]
        let amounts = [(Resource::Requests, 1.0), (Resource::Tokens, tokens as f64)];
        for meter in meters.iter_mut() {
            meter.refill(now);
        }
        let beyond = |most: fn(&Meter) -> f64| {
            meters.iter().zip(amounts).find(|(meter, (_, amount))| *amount > most(meter)).map(|(_, what)| what)
        };
        // A call that is too large is refused as such, whatever is left.
        let refused_by = beyond(|meter| meter.capacity).or_else(|| beyond(|meter| meter.level));
        if refused_by.is_none() {
            meters.iter_mut().zip(amounts).for_each(|(meter, (_, amount))| meter.level -= amount);
        }
        let (is_accepted, tokens) = (refused_by.is_none(), amounts[1].1);
        self.judged.push(JudgedCall { at: now, is_accepted, tokens });
        Verdict { model, meters: *meters, refused_by, reported }
    }
}

/// Judges an embeddings call that is written as the service demands, if limits are set.
pub(super) fn judge(state: &State, call: &Call) -> Option<Verdict> {
    if !call.is_embeddings() || lock(&state.quotas).is_none() {
        return None;
    }
    let limits = *lock(&state.limits);
    let read = EmbedCall::read(call, limits).ok()?;
    let credential = call.header("authorization").or_else(|| call.header("api-key")).unwrap_or_default().to_owned();
    let mut quotas = lock(&state.quotas);
    let quotas = quotas.as_mut()?;
    Some(quotas.judge((credential, read.space.model), read.tokens, Instant::now()))
}

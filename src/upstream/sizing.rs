//! Size of the calls of a lane. A lane learns from the duration of its calls. Merged calls grow from the size of one
//! request while they stay under `batch.target_time`. Requests that take longer are cut into parts of a size that fits.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, timeout_at};

use super::cost::{Cost, proportional};
use super::known_good::KnownGood;
use super::permit::CallPermit;
use super::width::Width;
use crate::config::BatchConfig;
use crate::key::{Key, Spread};
use crate::process::expiring::ExpiringMap;

/// Maximum number of lanes.
const MAX_LANES: u64 = 10_000;

/// Time after its last call for which a lane is remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Validity of a refusal. Servers are replaced, and a wrong guess must not last.
const BELIEVED_FOR: Duration = Duration::from_mins(10);

/// Inputs of the first merged call at services that are known to accept large calls.
const KNOWN_MERGE_INPUTS: usize = 256;

/// If parts reach this size, requests are sent whole again.
const WHOLE_INPUTS: usize = 4_096;

/// A call is overdue after this multiple of the longest recent duration.
const OVERDUE_FACTOR: u32 = 10;

/// Timeout of a call that carries several requests, as a multiple of the longest recent duration.
const MERGE_TIMEOUT_FACTOR: u32 = 4;

/// Timeout of such a call while no duration is known, as a multiple of the target time.
const UNKNOWN_TIMEOUT_FACTOR: u32 = 5;

/// Sizes of all lanes in use.
#[derive(Debug)]
pub(super) struct Sizes(ExpiringMap<Key, Arc<LaneSize>, Spread>);

impl Default for Sizes {
    fn default() -> Self {
        Self(ExpiringMap::new(MAX_LANES, REMEMBERED_FOR))
    }
}

impl Sizes {
    /// Returns the size of a lane. A new lane has learned nothing.
    pub(super) fn of(&self, lane: Key) -> Arc<LaneSize> {
        self.0.get_or_insert_with(lane, Arc::default)
    }
}

/// State that one lane has learned.
#[derive(Debug, Default)]
pub(super) struct LaneSize {
    in_flight: AtomicUsize,
    /// Number of parts of cut requests in flight.
    parts: AtomicUsize,
    /// Held by parts in flight: exclusively if the server accepts one call at a time.
    turns: RwLock<()>,
    /// An input that was answered. It belongs to one lane, since no caller may pay for another caller's text.
    pub(super) known_good: KnownGood,
    learned: Mutex<LaneFacts>,
}

#[derive(Debug, Default)]
struct LaneFacts {
    /// True if a call was answered with vectors.
    is_proven: bool,
    /// Maximum number of inputs of a merged call, derived from durations; 0 if unknown.
    merge_inputs: usize,
    /// A merged call of this many inputs failed although each of its requests succeeded separately.
    merge_failed_at: Option<Belief>,
    /// Maximum number of inputs of a call under the target time, if a whole request may take longer.
    part_inputs: Option<usize>,
    /// Calls with more inputs were refused.
    accepted_inputs: Option<Belief>,
    /// Largest numbers of inputs and of tokens that were answered in one call.
    passed: Load,
    /// Set if calls in another form than the caller's were refused.
    own_only: Option<Belief>,
    /// Set if a part was refused while others were in flight.
    one_at_a_time: Option<Belief>,
    cost: Cost,
    width: Width,
}

/// Load of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) inputs: usize,
    pub(super) tokens: usize,
}

/// A number that expires.
#[derive(Clone, Copy, Debug)]
struct Belief {
    inputs: usize,
    until: Instant,
}

impl Belief {
    fn new(inputs: usize) -> Self {
        Self { inputs, until: Instant::now() + BELIEVED_FOR }
    }

    fn holds(belief: Option<Self>) -> Option<usize> {
        belief.filter(|belief| Instant::now() < belief.until).map(|belief| belief.inputs)
    }
}

/// Limits of the next call of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallBounds {
    /// Maximum number of inputs of one request in a call; a larger request is cut.
    pub(super) limit: usize,
    /// Number of inputs in a part of a request that would take long; smaller than `limit`, or `None`.
    pub(super) part_inputs: Option<usize>,
    /// Maximum number of tokens of a call, by estimate.
    pub(super) max_tokens: usize,
    /// Maximum number of inputs of a call that carries several requests.
    pub(super) merge_inputs: usize,
    /// Maximum number of concurrent calls for parts of cut requests.
    pub(super) width: usize,
    /// True if requests are sent as their callers wrote them.
    pub(super) own_only: bool,
}

impl CallBounds {
    /// Returns the maximum number of inputs in the next call for a request that has this many left. A rest of less than
    /// two parts is not cut.
    pub(super) fn cut(&self, left: usize) -> usize {
        self.part_inputs.filter(|part| left >= part.saturating_mul(2)).unwrap_or(self.limit)
    }
}

/// Counts a call in flight until it is dropped.
pub(super) struct InFlight<'a> {
    lane: &'a LaneSize,
    beside: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.lane.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight<'_> {
    /// Returns the average number of calls of the lane in flight during this one, itself included.
    fn load(&self) -> u32 {
        let beside = self.beside.midpoint(self.lane.in_flight.load(Ordering::Relaxed));
        u32::try_from(beside).unwrap_or(u32::MAX).max(1)
    }
}

/// Permission to send a part of a cut request.
pub(super) enum PartTurn<'a> {
    BesideOthers {
        _turn: RwLockReadGuard<'a, ()>,
    },
    /// No other part is in flight.
    Alone {
        _turn: RwLockWriteGuard<'a, ()>,
    },
}

/// Counts a part of a cut request in flight until it is dropped.
pub(super) struct PartGuard(Arc<LaneSize>);

impl Drop for PartGuard {
    fn drop(&mut self) {
        self.0.parts.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LaneSize {
    /// Counts a part of a cut request.
    pub(super) fn enter_part(self: Arc<Self>) -> PartGuard {
        self.parts.fetch_add(1, Ordering::Relaxed);
        PartGuard(self)
    }

    /// Returns the number of parts of cut requests in flight.
    pub(super) fn parts(&self) -> usize {
        self.parts.load(Ordering::Relaxed)
    }

    /// Waits until a part may be sent. Releases the permit meanwhile, because the holder of a turn may
    /// wait for a permit.
    pub(super) async fn turn(&self, permit: &mut CallPermit) -> PartTurn<'_> {
        if Belief::holds(self.learned().one_at_a_time).is_none() {
            let turn = match self.turns.try_read() {
                // A turn that is free at once keeps the permit.
                Ok(turn) => turn,
                Err(_) => permit.aside(self.turns.read()).await,
            };
            return PartTurn::BesideOthers { _turn: turn };
        }
        let turn = match self.turns.try_write() {
            Ok(turn) => turn,
            Err(_) => permit.aside(self.turns.write()).await,
        };
        PartTurn::Alone { _turn: turn }
    }

    /// Notes that a part failed while others were in flight. The server may accept only one call at a time.
    pub(super) fn take_turns(&self) {
        let mut learned = self.learned();
        learned.one_at_a_time = Some(Belief::new(1));
        // Concurrent parts have just failed, so the search for a width starts over.
        learned.width = Width::default();
    }

    /// Returns true if other calls are in flight beside the caller's.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 1
    }

    /// Counts a call in flight.
    pub(super) fn enter(&self) -> InFlight<'_> {
        InFlight { lane: self, beside: self.in_flight.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Returns the limits of the next call. `is_known` is true for services with known limits that accept merged calls.
    pub(super) fn bounds(&self, config: &BatchConfig, is_known: bool) -> CallBounds {
        let learned = self.learned();
        let accepted = Belief::holds(learned.accepted_inputs).unwrap_or(usize::MAX);
        let own_only = Belief::holds(learned.own_only).is_some();
        let limit = config.max_inputs.min(accepted).max(1);
        let merge_inputs = match (learned.merge_inputs, is_known) {
            // Merged calls are in vecho's form, which the service has refused.
            _ if own_only => 0,
            (0, true) => KNOWN_MERGE_INPUTS,
            (inputs, true) => inputs.max(1),
            (inputs, false) if learned.is_proven => inputs,
            // An unknown service answers one call before requests are merged.
            (_, false) => 0,
        };
        // A merged call has at least two inputs, so the subtraction cannot underflow.
        let below_failure = Belief::holds(learned.merge_failed_at).map_or(usize::MAX, |inputs| inputs - 1);
        CallBounds {
            limit,
            part_inputs: learned.part_inputs.filter(|part| *part < limit),
            max_tokens: config.max_tokens,
            merge_inputs: merge_inputs.min(limit).min(below_failure),
            width: match learned.part_inputs {
                Some(_) if Belief::holds(learned.one_at_a_time).is_some() => 1,
                Some(_) => learned.width.calls(),
                // Requests that are cut for a limit, and not for their time, send all parts at once.
                None => usize::MAX,
            },
            own_only,
        }
    }

    /// Notes a call that was answered with vectors in time `took`.
    pub(super) fn answered(&self, load: Load, took: Duration, target: Duration, under_way: &InFlight<'_>) {
        let mut learned = self.learned();
        learned.is_proven = true;
        learned.passed.inputs = learned.passed.inputs.max(load.inputs);
        learned.passed.tokens = learned.passed.tokens.max(load.tokens);
        learned.cost.answered(load.inputs, took);
        learned.size_merges(load.inputs, took, target);
        learned.size_parts(load.inputs, took, under_way.load(), target);
    }

    /// Notes that a part of a cut request was answered.
    pub(super) fn part_answered(&self, inputs: usize, took: Duration) {
        self.learned().width.answered(inputs, took);
    }

    /// Notes that a merged call failed. `all_well` is true if each of its requests then succeeded separately.
    pub(super) fn merge_failed(&self, inputs: usize, all_well: bool) {
        let mut learned = self.learned();
        // The size is halved even if one text was the cause. Quick calls let it grow again.
        learned.merge_inputs = learned.merge_inputs.min(inputs / 2).max(1);
        if all_well {
            let lowest = Belief::holds(learned.merge_failed_at).map_or(inputs, |before| before.min(inputs));
            learned.merge_failed_at = Some(Belief::new(lowest));
        }
    }

    /// Notes that calls with more than `inputs` were refused.
    pub(super) fn refused_above(&self, inputs: usize) {
        let mut learned = self.learned();
        let lower = Belief::holds(learned.accepted_inputs).map_or(inputs, |before| before.min(inputs));
        learned.accepted_inputs = Some(Belief::new(lower.max(1)));
    }

    /// Notes that a call in another form was refused, and the caller's own request was answered.
    pub(super) fn prefer_own(&self) {
        self.learned().own_only = Some(Belief::new(0));
    }

    /// Returns the maximum number of inputs that the service accepts in a call, as far as refusals have shown.
    pub(super) fn accepted_inputs(&self) -> usize {
        Belief::holds(self.learned().accepted_inputs).unwrap_or(usize::MAX)
    }

    /// Returns true if a call with at least this load was answered before.
    pub(super) fn has_passed(&self, load: Load) -> bool {
        let passed = self.learned().passed;
        passed.inputs >= load.inputs && passed.tokens >= load.tokens
    }

    /// Waits for a call that carries several requests. Returns `None` if it takes much longer than others. Calls that
    /// end meanwhile may show that all calls take longer now.
    pub(super) async fn with_merge_timeout<T>(
        &self,
        target: Duration,
        mut call: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let (begun, mut waited) = (Instant::now(), Duration::ZERO);
        loop {
            let timeout = self.merge_timeout(target);
            // The timeout has not grown during the wait.
            if timeout <= waited {
                return None;
            }
            if let Ok(ended) = timeout_at(begun + timeout, call.as_mut()).await {
                return Some(ended);
            }
            waited = timeout;
        }
    }

    /// Returns the timeout of a call for several requests. After it, each request is sent separately, because one of
    /// their inputs may delay the call.
    fn merge_timeout(&self, target: Duration) -> Duration {
        let longest = self.learned().cost.longest_of_all();
        longest
            .map_or(target * UNKNOWN_TIMEOUT_FACTOR, |longest| target.max(longest.saturating_mul(MERGE_TIMEOUT_FACTOR)))
    }

    /// Returns the longest recent duration of a call, if any is known.
    pub(super) fn recent_call_time(&self) -> Option<Duration> {
        self.learned().cost.longest_of_all()
    }

    /// Returns the time after which a call of this size is overdue: ten times the longest recent duration, and at least
    /// `least`. Returns `None` if no duration is known.
    pub(super) fn overdue_after(&self, inputs: usize, least: Duration) -> Option<Duration> {
        let longest = self.learned().cost.longest(inputs)?;
        Some(longest.saturating_mul(OVERDUE_FACTOR).max(least))
    }

    fn learned(&self) -> MutexGuard<'_, LaneFacts> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaneFacts {
    fn size_merges(&mut self, inputs: usize, took: Duration, target: Duration) {
        self.merge_inputs = if took <= target {
            // A quick call allows one of twice its size next.
            self.merge_inputs.max(inputs.saturating_mul(2))
        } else {
            proportional(inputs, took, target)
        };
    }

    fn size_parts(&mut self, inputs: usize, took: Duration, load: u32, target: Duration) {
        // Concurrent calls that wait for each other at the server are as quick as they would be one after the other.
        let alone = took / load;
        if alone > target {
            // The time of a single input may be the fixed time of the call.
            if inputs > 1 {
                let fitting = self.cost.fitting(inputs, took, target).max(proportional(inputs, alone, target));
                self.part_inputs = (fitting < WHOLE_INPUTS).then_some(fitting);
            }
            return;
        }
        // Parts grow while they take less than half the target time.
        if let Some(part) = self.part_inputs
            && alone < target / 2
            // A much smaller call does not show the time of a whole part.
            && inputs.saturating_mul(2) >= part
        {
            let larger = part.max(inputs).saturating_mul(2);
            self.part_inputs = (larger < WHOLE_INPUTS).then_some(larger);
        }
    }
}

#[cfg(test)]
#[path = "sizing_tests.rs"]
mod tests;

//! The governor: its state, its interfaces and its loop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use super::action::{Action, GovernorAction};
use crate::process::clock::Clock;
use crate::process::system::System;

/// Above this percentage of the limit, freed memory is returned to the operating system.
pub(super) const TRIM_PERCENT: u64 = 80;
/// If memory stays above this after a trim, caches shrink,
pub(super) const SHRINK_PERCENT: u64 = 85;
/// down to this. Reaching it also ends the episode.
pub(super) const CALM_PERCENT: u64 = 75;
/// Factor by which checks are more frequent above the calm mark. Growth between two checks must fit under the limit.
pub(super) const CLOSER_LOOK: u32 = 4;
/// Interval of the checks after a request for one, and their number. A burst of requests fills tens of megabytes within
/// a regular interval.
const BURST_CHECK_EVERY: Duration = Duration::from_millis(50);
const BURST_CHECKS: u32 = 20;
/// Growth that justifies another attempt within one episode.
pub(super) const STEP_PERCENT: u64 = 2;
/// Checks after which another attempt is made when nothing is left to shrink. Requests may have ended since, and the
/// allocator keeps the memory that they freed.
pub(super) const CHECKS_BETWEEN_TRIES: u32 = 20;
/// Limit on recorded actions.
pub(super) const MAX_ACTIONS: usize = 64;

/// Part of the process that can reduce its memory.
pub trait Shrink: Send + Sync {
    /// Returns the name in reports.
    fn name(&self) -> &'static str;
    /// Returns the bytes that it holds, by its own count.
    fn bytes(&self) -> u64;
    /// Frees about `bytes`, the least useful entries first, and returns the bytes freed.
    fn shrink(&self, bytes: u64) -> u64;
}

/// Memory of the process as the operating system measures it.
pub trait Meter: Send + Sync {
    /// Returns the resident memory of the process; 0 if it is unknown.
    fn resident_bytes(&self) -> u64;
    /// Returns freed memory to the operating system.
    fn give_back(&self);
}

impl Meter for System {
    fn resident_bytes(&self) -> u64 {
        System::resident_bytes(self)
    }

    fn give_back(&self) {
        System::give_back(self);
    }
}

/// Hooks for measurements and actions of the governor, used by the metrics. `()` ignores all of them.
pub trait GovernorHooks: Send + Sync {
    /// The process was measured.
    fn measured(&self, resident_bytes: u64) {
        let _ = resident_bytes;
    }
    /// An action was taken.
    fn acted(&self, kind: GovernorAction) {
        let _ = kind;
    }
}

impl GovernorHooks for () {}

/// Memory use and recent actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Limit of the process.
    pub limit_bytes: u64,
    /// Resident memory at the latest measurement.
    pub resident_bytes: u64,
    /// True if that is over the limit.
    pub over: bool,
    /// Recent actions, the oldest first.
    pub actions: Vec<Action>,
}

/// Returns `configured_bytes`, or nine tenths of the container's limit if that is less. The kernel also counts page
/// tables and socket buffers against the container, and kills without warning.
pub fn effective_limit(configured_bytes: u64, container_bytes: Option<u64>) -> u64 {
    container_bytes.map_or(configured_bytes, |bytes| configured_bytes.min(bytes / 10 * 9))
}

/// Keeps the process under its memory limit. Shared by its loop and its callers.
pub struct Governor {
    pub(super) meter: Arc<dyn Meter>,
    pub(super) limit_bytes: u64,
    pub(super) parts: Vec<Arc<dyn Shrink>>,
    pub(super) clock: Clock,
    pub(super) hooks: Arc<dyn GovernorHooks>,
    /// Held during actions, so the loop and a caller never act at the same time.
    pub(super) turn: Mutex<MemoryEpisode>,
    pub(super) log: Mutex<ActionLog>,
    /// Notified to request a check before the next one is due.
    asked: Notify,
}

/// Latest measurement and recent actions. Locked only for moments.
#[derive(Debug, Default)]
pub(super) struct ActionLog {
    pub(super) resident_bytes: u64,
    pub(super) actions: VecDeque<Action>,
}

/// Period above the calm mark, logged once however many checks it lasts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum MemoryEpisode {
    /// Memory use is low.
    #[default]
    Calm,
    /// An action was taken, and `left_bytes` remained.
    Acted { left_bytes: u64 },
    /// All parts have shrunk as far as possible, and `left_bytes` remained. `checks` have passed since.
    Helpless { left_bytes: u64, checks: u32 },
}

impl MemoryEpisode {
    /// Returns the episode one check later.
    pub(super) fn after_a_check(self) -> Self {
        match self {
            Self::Helpless { left_bytes, checks } => Self::Helpless { left_bytes, checks: checks.saturating_add(1) },
            other => other,
        }
    }
}

impl Governor {
    /// Creates a governor of `parts`. They shrink in this order, so the part that is cheapest to lose comes first.
    pub fn new(meter: Arc<dyn Meter>, limit_bytes: u64, parts: Vec<Arc<dyn Shrink>>) -> Self {
        Self {
            meter,
            limit_bytes,
            parts,
            clock: Clock::default(),
            hooks: Arc::new(()),
            turn: Mutex::default(),
            log: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// Sets the clock for recorded actions.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets the hooks.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn GovernorHooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Requests a check at once and further ones in short intervals, because the process may grow quickly now.
    pub fn look_soon(&self) {
        self.asked.notify_one();
    }

    /// Checks every `check_every`, more often near the limit, and on request. Never returns.
    pub async fn run(self: Arc<Self>, check_every: Duration) {
        let mut ticks = tokio::time::interval(check_every);
        // A check that takes long must not cause a series of checks right after it.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut burst_checks = 0;
        loop {
            tokio::select! {
                biased;
                // A request during a check is kept by `Notify`, so the next round sees it.
                () = self.asked.notified() => burst_checks = BURST_CHECKS,
                // Ticks count a burst down, also those in its short intervals.
                _ = ticks.tick() => burst_checks = u32::saturating_sub(burst_checks, 1),
            }
            let governor = Arc::clone(&self);
            // Trimming and shrinking take milliseconds, which must not delay requests.
            if let Err(error) = tokio::task::spawn_blocking(move || governor.check()).await {
                tracing::error!(%error, "a check of the memory failed");
            }
            if burst_checks > 0 {
                ticks.reset_after(BURST_CHECK_EVERY.min(check_every));
            } else if lock(&self.log).resident_bytes > self.percent_of_limit(CALM_PERCENT) {
                ticks.reset_after(check_every / CLOSER_LOOK);
            }
        }
    }

    /// Runs one check and the actions it requires. Blocks for milliseconds.
    pub fn check(&self) {
        let mut episode = lock(&self.turn);
        let resident = self.measure();
        // The default episode stays behind if the check panics.
        *episode = self.govern(std::mem::take(&mut *episode), resident);
    }

    /// Returns the memory limit of the process in bytes.
    pub const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Measures the resident memory of the process; 0 if it is unknown.
    pub fn resident_bytes(&self) -> u64 {
        self.meter.resident_bytes()
    }

    /// Returns the status at the latest measurement.
    pub fn status(&self) -> Status {
        let log = lock(&self.log);
        Status {
            limit_bytes: self.limit_bytes,
            resident_bytes: log.resident_bytes,
            over: log.resident_bytes > self.limit_bytes,
            actions: log.actions.iter().copied().collect(),
        }
    }

    pub(super) fn percent_of_limit(&self, percent: u64) -> u64 {
        self.limit_bytes / 100 * percent
    }
}

/// These locks guard state that is consistent after every statement, so a panic in another thread is ignored.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

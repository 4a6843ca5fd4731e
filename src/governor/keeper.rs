//! The governor: what it knows, what it is asked, and its loop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::system::System;

/// From here on freed memory is given back.
pub(super) const TRIM_PERCENT: u64 = 80;
/// Where giving back leaves more than this, caches shrink,
pub(super) const SHRINK_PERCENT: u64 = 85;
/// down to this. An episode is over when this is reached, too.
pub(super) const CALM_PERCENT: u64 = 75;
/// How many times as often it looks above the mark of calm: what comes between two looks must fit under the limit.
pub(super) const CLOSER_LOOK: u32 = 4;
/// Growth that makes another try worth its cost within one episode.
pub(super) const STEP_PERCENT: u64 = 2;
/// Checks after which another try is made where nothing is left to let go of: requests may have ended since, and what
/// they freed stays with the allocator.
pub(super) const CHECKS_BETWEEN_TRIES: u32 = 20;
/// Actions that are remembered.
pub(super) const MAX_ACTIONS: usize = 64;

/// A part of the process that can do with less memory.
pub trait Shrink: Send + Sync {
    /// What it is called in reports.
    fn name(&self) -> &'static str;
    /// What it holds, by its own count.
    fn bytes(&self) -> u64;
    /// Lets go of about `bytes`, the least useful entries first, and says how much it let go.
    fn shrink(&self, bytes: u64) -> u64;
}

/// The process's memory as the operating system sees it.
pub trait Meter: Send + Sync {
    /// What the process occupies; 0 where that cannot be told.
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

/// Is told what the governor sees and does; the metrics' way in. `()` listens to nothing.
pub trait GovernorHooks: Send + Sync {
    /// The process was measured.
    fn measured(&self, resident_bytes: u64) {
        let _ = resident_bytes;
    }
    /// Something was done.
    fn acted(&self, kind: ActionKind) {
        let _ = kind;
    }
}

impl GovernorHooks for () {}

/// What can be done about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Freed memory was given back.
    Trim,
    /// Caches let go of entries, and the memory was given back.
    Shrink,
}

impl ActionKind {
    /// Its name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Shrink => "shrink",
        }
    }
}

/// Something that was done, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub kind: ActionKind,
    /// What the process occupied before, in bytes.
    pub resident_before: u64,
    /// What it occupied after, in bytes.
    pub resident_after: u64,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What the process should stay under.
    pub limit_bytes: u64,
    /// What it occupied when it was last measured.
    pub resident_bytes: u64,
    /// Whether that is over the limit.
    pub over: bool,
    /// What was done lately, oldest first.
    pub actions: Vec<Action>,
}

/// `configured_bytes`, or nine tenths of what the container may have if that is less: the kernel counts page tables and
/// buffers of sockets, too, and kills without warning.
pub fn effective_limit(configured_bytes: u64, container_bytes: Option<u64>) -> u64 {
    container_bytes.map_or(configured_bytes, |bytes| configured_bytes.min(bytes / 10 * 9))
}

/// Keeps the process under its limit. Shared by its loop and whoever asks it.
pub struct Governor {
    pub(super) meter: Arc<dyn Meter>,
    pub(super) limit_bytes: u64,
    pub(super) parts: Vec<Arc<dyn Shrink>>,
    pub(super) clock: Clock,
    pub(super) hooks: Arc<dyn GovernorHooks>,
    /// Held while something is done, so that the loop and a caller do not do it twice at once.
    pub(super) turn: Mutex<Episode>,
    pub(super) log: Mutex<Log>,
    /// A look is wanted before the next one is due.
    asked: Notify,
}

/// What is on record; locked for moments only.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) resident_bytes: u64,
    pub(super) actions: VecDeque<Action>,
}

/// A stretch of time above the mark, told about once however many checks it lasts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Episode {
    /// Memory is no concern.
    #[default]
    Calm,
    /// Something was done, and this was left.
    Acted { left_bytes: u64 },
    /// All that could shrink has shrunk, and this was left. `checks` have passed since.
    Helpless { left_bytes: u64, checks: u32 },
}

impl Episode {
    /// The same, one check later.
    pub(super) fn after_a_check(self) -> Self {
        match self {
            Self::Helpless { left_bytes, checks } => Self::Helpless { left_bytes, checks: checks.saturating_add(1) },
            other => other,
        }
    }
}

impl Governor {
    /// A governor of `parts`, which shrink in this order: the one whose loss costs least comes first.
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

    /// With this clock in its records.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// With somebody who is told.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn GovernorHooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Asks for a look soon, since the process may grow fast now.
    pub fn look_soon(&self) {
        self.asked.notify_one();
    }

    /// Checks every `check_every`, more often near the limit, and whenever it is asked to, for ever.
    pub async fn run(self: Arc<Self>, check_every: Duration) {
        let mut ticks = tokio::time::interval(check_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.asked.notified() => {}
            }
            let governor = Arc::clone(&self);
            // Trimming and shrinking take milliseconds in which no request may wait.
            if let Err(error) = tokio::task::spawn_blocking(move || governor.check()).await {
                tracing::error!(%error, "a check of the memory failed");
            }
            if lock(&self.log).resident_bytes > self.percent_of_limit(CALM_PERCENT) {
                ticks.reset_after(check_every / CLOSER_LOOK);
            }
        }
    }

    /// Looks once, and does what is needed. Blocks for milliseconds.
    pub fn check(&self) {
        let mut episode = lock(&self.turn);
        let resident = self.measure();
        *episode = self.govern(std::mem::take(&mut *episode), resident);
    }

    /// How things stand, by the latest measurement.
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

/// What these locks guard is whole after any statement, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

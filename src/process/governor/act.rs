//! Actions of the governor, and the rules for when they are taken.

use super::action::{Action, GovernorAction};
use super::keeper::{
    CALM_PERCENT, CHECKS_BETWEEN_TRIES, Governor, MAX_ACTIONS, MemoryEpisode, SHRINK_PERCENT, STEP_PERCENT,
    TRIM_PERCENT, lock,
};

/// Result of one round of shrinking.
pub(super) struct Shrunk {
    /// Bytes freed, as reported by the parts.
    pub(super) freed_bytes: u64,
    /// Resident memory of the process after the round.
    pub(super) left_bytes: u64,
    /// Parts that freed memory, with the number of bytes.
    pub(super) by_part: Vec<(&'static str, u64)>,
}

impl Governor {
    /// Runs one check: the previous episode and the current measurement decide the action and the next episode.
    pub(super) fn govern(&self, episode: MemoryEpisode, resident: u64) -> MemoryEpisode {
        if resident <= self.percent_of_limit(CALM_PERCENT) {
            return self.calm_down(&episode, resident);
        }
        // Between 75 and 80 % an episode goes on, so it does not end and begin with each check.
        if resident <= self.percent_of_limit(TRIM_PERCENT) || !self.worth_another_try(&episode, resident) {
            return episode.after_a_check();
        }
        // The trim comes first, because it costs no cache entries.
        let left_bytes = self.trim(resident);
        if left_bytes <= self.percent_of_limit(SHRINK_PERCENT) {
            self.tell_once(&episode, resident, left_bytes);
            return MemoryEpisode::Acted { left_bytes };
        }
        let shrunk = self.shrink_to(self.percent_of_limit(CALM_PERCENT), left_bytes);
        self.tell_once(&episode, resident, shrunk.left_bytes);
        self.judge(&episode, &shrunk)
    }

    /// Makes room for a permanent allocation, and keeps the process below the mark at which caches shrink. Returns
    /// false if even empty caches would not suffice. Blocks for milliseconds.
    pub fn make_room(&self, bytes: u64) -> bool {
        // The turn is held until the end, so a concurrent action does not change the measurement.
        let _turn = lock(&self.turn);
        let most = self.percent_of_limit(SHRINK_PERCENT).saturating_sub(bytes);
        let before = self.measure();
        let left = if before > most { self.trim(before) } else { before };
        if left <= most {
            return true;
        }
        // Caches shrink only if that makes enough room. Otherwise entries would be lost for nothing.
        left.saturating_sub(self.held_by_parts()) <= most && self.shrink_to(most, left).left_bytes <= most
    }

    /// Makes as much room as possible for a temporary allocation, so that the process stays below the mark at which
    /// caches shrink. Blocks for milliseconds.
    pub fn relieve(&self, bytes: u64) {
        self.relieve_to(self.percent_of_limit(SHRINK_PERCENT).saturating_sub(bytes));
    }

    /// Like [`Governor::relieve`], but shrinks caches only as far as the limit demands.
    pub fn relieve_to_limit(&self, bytes: u64) {
        self.relieve_to(self.limit_bytes.saturating_sub(bytes));
    }

    fn relieve_to(&self, most: u64) {
        let _turn = lock(&self.turn);
        let before = self.measure();
        if before > most {
            let left = self.trim(before);
            if left > most {
                self.shrink_to(most, left);
            }
        }
    }

    fn calm_down(&self, episode: &MemoryEpisode, resident: u64) -> MemoryEpisode {
        if *episode != MemoryEpisode::Calm {
            tracing::info!(resident_bytes = resident, limit_bytes = self.limit_bytes, "memory is in bounds again");
        }
        MemoryEpisode::Calm
    }

    /// Returns true if another attempt is worth its cost. Within an episode this is so if the process has grown since,
    /// if it is over the mark for shrinking and has something left to shrink, or after many checks.
    fn worth_another_try(&self, episode: &MemoryEpisode, resident: u64) -> bool {
        let step = self.percent_of_limit(STEP_PERCENT);
        match *episode {
            MemoryEpisode::Calm => true,
            MemoryEpisode::Acted { left_bytes } => {
                resident > left_bytes + step || resident > self.percent_of_limit(SHRINK_PERCENT)
            }
            MemoryEpisode::Helpless { left_bytes, checks } => {
                resident > left_bytes + step || self.held_by_parts() > step || checks >= CHECKS_BETWEEN_TRIES
            }
        }
    }

    fn tell_once(&self, episode: &MemoryEpisode, before: u64, after: u64) {
        if *episode == MemoryEpisode::Calm {
            let limit_bytes = self.limit_bytes;
            tracing::warn!(before_bytes = before, after_bytes = after, limit_bytes, "memory was near its limit");
        }
    }

    fn judge(&self, episode: &MemoryEpisode, shrunk: &Shrunk) -> MemoryEpisode {
        let left_bytes = shrunk.left_bytes;
        // Parts keep a small remainder, so less than one step counts as empty.
        let exhausted = self.held_by_parts() <= self.percent_of_limit(STEP_PERCENT);
        let stuck = shrunk.freed_bytes == 0 || exhausted;
        if left_bytes <= self.percent_of_limit(SHRINK_PERCENT) || !stuck {
            return MemoryEpisode::Acted { left_bytes };
        }
        if !matches!(episode, MemoryEpisode::Helpless { .. }) {
            tracing::warn!(
                resident_bytes = left_bytes,
                limit_bytes = self.limit_bytes,
                "memory stays near its limit and the caches are already empty; raise memory.limit_mb or reduce the \
                 load"
            );
        }
        MemoryEpisode::Helpless { left_bytes, checks: 0 }
    }

    fn held_by_parts(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes()).sum()
    }

    /// Gives freed memory back to the operating system. Returns the resident memory after that.
    pub(super) fn trim(&self, before: u64) -> u64 {
        self.meter.give_back();
        self.record(GovernorAction::Trim, before)
    }

    /// Shrinks the parts, in order, until the estimated memory is `goal_bytes`, and measures the result.
    pub(super) fn shrink_to(&self, goal_bytes: u64, before: u64) -> Shrunk {
        // The sum of the parts is an estimate. The result is measured at the end.
        let mut to_free = before.saturating_sub(goal_bytes);
        let mut by_part = Vec::new();
        // The cheapest part to lose comes first, see `Governor::new`.
        for part in &self.parts {
            let freed = if to_free == 0 { 0 } else { part.shrink(to_free) };
            if freed > 0 {
                by_part.push((part.name(), freed));
            }
            to_free = to_free.saturating_sub(freed);
        }
        // The entries are freed, but the allocator keeps their memory until now.
        self.meter.give_back();
        let freed_bytes = by_part.iter().map(|(_, freed)| freed).sum();
        Shrunk { freed_bytes, left_bytes: self.record(GovernorAction::Shrink, before), by_part }
    }

    /// Measures and records the result of an action, and returns the resident memory.
    fn record(&self, kind: GovernorAction, resident_before: u64) -> u64 {
        // The measurement locks the log itself, so it comes before the lock.
        let resident_after = self.measure();
        let mut log = lock(&self.log);
        if log.actions.len() == MAX_ACTIONS {
            log.actions.pop_front();
        }
        log.actions.push_back(Action { at_ms: self.clock.now_ms(), kind, resident_before, resident_after });
        // The hook runs without the lock, since it is foreign code.
        drop(log);
        self.hooks.acted(kind);
        resident_after
    }

    pub(super) fn measure(&self) -> u64 {
        let resident = self.meter.resident_bytes();
        lock(&self.log).resident_bytes = resident;
        self.hooks.measured(resident);
        resident
    }
}

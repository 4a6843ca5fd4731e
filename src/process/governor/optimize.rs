//! Reduction of memory on request.

use std::sync::Arc;

use super::action::GovernorAction;
use super::keeper::{CALM_PERCENT, Governor, lock};
use crate::process::system::Optimized;

const MB: u64 = 1024 * 1024;

impl Governor {
    /// Reduces the process to `target_mb`, or to the calm mark. Trims first, and shrinks caches only if that is not
    /// enough. Returns when it is done.
    pub async fn optimize(self: &Arc<Self>, target_mb: Option<u64>) -> Optimized {
        let governor = Arc::clone(self);
        // Trimming and shrinking take milliseconds, which must not delay requests.
        let done = tokio::task::spawn_blocking(move || governor.optimize_now(target_mb)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "memory cannot be optimized");
            let target_memory_mb = target_mb.unwrap_or_default();
            Optimized { target_memory_mb, actions_taken: vec![format!("failed: {error}")], ..Optimized::default() }
        })
    }

    /// Does the work of [`Governor::optimize`] on this thread. Blocks for milliseconds.
    pub fn optimize_now(&self, target_mb: Option<u64>) -> Optimized {
        self.hooks.acted(GovernorAction::Optimize);
        // The turn keeps the loop of the governor from acting at the same time.
        let _turn = lock(&self.turn);
        let target = target_mb.map_or(self.percent_of_limit(CALM_PERCENT), |mb| mb.saturating_mul(MB));
        let before = self.measure();
        let (actions_taken, after) = if before > target { self.reduce(before, target) } else { (Vec::new(), before) };
        Optimized {
            target_memory_mb: target_mb.unwrap_or(target / MB),
            current_memory_mb: in_mb(before),
            optimization_needed: before > target,
            actions_taken,
            memory_saved_mb: in_mb(before.saturating_sub(after)),
        }
    }

    /// Trims and shrinks. Returns descriptions of the actions, and the memory left.
    fn reduce(&self, before: u64, target: u64) -> (Vec<String>, u64) {
        let trimmed = self.trim(before);
        let mut done = vec![format!("gave back {:.1} MB of freed memory", in_mb(before.saturating_sub(trimmed)))];
        if trimmed <= target {
            return (done, trimmed);
        }
        let shrunk = self.shrink_to(target, trimmed);
        done.extend(shrunk.by_part.iter().map(|(name, freed)| format!("{name} released {:.1} MB", in_mb(*freed))));
        if shrunk.left_bytes > target {
            done.push("nothing more can be released at once".to_owned());
        }
        (done, shrunk.left_bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^53")]
fn in_mb(bytes: u64) -> f64 {
    bytes as f64 / MB as f64
}

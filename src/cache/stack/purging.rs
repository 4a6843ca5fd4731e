//! Purges: those of this process are sent to the tiers below memory, and those of other replicas are applied here.

use std::sync::Arc;

use futures_util::future::join_all;

use super::tiers::Stack;
use crate::cache::purges::{EVERYTHING, PurgeCounts};
use crate::cache::{Durability, LowerTier, Tier};

/// A purge that has taken effect in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the tiers below memory have yet to be told"]
pub struct Purge {
    /// Number of records removed from memory.
    pub forgotten: u64,
    /// Name under which the purge is counted.
    name: String,
    /// Tier from which the purge was learned, if it happened in another replica.
    learnt_from: Option<Tier>,
}

impl Stack {
    /// Purges everything, or the records of one model, named as in requests or in responses. From now on no tier's
    /// records of that kind are served. [`Stack::settle`] makes the purge durable.
    pub fn purge(&self, model: Option<&str>) -> Purge {
        // Memory is emptied after the counts have changed, so no record stored in between stays.
        let name = self.between_generations(&[model], || self.purges.raise(model));
        Purge { forgotten: self.empty_memory(model), name, learnt_from: None }
    }

    /// Sends a purge to the tiers below memory, except the one it came from, and waits until it is durable. Returns the
    /// tiers that could not be told yet.
    pub async fn settle(&self, purge: &Purge) -> Vec<Tier> {
        let is_other = |tier: &&Arc<dyn LowerTier>| Some(tier.tier()) != purge.learnt_from;
        let others: Vec<_> = self.lower.iter().filter(is_other).collect();
        // Unsent purges are added for all tiers first, so that the disk saves them together with the purge.
        for tier in &others {
            tier.add_unsent(&purge.name);
        }
        let settled = join_all(others.iter().map(|tier| tier.purged(&self.purges, &purge.name))).await;
        let pending = others.iter().zip(settled).filter(|(_, settled)| *settled == Durability::Pending);
        pending.map(|(tier, _)| tier.tier()).collect()
    }

    /// Records, in the durable tiers, the purges that are about to be learned, within a short timeout. Must run before
    /// [`Stack::learn_purges`]: otherwise a record might be stored under a count, and a later process might start with
    /// a lower one.
    pub async fn note_ahead(&self, elsewhere: &PurgeCounts) {
        // The counts are read every second and are mostly unchanged. Only new ones are written to disk.
        if !self.purges.missed(elsewhere).is_empty() {
            self.purges.expect(elsewhere);
            join_all(self.lower.iter().map(|tier| tier.note_ahead())).await;
        }
    }

    /// Applies the purges that `tier` has and this process has missed. The caller must settle the returned purges.
    #[must_use = "the other tiers below memory have yet to be told"]
    pub fn learn_purges(&self, elsewhere: &PurgeCounts, tier: Tier) -> Vec<Purge> {
        let missed = self.purges.missed(elsewhere);
        let model = |name: &String| (name != EVERYTHING).then(|| name.clone());
        let models: Vec<Option<String>> = missed.iter().map(model).collect();
        let models: Vec<Option<&str>> = models.iter().map(Option::as_deref).collect();
        // As in `purge`, memory is emptied after the counts have changed.
        self.between_generations(&models, || self.purges.learn(elsewhere));
        let happened = missed.into_iter().zip(&models);
        happened
            .map(|(name, model)| Purge { forgotten: self.empty_memory(*model), name, learnt_from: Some(tier) })
            .collect()
    }

    /// Ends the generation before and after the counts change. Before, because records stored under the new count must
    /// have been fetched after the purge. After, because records found under the old count must not be stored in
    /// memory.
    pub(super) fn between_generations<T>(&self, models: &[Option<&str>], change_counts: impl FnOnce() -> T) -> T {
        let next = || {
            for model in models {
                self.generations.next(*model);
            }
        };
        next();
        let changed = change_counts();
        next();
        changed
    }

    /// Empties memory, or removes the records of one model from it, and leaves the other tiers alone. Returns the
    /// number of removed records.
    pub fn forget(&self, model: Option<&str>) -> u64 {
        // The generation ends first, so no fetch under way stores its record after memory was emptied.
        self.generations.next(model);
        self.empty_memory(model)
    }

    fn empty_memory(&self, model: Option<&str>) -> u64 {
        let records = self.memory.records();
        if let Some(model) = model {
            return records.remove_where(|record| record.models().contains(&model));
        }
        let before = records.len();
        records.clear();
        before
    }
}

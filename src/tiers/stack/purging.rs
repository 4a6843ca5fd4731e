//! Purges: those of this process, told to the tiers below memory, and those of others, taken in.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Stack, Tier};
use crate::epochs::{EVERYTHING, PurgeCounts};
use crate::tiers::{LowerTier, Settled};

/// A purge that has happened in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the tiers below memory have yet to be told"]
pub struct Purge {
    /// Records that went from memory.
    pub forgotten: u64,
    /// Under which it is counted.
    name: String,
    /// The tier that it became known from, if it happened elsewhere.
    learnt_from: Option<Tier>,
}

impl Stack {
    /// Forgets everything, or the records of one model, by the upstream's name for it or the askers'. From here on no
    /// tier's records of that kind are served; [`Stack::settle`] makes that outlive the process.
    pub fn purge(&self, model: Option<&str>) -> Purge {
        let name = self.between_generations(&[model], || self.epochs.raise(model));
        Purge { forgotten: self.empty_memory(model), name, learnt_from: None }
    }

    /// Tells the tiers below memory of a purge, and waits until it outlives the process. Whoever brought it knows.
    /// Returns the tiers that could not be told yet.
    pub async fn settle(&self, purge: &Purge) -> Vec<Tier> {
        let is_other = |tier: &&Arc<dyn LowerTier>| Some(tier.tier()) != purge.learnt_from;
        let others: Vec<_> = self.lower.iter().filter(is_other).collect();
        for tier in &others {
            tier.owe(&purge.name);
        }
        let settled = join_all(others.iter().map(|tier| tier.purged(&self.epochs, &purge.name))).await;
        let pending = others.iter().zip(settled).filter(|(_, settled)| *settled == Settled::Pending);
        pending.map(|(tier, _)| tier.tier()).collect()
    }

    /// Has the purges that are about to be learnt noted where that outlives the process, as far as that goes in a moment.
    /// Comes before [`Stack::learn_purges`], so that nothing is stored under a count that a later process might begin
    /// below.
    pub async fn note_ahead(&self, elsewhere: &PurgeCounts) {
        if !self.epochs.missed(elsewhere).is_empty() {
            self.epochs.expect(elsewhere);
            join_all(self.lower.iter().map(|tier| tier.note_ahead())).await;
        }
    }

    /// Takes in the purges that `tier` knows of: those not known here happen here, too. They are to be settled.
    #[must_use = "the other tiers below memory have yet to be told"]
    pub fn learn_purges(&self, elsewhere: &PurgeCounts, tier: Tier) -> Vec<Purge> {
        let missed = self.epochs.missed(elsewhere);
        let model = |name: &String| (name != EVERYTHING).then(|| name.clone());
        let models: Vec<Option<String>> = missed.iter().map(model).collect();
        let models: Vec<Option<&str>> = models.iter().map(Option::as_deref).collect();
        self.between_generations(&models, || self.epochs.learn(elsewhere));
        let happened = missed.into_iter().zip(&models);
        happened
            .map(|(name, model)| Purge { forgotten: self.empty_memory(*model), name, learnt_from: Some(tier) })
            .collect()
    }

    /// Ends the generation before and after the epochs change. Before, because what is put at rest under the new epoch
    /// must have begun after the purge; after, because what was still found under the old one must not be remembered.
    pub(super) fn between_generations<T>(&self, models: &[Option<&str>], change_epochs: impl FnOnce() -> T) -> T {
        let next = || {
            for model in models {
                self.generations.next(*model);
            }
        };
        next();
        let changed = change_epochs();
        next();
        changed
    }

    /// Empties memory alone, or takes one model's records out of it; says how many went.
    pub fn forget(&self, model: Option<&str>) -> u64 {
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

//! Purges: those of this process are sent to the tiers below memory, and those of other replicas are applied here.

use std::slice;
use std::sync::Arc;

use futures_util::future::join_all;

use super::tiers::Stack;
use crate::cache::purges::{PurgeNews, PurgeSubject};
use crate::cache::{Durability, LowerTier, Tier};
use crate::key::Key;

/// A purge that has taken effect in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the tiers below memory have yet to be told"]
pub struct Purge {
    /// Number of records removed from memory.
    pub removed: u64,
    subject: PurgeSubject,
    /// Tier from which the purge was learned, if it happened in another replica.
    learnt_from: Option<Tier>,
}

impl Purge {
    /// Returns true if it covers models, not only single inputs.
    pub const fn is_of_models(&self) -> bool {
        !matches!(self.subject, PurgeSubject::Inputs(_))
    }
}

impl Stack {
    /// Purges everything, or the records of one model, named as in requests or in responses. From now on no tier's
    /// records of that kind are served. [`Stack::settle`] makes the purge durable.
    pub fn purge(&self, model: Option<&str>, now_ms: u64) -> Purge {
        // Memory is emptied after the counts have changed, so no record stored in between stays.
        let asked = PurgeSubject::of_model(model);
        let name = self.between_generations(&[asked], || self.purges.raise(model, now_ms));
        self.emptied(PurgeSubject::counted_as(&name), None)
    }

    /// Forgets the records of these keys. From now on no tier's records of them are served, except those of later
    /// fetches. Records from before live until `until_ms` at most. [`Stack::settle`] makes the purge durable.
    pub fn forget_inputs(&self, keys: &[Key], until_ms: u64) -> Purge {
        let subject = PurgeSubject::of_inputs(keys);
        self.between_generations(slice::from_ref(&subject), || self.purges.forgotten().raise(keys, until_ms));
        self.emptied(subject, None)
    }

    /// Sends a purge to the tiers below memory, and waits until it is durable. Returns for each tier the number of
    /// entries that it removed at once, and whether the purge is durable there.
    pub async fn settle(&self, purge: &Purge) -> Vec<(Tier, u64, Durability)> {
        let knows = |tier: &Arc<dyn LowerTier>| Some(tier.tier()) == purge.learnt_from;
        // Each replica may have written forgotten entries to the tier that knows the purge, and removes them there.
        let is_forget = matches!(purge.subject, PurgeSubject::Inputs(_));
        let told: Vec<_> = self.lower.iter().filter(|tier| is_forget || !knows(tier)).collect();
        // Unsent purges are added for all tiers first, so that the disk saves them together with the purge.
        for tier in told.iter().filter(|tier| !knows(tier)) {
            tier.add_unsent(&purge.subject);
        }
        let settled = join_all(told.iter().map(|tier| tier.purged(&self.purges, &purge.subject))).await;
        told.iter().zip(settled).map(|(tier, (removed, durability))| (tier.tier(), removed, durability)).collect()
    }

    /// Records, in the durable tiers, the purges that are about to be learned, within a short timeout. Must run before
    /// [`Stack::learn_purges`]: otherwise a record might be stored under a count, and a later process might start with
    /// a lower one.
    pub async fn note_ahead(&self, elsewhere: &PurgeNews) {
        // The counts are read every second and are mostly unchanged. Only new ones are written to disk.
        let forgotten = self.purges.forgotten();
        if !self.purges.missed(&elsewhere.counts).is_empty() || !forgotten.missed(&elsewhere.forgotten).is_empty() {
            self.purges.expect(&elsewhere.counts);
            forgotten.expect(&elsewhere.forgotten);
            join_all(self.lower.iter().map(|tier| tier.note_ahead())).await;
        }
    }

    /// Applies the purges that `tier` has and this process has missed. The caller must settle the returned purges.
    #[must_use = "the other tiers below memory have yet to be told"]
    pub fn learn_purges(&self, elsewhere: &PurgeNews, tier: Tier) -> Vec<Purge> {
        let missed = self.purges.missed(&elsewhere.counts);
        let mut subjects: Vec<PurgeSubject> = missed.iter().map(|name| PurgeSubject::counted_as(name)).collect();
        // All keys are one purge, because each purge is recorded on disk by itself.
        let keys = self.purges.forgotten().missed(&elsewhere.forgotten);
        subjects.extend((!keys.is_empty()).then(|| PurgeSubject::of_inputs(&keys)));
        // As in `purge`, memory is emptied after the counts have changed.
        self.between_generations(&subjects, || self.purges.learn_all(&elsewhere.counts, &elsewhere.forgotten));
        subjects.into_iter().map(|subject| self.emptied(subject, Some(tier))).collect()
    }

    /// Ends the generation before and after the counts change. Before, because records stored under the new count must
    /// have been fetched after the purge. After, because records found under the old count must not be stored in
    /// memory.
    pub(super) fn between_generations<T>(&self, subjects: &[PurgeSubject], change_counts: impl FnOnce() -> T) -> T {
        let next = || {
            for subject in subjects {
                self.generations.next(subject);
            }
        };
        next();
        let changed = change_counts();
        next();
        changed
    }

    /// Empties memory, or removes the records of one model from it, and leaves the other tiers alone. Returns the
    /// number of removed records.
    pub fn purge_memory(&self, model: Option<&str>) -> u64 {
        // The generation ends first, so no fetch under way stores its record after memory was emptied.
        let subject = PurgeSubject::of_model(model);
        self.generations.next(&subject);
        self.empty_memory(&subject)
    }

    fn emptied(&self, subject: PurgeSubject, learnt_from: Option<Tier>) -> Purge {
        Purge { removed: self.empty_memory(&subject), subject, learnt_from }
    }

    fn empty_memory(&self, subject: &PurgeSubject) -> u64 {
        let records = self.memory.records();
        match subject {
            PurgeSubject::Everything => {
                let before = records.len();
                records.clear();
                before
            }
            PurgeSubject::Model(model) => records.remove_where(|record| record.models().contains(&&**model)),
            PurgeSubject::Inputs(keys) => {
                let held: Vec<&Key> = keys.iter().filter(|key| self.memory.peek(key).is_some()).collect();
                for key in &held {
                    records.remove(key);
                }
                held.len() as u64
            }
        }
    }
}

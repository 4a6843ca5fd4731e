//! All caches of one process together: the tiers, and the reply cache, which depends on them.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::reply_cache::ReplyCache;
use super::{Durability, Stack, Tier};
use crate::key::Key;
use crate::observe::metrics::TierStats;
use crate::process::governor::Shrink;

/// Handle of the tiers and the reply cache. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    tiers: Arc<Stack>,
    replies: Arc<ReplyCache>,
}

/// Result of a purge. In this process it takes effect before the purge returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of removed entries, as far as it is known.
    pub entries: u64,
    /// Tiers that could not store the purge yet. It is sent to them as soon as possible.
    pub pending: Vec<Tier>,
    /// True if the pending purges survive a restart of the process.
    pub is_remembered: bool,
}

/// Entries to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetOrder {
    /// Number of inputs of the request.
    pub inputs: usize,
    /// Number of scopes that the request names.
    pub scopes: usize,
    /// Keys of the inputs in all of these scopes, each once.
    pub keys: Vec<Key>,
    /// Time at which all of their present entries have expired.
    pub until_ms: u64,
}

/// Result of a forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Number of entries that left each tier.
    pub removed: Vec<(Tier, u64)>,
    /// Tiers that could not store it yet.
    pub pending: Vec<Tier>,
    /// Tiers that have stored it, but whose medium still holds entries, which are never served.
    pub unerased: Vec<Tier>,
    /// True if it survives a restart of the process although tiers are pending.
    pub is_remembered: bool,
}

/// As many keys are forgotten as a process remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Caches {
    /// Creates the handle of these caches.
    pub const fn new(tiers: Arc<Stack>, replies: Arc<ReplyCache>) -> Self {
        Self { tiers, replies }
    }

    /// Returns the tiers.
    pub const fn tiers(&self) -> &Arc<Stack> {
        &self.tiers
    }

    /// Returns the statistics of each tier.
    pub fn stats(&self) -> Vec<(Tier, TierStats)> {
        let own = [(Tier::Memory, self.tiers.memory().stats()), (Tier::Answers, self.replies.stats())];
        let lower = self.tiers.lower().iter().map(|tier| (tier.tier(), tier.stats()));
        own.into_iter().chain(lower).collect()
    }

    /// Removes all entries, or those of one model, from all tiers. Returns once the entries cannot return, even after a
    /// restart, or once it is certain that a tier cannot promise this yet. Continues if the caller leaves.
    pub async fn purge(&self, model: Option<&str>, now_ms: u64) -> Purged {
        self.on_blocking_thread(model, move |caches, model| {
            // Counts and memory change first, so this process serves no purged entry while the lower tiers are told.
            let purge = caches.tiers.purge(model, now_ms);
            // Replies cached from purged records must not be served while slower tiers store the purge.
            caches.replies.clear();
            let pending = pending(&Handle::current().block_on(caches.tiers.settle(&purge)));
            caches.replies.clear();
            let is_remembered = caches.remembers(&pending);
            Purged { entries: purge.removed, pending, is_remembered }
        })
        .await
    }

    /// Forgets the entries of some keys in all tiers, like [`Caches::purge`]. Returns an error and forgets nothing if
    /// too many keys are forgotten already.
    pub async fn forget(&self, order: ForgetOrder, now_ms: u64) -> Result<Forgotten, NoRoom> {
        let (caches, ForgetOrder { keys, until_ms, .. }) = (self.clone(), order);
        // The blocking task continues if the caller leaves.
        let forgotten = spawn_blocking(move || {
            let forgotten = caches.tiers.forgotten();
            forgotten.expire(now_ms);
            if !forgotten.has_room(&keys) {
                return Err(NoRoom);
            }
            let purge = caches.tiers.forget_inputs(&keys, until_ms);
            // Replies do not know their keys, and a generation ends all of them anyway.
            let replies = caches.replies.stored().len();
            caches.replies.clear();
            let settled = Handle::current().block_on(caches.tiers.settle(&purge));
            caches.replies.clear();
            let mut removed = vec![(Tier::Memory, purge.removed), (Tier::Answers, replies)];
            removed.extend(settled.iter().map(|(tier, entries, _)| (*tier, *entries)));
            let pending = pending(&settled);
            let (unerased, is_remembered) = (tiers_with(&settled, Durability::Unerased), caches.remembers(&pending));
            Ok(Forgotten { removed, pending, unerased, is_remembered })
        });
        forgotten.await.expect("a purge must not panic")
    }

    /// Returns true if a tier stores the purges that the pending tiers still have to receive.
    fn remembers(&self, pending: &[Tier]) -> bool {
        self.tiers.lower().iter().any(|tier| tier.remembers_purges() && !pending.contains(&tier.tier()))
    }

    /// Removes all entries, or those of one model, from memory. Also empties the reply cache, which depends on it.
    pub async fn purge_memory(&self, model: Option<&str>) -> Purged {
        self.on_blocking_thread(model, |caches, model| {
            // No purge count is raised, so records in the lower tiers stay valid and may return to memory.
            let entries = caches.tiers.purge_memory(model);
            caches.replies.clear();
            Purged { entries, ..Purged::default() }
        })
        .await
    }

    /// Removes all replies, or those of one model, from the reply cache. A reply knows only the upstream's name of its
    /// model.
    pub async fn purge_replies(&self, model: Option<&str>) -> Purged {
        self.on_blocking_thread(model, |caches, model| {
            let stored = caches.replies.stored();
            let entries = if let Some(model) = model {
                stored.remove_where(|reply| &*reply.validity.identity.model == model)
            } else {
                let before = stored.len();
                caches.replies.clear();
                before
            };
            Purged { entries, ..Purged::default() }
        })
        .await
    }

    /// Empties one tier below memory. Returns `None` if the process has no such tier.
    pub async fn clear_lower(&self, tier: Tier) -> Option<Purged> {
        let lower = self.tiers.lower().iter().find(|lower| lower.tier() == tier)?;
        let (entries, durability) = lower.clear().await;
        let pending = if durability == Durability::Pending { vec![tier] } else { Vec::new() };
        Some(Purged { entries, pending, is_remembered: false })
    }

    /// Returns the caches in memory, in the order in which they shrink under memory pressure. The reply cache comes
    /// first, because its entries can be rendered again.
    pub fn shrinkable(&self) -> Vec<Arc<dyn Shrink>> {
        vec![Arc::clone(&self.replies) as Arc<dyn Shrink>, Arc::clone(&self.tiers) as Arc<dyn Shrink>]
    }

    /// Runs a purge on a thread for blocking work: it walks all entries, which takes milliseconds.
    async fn on_blocking_thread(
        &self,
        model: Option<&str>,
        purge: impl FnOnce(&Self, Option<&str>) -> Purged + Send + 'static,
    ) -> Purged {
        // The blocking task owns its arguments, because it continues if the caller leaves.
        let (caches, model) = (self.clone(), model.map(str::to_owned));
        let purged = spawn_blocking(move || purge(&caches, model.as_deref()));
        purged.await.expect("a purge must not panic")
    }
}

fn pending(settled: &[(Tier, u64, Durability)]) -> Vec<Tier> {
    tiers_with(settled, Durability::Pending)
}

fn tiers_with(settled: &[(Tier, u64, Durability)], wanted: Durability) -> Vec<Tier> {
    settled.iter().filter(|(_, _, durability)| *durability == wanted).map(|(tier, ..)| *tier).collect()
}

impl Shrink for ReplyCache {
    fn name(&self) -> &'static str {
        Tier::Answers.label()
    }

    fn bytes(&self) -> u64 {
        self.stored().bytes()
    }

    fn shrink(&self, bytes: u64) -> u64 {
        self.stored().shed(bytes)
    }
}

/// Only the memory tier of a stack shrinks.
impl Shrink for Stack {
    fn name(&self) -> &'static str {
        Tier::Memory.label()
    }

    fn bytes(&self) -> u64 {
        self.memory().records().bytes()
    }

    fn shrink(&self, bytes: u64) -> u64 {
        self.memory().records().shed(bytes)
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

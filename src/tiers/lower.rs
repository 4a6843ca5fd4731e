//! What a tier below memory is to the stack: a place that may answer, soon or not at all, and never with an error.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Tier;
use crate::epochs::Epochs;
use crate::key::Key;
pub use crate::tasks::Eventually;

/// Bytes at rest: a record as [`super::at_rest`] writes it. No tier looks into them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRest {
    /// The record.
    pub bytes: Bytes,
    /// When it is of no use any more, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// The size and the luck of a tier since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowerStats {
    /// Whether it works at this moment.
    pub up: bool,
    /// Why it does not, where that is known. Holds no secret.
    pub cause: Option<String>,
    /// Entries held, where that is known.
    pub entries: u64,
    /// Bytes held, where that is known.
    pub bytes: u64,
    /// Bytes that may be held; zero where somebody else sees to that.
    pub capacity_bytes: u64,
    /// Keys that were found.
    pub hits: u64,
    /// Keys that were not.
    pub misses: u64,
    /// Entries let go to make room.
    pub evictions: u64,
    /// Entries that were not written, for want of room in the queue or because the tier was down.
    pub dropped: u64,
}

/// Whether a purge, or a clearing, holds in a tier for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It does, whatever becomes of this process.
    ForGood,
    /// The tier cannot be reached. Nothing that was purged is served by this process; the tier hears of it as soon as
    /// it can.
    Pending,
}

/// A tier below memory.
pub trait LowerTier: Send + Sync + Debug {
    /// Which one.
    fn tier(&self) -> Tier;

    /// What is under each of `keys`, in their order. A tier that is down, slow, full or damaged answers nothing, within
    /// a time of its own. What waits to be written is found.
    fn get<'a>(&'a self, keys: &'a [Key]) -> Eventually<'a, Vec<Option<Bytes>>>;

    /// Queues something to be written, or drops it if too much waits already. Never waits.
    fn put(&self, key: Key, entry: AtRest);

    /// A purge was noted in the [`Epochs`] under this name: a tier that is shared notes there, too, that the others
    /// have yet to hear of it. Comes before [`LowerTier::purged`] of any tier, so that the debt is kept with the purge.
    fn owe(&self, name: &str) {
        let _ = name;
    }

    /// A purge was noted in the [`Epochs`] under this name. Resolves once it will outlive the process and has reached
    /// whoever shares this tier, or once it is certain that it cannot.
    fn purged<'a>(&'a self, epochs: &'a Arc<Epochs>, name: &'a str) -> Eventually<'a, Settled>;

    /// Purges are about to be learnt, and stand in what the [`Epochs`] have to note: a tier that outlives the process
    /// notes it. Resolves once it has, or has tried for a moment.
    fn note_ahead(&self) -> Eventually<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Lets everything in this tier go, here and for whoever shares it. Says how many entries those were, where that
    /// is known.
    fn clear(&self) -> Eventually<'_, (u64, Settled)>;

    /// Shows every entry in this tier until `visit` breaks off, if its entries are this process's own. Blocks.
    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let _ = visit;
        ControlFlow::Continue(())
    }

    /// Resolves once nothing waits to be written, or nothing can be.
    fn drained(&self) -> Eventually<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// How it is doing.
    fn stats(&self) -> LowerStats;

    /// Writes out what still waits, at most for `patience`. Says how many entries were left.
    fn close(&self, patience: Duration) -> Eventually<'_, usize>;
}

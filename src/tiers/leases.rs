//! Which replica fetches what all of them lack: agreed on through a tier that they share.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use super::{Eventually, Tier};
use crate::key::Key;

/// Who fetches one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This process: it holds the lease until it gives it back.
    Ours,
    /// Another process, for now.
    Theirs,
    /// There is no agreement to be had. Everybody fetches.
    Unknown,
}

/// What is to be seen of one key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What is stored under it by now, looked at after the lease was asked for: where nothing is stored and the lease
    /// is ours, nobody has fetched it.
    pub stored: Option<Bytes>,
    /// The lease.
    pub standing: Standing,
}

impl Sight {
    /// Nothing stored, nothing agreed.
    pub const UNKNOWN: Self = Self { stored: None, standing: Standing::Unknown };
}

/// Leases on keys, among all processes that share a tier. A lease ends by itself, so that a holder that vanishes holds
/// nobody up for longer.
pub trait Leases: Send + Sync + Debug {
    /// The tier that is shared.
    fn tier(&self) -> Tier;

    /// How long a lease lasts that is not given back.
    fn length(&self) -> Duration;

    /// Asks for the lease of each key that has none, and looks at what is stored under it. Answers within a time of its
    /// own.
    fn take<'a>(&'a self, keys: &'a [Key]) -> Eventually<'a, Vec<Sight>>;

    /// Gives leases back that are ours, each as soon as what was put under its key before is written. Never waits.
    fn release(&self, keys: &[Key]);
}

//! Progress of a request: the state of each distinct key, and where its vector came from.

use std::sync::Arc;

use http::HeaderMap;

use super::fetch_leases::LookupLeases;
use super::vector_budget::VectorReservation;
use crate::cache::{Record, Tier};
use crate::key::Key;
use crate::observe::metrics::InputSource;
use crate::upstream::{CallInfo, Failure};

/// A failed fetch, with the facts that decide whose fault it may be.
#[derive(Debug)]
pub struct FailedFetch {
    pub(super) failure: Arc<Failure>,
    /// Keys that were requested together.
    pub(super) keys: Arc<[Key]>,
    /// Hash of the credential that was used.
    pub(super) credential: Key,
    /// Id of the request that led it, by [`OwnRequest::id`](crate::upstream::OwnRequest::id).
    pub(super) request: u64,
}

/// The state of one distinct key of a request.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Not looked up successfully or fetched yet.
    Empty,
    /// A vector.
    Served(Served),
    /// The failure of its fetch.
    Failed(Arc<FailedFetch>),
}

/// A vector and where it came from.
#[derive(Clone, Debug)]
pub struct Served {
    /// The vector.
    pub(super) record: Arc<Record>,
    /// Where it came from, for the request that fetched it.
    pub(super) source: InputSource,
    /// The call that brought it, if one did.
    pub(super) call: Option<Arc<CallInfo>>,
}

/// Result of a fetch for one key.
pub type FetchResult = Result<Served, Arc<FailedFetch>>;

/// Progress of a request.
pub(super) struct Progress {
    /// The state of each distinct key.
    pub(super) slots: Vec<Slot>,
    /// For each distinct key, a record that may serve as fallback while the upstream is unavailable.
    pub(super) fallback_records: Vec<Option<Arc<Record>>>,
    /// Memory reservation for its vectors.
    pub(super) reservation: Arc<VectorReservation>,
    /// Reason for the fallback, if one was used.
    pub(super) fallback: Option<String>,
    /// Leases that its look-up has taken, until its fetch gets them.
    pub(super) leases: Option<LookupLeases>,
}

impl Progress {
    pub(super) fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| slot.served().is_some())
    }

    pub(super) fn lacks_any(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Empty))
    }

    /// Returns the places of the keys that are still empty.
    pub(super) fn empty_places(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|place| matches!(self.slots[*place], Slot::Empty)).collect()
    }

    /// Iterates over the vectors found so far.
    pub(super) fn served(&self) -> impl Iterator<Item = &Served> {
        self.slots.iter().filter_map(Slot::served)
    }

    /// Iterates over the failures so far.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Arc<FailedFetch>> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Failed(failed) => Some(failed),
            _ => None,
        })
    }
}

impl Slot {
    pub(super) const fn served(&self) -> Option<&Served> {
        match self {
            Self::Served(served) => Some(served),
            _ => None,
        }
    }
}

impl Served {
    /// Returns a stored vector.
    pub(super) const fn stored(record: Arc<Record>, tier: Tier) -> Self {
        Self { record, source: InputSource::of_tier(tier), call: None }
    }

    /// Returns the same vector for a request that joined its fetch.
    pub(super) fn joined(self) -> Self {
        // The other request may have found the vector in a tier. Then the tier stays its source.
        let source = if self.source == InputSource::Upstream { InputSource::Joined } else { self.source };
        Self { source, ..self }
    }

    /// Returns the headers of the call that brought it.
    pub(super) fn call_headers(&self) -> Option<&HeaderMap> {
        self.call.as_deref().map(|call| &call.headers)
    }
}

//! How a request can end, and how each of its inputs got there.

use std::sync::Arc;

use http::HeaderMap;

use super::Answer;
use super::room::Held;
use crate::key::Key;
use crate::tiers::{Record, Tier};
use crate::upstream::{CallInfo, Class, Failure, Reply};
use crate::wire::Bypass;

/// How a request ends.
pub enum Outcome {
    /// With vectors for every input.
    Answer(Box<Answer>),
    /// With an error of the upstream, or with one of ours because there was none to pass on.
    Refused(Refusal),
    /// With an answer that cannot be believed but was exactly what this caller asked for: it is passed on as it came.
    Unreadable(Box<Reply>),
    /// Not here: the original request has to go through unchanged.
    PassThrough(Bypass),
    /// `only-if-cached`, and not everything was.
    NotCached,
    /// There was no memory for its vectors before its deadline.
    Overloaded,
}

/// Why there are no vectors.
#[derive(Debug)]
pub struct Refusal {
    /// The class of the failure behind it.
    pub class: Class,
    /// The upstream's own words, if it had any.
    pub reply: Option<Box<Reply>>,
    /// The cause in a few words.
    pub detail: String,
}

impl Refusal {
    /// The refusal that a failure means for a caller.
    pub fn of(failure: &Failure) -> Self {
        Self { class: failure.class, reply: failure.reply.clone(), detail: failure.detail.clone() }
    }
}

/// Where the answer to an input came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tier.
    Tier(Tier),
    /// A fetch that another request had started.
    Joined,
    /// A fetch made for this request.
    Upstream,
    /// An entry past its time.
    Stale,
    /// The mock.
    Mock,
}

/// A result that landed.
#[derive(Clone, Debug)]
pub struct Landed {
    /// The vector.
    pub(super) record: Arc<Record>,
    /// The call that brought it; nothing where a look after the claim found it stored.
    pub(super) call: Option<Arc<CallInfo>>,
    /// Where it was found, if no call brought it.
    pub(super) tier: Tier,
}

/// A fetch that failed, with what tells whose fault it may be.
#[derive(Debug)]
pub struct Failed {
    pub(super) failure: Arc<Failure>,
    /// What was asked for together.
    pub(super) keys: Arc<[Key]>,
    /// With whose credential.
    pub(super) credential: Key,
    /// For which request, by [`OwnRequest::id`](crate::upstream::OwnRequest::id).
    pub(super) request: u64,
}

/// The state of one distinct key of a request.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Nothing yet.
    Empty,
    /// A vector.
    Served(Served),
    /// No vector, and why.
    Failed(Arc<Failed>),
}

/// A vector and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) record: Arc<Record>,
    pub(super) source: Source,
    pub(super) call: Option<Arc<CallInfo>>,
}

/// How far a request has come.
pub(super) struct Progress {
    /// The state of each distinct key.
    pub(super) slots: Vec<Slot>,
    /// For each distinct key a record that may stand in while the upstream is unavailable.
    pub(super) stand_ins: Vec<Option<Arc<Record>>>,
    /// The room for its vectors.
    pub(super) room: Arc<Held>,
    /// Why something stands in.
    pub(super) fallback: Option<String>,
}

impl Progress {
    pub(super) fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| slot.served().is_some())
    }

    pub(super) fn lacks_any(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Empty))
    }

    /// The keys without anything yet, by their place.
    pub(super) fn empty_places(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|place| matches!(self.slots[*place], Slot::Empty)).collect()
    }

    /// The vectors at hand.
    pub(super) fn served(&self) -> impl Iterator<Item = &Served> {
        self.slots.iter().filter_map(Slot::served)
    }

    /// The failures so far.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Arc<Failed>> {
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
    /// Headers of the call that brought it.
    pub(super) fn call_headers(&self) -> Option<&HeaderMap> {
        self.call.as_deref().map(|call| &call.headers)
    }
}

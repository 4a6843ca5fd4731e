//! Single-flight across replicas: for each missing key one replica asks the upstream, and the others
//! read what it stores.
//!
//! The holder of a key's lease fetches the key, stores it, and releases the lease, in this order. The other replicas
//! request the lease again from time to time. They get the record, or the lease if its holder gave up or vanished. If
//! the holder's call failed, or the lease store is unavailable, every replica fetches.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::awaited::AwaitedFetches;
use super::fetch::Fetch;
use super::fetch_leases::FetchLeases;
use super::progress::Served;
use crate::cache::{ForeignLease, Found, LeaseEnd, LeaseHolder, LeaseReply, Leases};
use crate::key::Key;
use crate::observe::metrics::LeaseWait;
use crate::process::random;
use crate::wire::Input;

/// Share of its remaining time that a fetch waits for others at most. The rest is for a call of its own.
const WAIT_SHARE: u32 = 2;

/// Input with its place in the lead.
type Placed = (usize, Input<'static>);
/// Inputs with their places in the lead.
type Open = Vec<Placed>;

/// Inputs that were asked for and are not stored.
#[derive(Default)]
struct Sorted {
    to_fetch: Open,
    theirs: Vec<(Placed, ForeignLease)>,
    /// Ends of the waits, if the inputs have waited.
    ends: Vec<LeaseWait>,
}

impl Sorted {
    fn fetch(&mut self, input: Placed, end: LeaseWait) {
        self.to_fetch.push(input);
        self.ends.push(end);
    }
}

impl Fetch {
    /// Returns the lease store if this fetch uses leases. Vectors that must not be stored, or not be read from the
    /// store, are fetched for their own request alone.
    pub(super) fn leases(&self) -> Option<&FetchLeases> {
        self.flow.leases.as_ref().filter(|_| self.may_use_stored && !self.context.controls.no_store)
    }

    /// Fetches the keys that no other replica is fetching, and waits for the rest.
    pub(super) async fn fetch_by_lease(&self, leases: &FetchLeases, open: Open) {
        // Releases the leases also if this future is dropped early.
        let _held = HeldLeases { fetch: self, store: &leases.store };
        let _agreeing = self.context.trace.lease(open.len());
        let begun = Instant::now();
        let call_time = self.flow.batcher.recent_call_time(&self.lane);
        let mut awaited = AwaitedFetches::new(Arc::clone(&leases.awaited));
        let (mut fetches, mut ready, mut asked, mut has_waited) = (FuturesUnordered::new(), Open::new(), open, false);
        // Each round takes the free leases, starts to fetch their keys, and waits for the remaining keys.
        loop {
            let keys = self.keys_of(&asked);
            // The fetches of earlier rounds must make progress meanwhile, because requests wait for them.
            let replies = if self.has_unread {
                leases.store.claim(&keys)
            } else {
                beside(&mut fetches, leases.store.take(&keys, call_time)).await
            };
            let Sorted { to_fetch, theirs, ends } = self.sort(&leases.store, asked, replies);
            if has_waited {
                for end in ends {
                    self.flow.metrics.cache.lease_waits(end, 1);
                }
            }
            has_waited = true;
            ready.extend(to_fetch);
            asked = awaited.note(theirs);
            // The keys of one fetch are asked for in two rounds, and share a call if they are free.
            if !asked.is_empty() {
                continue;
            }
            fetches.push(self.fetch(std::mem::take(&mut ready)));
            if awaited.is_empty() {
                break;
            }
            let (waited, longest_wait) = (begun.elapsed(), self.longest_wait(leases, &awaited, begun));
            if waited >= longest_wait {
                // At worst the upstream gets a second call for these keys. Their requests do not fail.
                let late = awaited.give_up();
                self.flow.metrics.cache.lease_waits(LeaseWait::TooLong, late.len());
                fetches.push(self.fetch(late));
                break;
            }
            let pause = awaited.pause(waited, random::fraction()).min(longest_wait.saturating_sub(waited));
            beside(&mut fetches, sleep(pause)).await;
            asked = awaited.asked();
        }
        // `_held` releases all leases at the end, so no fetch may be left then.
        while fetches.next().await.is_some() {}
    }

    /// Returns the time after which this fetch calls the upstream itself, whatever the other replicas do.
    fn longest_wait(&self, leases: &FetchLeases, awaited: &AwaitedFetches<Placed>, begun: Instant) -> Duration {
        let left = self.context.deadline.saturating_duration_since(begun);
        leases.store.longest_wait(awaited.call_time()).min(left / WAIT_SHARE)
    }

    /// Completes the keys that are stored by now, and sorts the others.
    fn sort(&self, store: &Arc<dyn Leases>, asked: Open, replies: Vec<LeaseReply>) -> Sorted {
        let (mut sorted, mut stored) = (Sorted::default(), Vec::new());
        for ((place, input), reply) in asked.into_iter().zip(replies) {
            let key = self.lead.keys()[place];
            let found = reply
                .stored
                .map(|bytes| self.flow.tiers.take_in(store.tier(), key, &bytes, &self.lookup(), self.space.generation));
            match (found, reply.standing) {
                (Some(Found::Fresh(record, tier)), _) => {
                    stored.push((place, Served::stored(record, tier)));
                    sorted.ends.push(LeaseWait::Stored);
                }
                (_, LeaseHolder::Theirs(lease)) => sorted.theirs.push(((place, input), lease)),
                (_, LeaseHolder::Ours) => sorted.fetch((place, input), LeaseWait::TakenOver),
                // Without an agreement each replica fetches.
                (_, LeaseHolder::Failed) => sorted.fetch((place, input), LeaseWait::Failed),
                (_, LeaseHolder::Unknown) => sorted.fetch((place, input), LeaseWait::Unavailable),
            }
        }
        let places: Vec<usize> = stored.iter().map(|(place, _)| *place).collect();
        self.lead.complete(stored.into_iter().map(|(place, served)| (place, Ok(served))));
        // The lease and the record are requested together, so a stored key may have a lease as well.
        self.release(&places, LeaseEnd::GivenUp);
        sorted
    }

    /// Releases the leases of these places of the lead, if leases are in use.
    pub(super) fn release(&self, places: &[usize], end: LeaseEnd) {
        if let Some(leases) = self.leases() {
            leases.store.release(&places.iter().map(|place| self.lead.keys()[*place]).collect::<Vec<Key>>(), end);
        }
    }

    fn keys_of(&self, open: &Open) -> Vec<Key> {
        open.iter().map(|(place, _)| self.lead.keys()[*place]).collect()
    }
}

/// Releases the remaining leases when dropped.
struct HeldLeases<'a> {
    fetch: &'a Fetch,
    store: &'a Arc<dyn Leases>,
}

impl Drop for HeldLeases<'_> {
    fn drop(&mut self) {
        // All keys can be given: a key without a lease of this process is ignored.
        self.store.release(self.fetch.lead.keys(), LeaseEnd::GivenUp);
    }
}

/// Waits for `wanted` while driving the fetches.
async fn beside<T>(fetches: &mut FuturesUnordered<impl Future<Output = ()>>, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    loop {
        // An empty `FuturesUnordered` is ready at once, so this loop would never pause.
        let next = if fetches.is_empty() { None } else { Some(fetches.next()) };
        let Some(next) = next else { return wanted.await };
        match select(wanted.as_mut(), next).await {
            Either::Left((done, _)) => return done,
            Either::Right(_) => {}
        }
    }
}

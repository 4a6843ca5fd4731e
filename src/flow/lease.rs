//! Single-flight across replicas: for each missing key one replica asks the upstream, and the others
//! read what it stores.
//!
//! The holder of a key's lease fetches the key, stores it, and releases the lease, in this order. The other replicas
//! retry the lease. They get the record, or the lease if its holder failed or vanished. If the lease store is
//! unavailable, every replica fetches.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::fetch::Fetch;
use super::progress::Served;
use crate::cache::{Found, LeaseHolder, LeaseReply, Leases};
use crate::key::Key;
use crate::wire::Input;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Added to the pause for each awaited key, so large requests do not overload the lease store.
const PAUSE_PER_KEY: Duration = Duration::from_micros(50);
/// Number of lease lengths that one fetch waits for: one for a holder that vanished, one for its successor.
const MAX_WAIT_LENGTHS: u32 = 2;

/// Inputs with their places in the lead.
type Open = Vec<(usize, Input<'static>)>;

impl Fetch {
    /// Returns the lease store if this fetch uses leases. Vectors that must not be stored, or not be read from the
    /// store, are fetched for their own request alone.
    pub(super) fn leases(&self) -> Option<Arc<dyn Leases>> {
        self.flow.leases.clone().filter(|_| self.may_use_stored && !self.context.controls.no_store)
    }

    /// Fetches the keys that no other replica is fetching, and waits for the rest.
    pub(super) async fn fetch_by_lease(&self, leases: &Arc<dyn Leases>, open: Open) {
        // Releases the leases also if this future is dropped early.
        let _held = HeldLeases { fetch: self, leases };
        let _agreeing = self.context.trace.lease(open.len());
        // A replica that crashes does not release its lease, so the wait has a limit.
        let give_up_at = self.context.deadline.min(Instant::now() + leases.length() * MAX_WAIT_LENGTHS);
        let (mut fetches, mut open, mut pause) = (FuturesUnordered::new(), open, FIRST_PAUSE);
        // Each round takes the free leases, starts to fetch their keys, and waits for the remaining keys.
        loop {
            let keys = self.keys_of(&open);
            // The fetches of earlier rounds must make progress meanwhile, because requests wait for them.
            let sights = beside(&mut fetches, leases.take(&keys)).await;
            let (to_fetch, theirs) = self.sort(leases, open, sights);
            fetches.push(self.fetch(to_fetch));
            open = theirs;
            if open.is_empty() {
                break;
            }
            if Instant::now() >= give_up_at {
                // At worst the upstream gets a second call for these keys. Their requests do not fail.
                fetches.push(self.fetch(open));
                break;
            }
            let long = pause + PAUSE_PER_KEY * u32::try_from(open.len()).unwrap_or(u32::MAX);
            beside(&mut fetches, sleep(long)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
        // `_held` releases all leases at the end, so no fetch may be left then.
        while fetches.next().await.is_some() {}
    }

    /// Completes the keys that are stored by now. Returns the inputs to fetch here, and those to wait for.
    fn sort(&self, leases: &Arc<dyn Leases>, open: Open, sights: Vec<LeaseReply>) -> (Open, Open) {
        let (mut to_fetch, mut theirs, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, input), sight) in open.into_iter().zip(sights) {
            let key = self.lead.keys()[place];
            let found = sight.stored.map(|bytes| {
                self.flow.tiers.take_in(leases.tier(), key, &bytes, &self.lookup(), self.space.generation)
            });
            match (found, sight.standing) {
                (Some(Found::Fresh(record, tier)), _) => stored.push((place, Served::stored(record, tier))),
                (_, LeaseHolder::Theirs) => theirs.push((place, input)),
                // Without a reply of the lease store there is no agreement, so each replica fetches.
                (_, LeaseHolder::Ours | LeaseHolder::Unknown) => to_fetch.push((place, input)),
            }
        }
        let places: Vec<usize> = stored.iter().map(|(place, _)| *place).collect();
        self.lead.complete(stored.into_iter().map(|(place, served)| (place, Ok(served))));
        // One round trip requests the lease and then the record, so a stored key may have a lease as well.
        self.release(&places);
        (to_fetch, theirs)
    }

    /// Releases the leases of these places of the lead, if leases are in use.
    pub(super) fn release(&self, places: &[usize]) {
        if let Some(leases) = self.leases() {
            leases.release(&places.iter().map(|place| self.lead.keys()[*place]).collect::<Vec<Key>>());
        }
    }

    fn keys_of(&self, open: &Open) -> Vec<Key> {
        open.iter().map(|(place, _)| self.lead.keys()[*place]).collect()
    }
}

/// Releases the remaining leases when dropped.
struct HeldLeases<'a> {
    fetch: &'a Fetch,
    leases: &'a Arc<dyn Leases>,
}

impl Drop for HeldLeases<'_> {
    fn drop(&mut self) {
        // All keys can be given: a key without a lease of this process is ignored.
        self.leases.release(self.fetch.lead.keys());
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

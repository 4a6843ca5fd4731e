//! Leases held by this process: their release, and their renewal while a call lasts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::lease_value::token;
use super::link::WRITE_WITHIN;
use super::manager::LinkManager;
use crate::cache::{LeaseEnd, LeasedFetch, WriteQueue};
use crate::key::Key;
use crate::process::random;
use crate::process::tasks::Tasks;

/// Interval at which the leases are examined for renewal. The shortest lease has time for three attempts.
const EXAMINED_EVERY: Duration = Duration::from_millis(400);

/// Leases held by this process, and what each of them waits for.
pub(super) struct Holds {
    /// Token that marks the leases of this process. No other process has the same token.
    pub(super) token: String,
    process: u128,
    fetches: AtomicU64,
    held: Mutex<HashMap<Key, Hold>>,
    /// Wakes the renewal when there is a first lease.
    begun: Notify,
    tasks: Tasks,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    event: HoldEvent,
    /// Length of the lease and time of its next renewal; `None` if it is not renewed.
    renewal: Option<(Duration, Instant)>,
}

/// Event that a lease waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldEvent {
    /// A fetch that takes it over, after a look-up has found nothing.
    Claim,
    /// The end of the fetch.
    Fetch,
    /// The write of the result; then the lease is released.
    Write,
}

impl Holds {
    pub(super) fn new(tasks: Tasks) -> Self {
        let mut bytes = [0; 16];
        random::fill(&mut bytes);
        let process = u128::from_le_bytes(bytes);
        let (fetches, begun) = (AtomicU64::new(0), Notify::new());
        Self { token: token(process), process, fetches, held: Mutex::default(), begun, tasks }
    }

    /// Returns the identity of a fetch that begins now.
    pub(super) fn next_fetch(&self) -> LeasedFetch {
        LeasedFetch { process: self.process, number: self.fetches.fetch_add(1, Ordering::Relaxed) }
    }

    /// Adds leases that this process now holds. With `renewed`, their length, they are renewed until their release.
    pub(super) fn add(&self, keys: impl IntoIterator<Item = Key>, event: HoldEvent, renewed: Option<Duration>) {
        let renewal = renewed.map(|length| (length, Instant::now() + length / 3));
        let hold = Hold { event, renewal };
        let mut held = self.lock();
        let was_empty = held.is_empty();
        held.extend(keys.into_iter().map(|key| (key, hold)));
        drop(held);
        if was_empty && renewed.is_some() {
            self.begun.notify_one();
        }
    }

    /// Hands leases that a look-up has taken to a fetch. Returns for each key whether there was one.
    pub(super) fn claim(&self, keys: &[Key]) -> Vec<bool> {
        let mut held = self.lock();
        let mut claim = |key| {
            let hold = held.get_mut(key).filter(|hold| hold.event == HoldEvent::Claim);
            hold.map(|hold| hold.event = HoldEvent::Fetch).is_some()
        };
        keys.iter().map(&mut claim).collect()
    }

    /// Releases leases that a look-up has taken and no fetch has claimed.
    pub(super) fn give_back(&self, keys: &[Key], manager: &Arc<LinkManager>) {
        let mut held = self.lock();
        let is_unclaimed = |key: &&Key| held.get(*key).is_some_and(|hold| hold.event == HoldEvent::Claim);
        let unclaimed: Vec<Key> = keys.iter().filter(is_unclaimed).copied().collect();
        for key in &unclaimed {
            held.remove(key);
        }
        drop(held);
        self.end(unclaimed, false, manager);
    }

    /// Releases leases that may have been granted although no answer said so.
    pub(super) fn end_unclear(&self, mut keys: Vec<Key>, manager: &Arc<LinkManager>) {
        let held = self.lock();
        // Another fetch of this process may hold the lease.
        keys.retain(|key| !held.contains_key(key));
        drop(held);
        self.end(keys, false, manager);
    }

    /// Releases leases, each as soon as no write for its key is queued.
    pub(super) fn release(&self, keys: &[Key], end: LeaseEnd, (queue, manager): (&WriteQueue, &Arc<LinkManager>)) {
        let mut held = self.lock();
        let mut now = Vec::new();
        for key in keys {
            // A lease that a look-up of another request has taken is given back by that request.
            let claimed = held.get_mut(key).filter(|hold| hold.event != HoldEvent::Claim);
            match claimed {
                // If the lease ended before the record is in Redis, another replica would fetch the same input.
                Some(hold) if queue.holds(key) => hold.event = HoldEvent::Write,
                Some(_) => now.extend(held.remove_entry(key).map(|(key, _)| key)),
                None => {}
            }
        }
        // The writer calls `written` only after an entry has left the queue, so every lease is released by one of the
        // two.
        drop(held);
        self.end(now, end == LeaseEnd::Failed, manager);
    }

    /// Releases the leases that waited for these keys, which are now written or given up.
    pub(super) fn written(&self, keys: &[Key], manager: &Arc<LinkManager>) {
        let mut held = self.lock();
        let mut now = Vec::new();
        for key in keys {
            if held.get(key).is_some_and(|hold| hold.event == HoldEvent::Write) {
                now.extend(held.remove_entry(key).map(|(key, _)| key));
            }
        }
        drop(held);
        self.end(now, false, manager);
    }

    /// Releases all leases that wait for a write, after the queue was cleared.
    pub(super) fn nothing_waits(&self, manager: &Arc<LinkManager>) {
        // A cleared entry may never be part of a batch; then no write would release its lease.
        let is_waiting = |hold: &mut Hold| hold.event == HoldEvent::Write;
        let now = self.lock().extract_if(|_, hold| is_waiting(hold)).map(|(key, _)| key).collect();
        self.end(now, false, manager);
    }

    /// Ends leases in Redis: deletes them, or marks them as failed. If Redis cannot be reached, they expire by
    /// themselves.
    pub(super) fn end(&self, keys: Vec<Key>, has_failed: bool, manager: &Arc<LinkManager>) {
        let Some(link) = manager.status.link().filter(|_| !keys.is_empty()) else { return };
        let (manager, token) = (Arc::clone(manager), self.token.clone());
        // A task sends the command, because callers of `release` never wait.
        self.tasks.spawn(async move {
            let leases = keys.iter().map(|key| manager.names.lease(key)).collect();
            let ended = link.end(leases, (&token, has_failed), manager.config.timeout).await;
            if let Some(error) = ended.error {
                manager.status.failed(&link, &error);
            }
        });
    }

    /// Renews leases until the task is stopped.
    pub(super) async fn renew(self: Arc<Self>, manager: Arc<LinkManager>) {
        loop {
            if self.lock().is_empty() {
                // `notify_one` stores a permit, so a lease that is added before this line wakes the task.
                self.begun.notified().await;
            }
            sleep(EXAMINED_EVERY).await;
            for (length, keys) in self.due(Instant::now()) {
                self.renew_all(keys, length, &manager).await;
            }
        }
    }

    async fn renew_all(&self, keys: Vec<Key>, length: Duration, manager: &Arc<LinkManager>) {
        let Some(link) = manager.status.link() else { return };
        let names = keys.iter().map(|key| manager.names.lease(key)).collect();
        let renewed = link.renew(names, (&self.token, length), WRITE_WITHIN.max(manager.config.timeout)).await;
        if let Some(error) = &renewed.error {
            manager.status.failed(&link, error);
        }
        let next = Instant::now() + length / 3;
        let mut held = self.lock();
        for (key, renewed) in keys.iter().zip(renewed.each) {
            // It may have been released meanwhile. Without an answer, the next examination tries again.
            let (Some(hold), Some(renewed)) = (held.get_mut(key), renewed) else { continue };
            // A lease that was lost is not taken back: another replica may fetch the key by now.
            hold.renewal = renewed.then_some((length, next));
        }
    }

    /// Returns the leases whose renewal is due, by length.
    fn due(&self, now: Instant) -> HashMap<Duration, Vec<Key>> {
        let mut due: HashMap<Duration, Vec<Key>> = HashMap::new();
        for (key, hold) in &*self.lock() {
            if let Some((length, _)) = hold.renewal.filter(|(_, at)| *at <= now) {
                due.entry(length).or_default().push(*key);
            }
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Hold>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::*;
    use crate::cache::AtRest;
    use crate::config::Config;
    use crate::key::{KeyBuilder, Tag};
    use crate::process::clock::Clock;

    #[tokio::test]
    async fn a_lease_is_held_until_its_record_is_written() {
        let config = Config::from_pairs(&[]).expect("the defaults are legal").redis;
        let manager = Arc::new(LinkManager::new(config, Ledger::new(Arc::default()), Clock::manual(0), Tasks::new()));
        let (holds, queue) = (Holds::new(Tasks::new()), WriteQueue::new(10_000, super::super::writing::BATCH));
        let key = |n: u8| KeyBuilder::new(None).part(Tag::Text, &[n]).finish();
        holds.add([key(1), key(2)], HoldEvent::Fetch, None);
        queue.push(key(1), AtRest { bytes: bytes::Bytes::from_static(b"record"), until_ms: 1 });
        holds.release(&[key(1), key(2)], LeaseEnd::Fetched, (&queue, &manager));
        let held = || holds.lock().keys().copied().collect::<Vec<_>>();
        assert_eq!(held(), [key(1)], "nothing of the other waits");
        let batch = queue.next().await;
        queue.done(&batch);
        holds.written(&[key(1), key(2)], &manager);
        assert_eq!(held(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_due_for_renewal_after_a_third_of_its_length() {
        let holds = Holds::new(Tasks::new());
        let key = |n: u8| KeyBuilder::new(None).part(Tag::Text, &[n]).finish();
        let length = Duration::from_secs(3);
        holds.add([key(1)], HoldEvent::Fetch, Some(length));
        holds.add([key(2)], HoldEvent::Claim, None);
        assert!(holds.due(Instant::now()).is_empty());
        let due = holds.due(Instant::now() + length / 3);
        assert_eq!(due.into_iter().collect::<Vec<_>>(), [(length, vec![key(1)])]);
    }

    #[tokio::test]
    async fn a_lease_of_a_lookup_goes_to_a_fetch_or_back() {
        let config = Config::from_pairs(&[]).expect("the defaults are legal").redis;
        let manager = Arc::new(LinkManager::new(config, Ledger::new(Arc::default()), Clock::manual(0), Tasks::new()));
        let (holds, queue) = (Holds::new(Tasks::new()), WriteQueue::new(10_000, super::super::writing::BATCH));
        let key = |n: u8| KeyBuilder::new(None).part(Tag::Text, &[n]).finish();
        holds.add([key(1), key(2)], HoldEvent::Claim, None);
        holds.release(&[key(1), key(2)], LeaseEnd::GivenUp, (&queue, &manager));
        assert_eq!(holds.claim(&[key(1), key(3)]), [true, false], "a fetch without the lease does not release it");
        holds.give_back(&[key(1), key(2)], &manager);
        assert_eq!(holds.lock().keys().copied().collect::<Vec<_>>(), [key(1)]);
        assert_eq!(holds.claim(&[key(1)]), [false], "it has been claimed");
    }
}

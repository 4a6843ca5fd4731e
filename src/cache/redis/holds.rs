//! Leases held by this process.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::manager::LinkManager;
use crate::cache::WriteQueue;
use crate::key::Key;
use crate::process::tasks::Tasks;

/// Leases held by this process, and what each of them waits for.
pub(super) struct Holds {
    /// Token that marks the leases of this process. No other process has the same token.
    pub(super) token: String,
    held: Mutex<HashMap<Key, Hold>>,
    tasks: Tasks,
}

/// Event that a lease waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// The end of the fetch.
    Fetch,
    /// The write of the result; then the lease is released.
    Write,
}

impl Holds {
    pub(super) fn new(tasks: Tasks) -> Self {
        // `RandomState` is seeded at random, so tokens differ between processes.
        let random = || RandomState::new().hash_one(std::process::id());
        Self { token: format!("{:016x}{:016x}", random(), random()), held: Mutex::default(), tasks }
    }

    /// Adds leases that this process now holds.
    pub(super) fn add(&self, keys: impl IntoIterator<Item = Key>) {
        self.lock().extend(keys.into_iter().map(|key| (key, Hold::Fetch)));
    }

    /// Releases leases, each as soon as no write for its key is queued.
    pub(super) fn release(&self, keys: &[Key], queue: &WriteQueue, manager: &Arc<LinkManager>) {
        let mut held = self.lock();
        let mut now = Vec::new();
        for key in keys {
            match held.get_mut(key) {
                // If the lease ended before the record is in Redis, another replica would fetch the same input.
                Some(hold) if queue.holds(key) => *hold = Hold::Write,
                Some(_) => now.extend(held.remove_entry(key).map(|(key, _)| key)),
                None => {}
            }
        }
        // The writer calls `written` only after an entry has left the queue, so every lease is released by one of the
        // two.
        drop(held);
        self.give_back(now, manager);
    }

    /// Releases the leases that waited for these keys, which are now written or given up.
    pub(super) fn written(&self, keys: &[Key], manager: &Arc<LinkManager>) {
        let mut held = self.lock();
        let mut now = Vec::new();
        for key in keys {
            if held.get(key) == Some(&Hold::Write) {
                now.extend(held.remove_entry(key).map(|(key, _)| key));
            }
        }
        drop(held);
        self.give_back(now, manager);
    }

    /// Releases all leases that wait for a write, after the queue was cleared.
    pub(super) fn nothing_waits(&self, manager: &Arc<LinkManager>) {
        // A cleared entry may never be part of a batch; then no write would release its lease.
        let now = self.lock().extract_if(|_, hold| *hold == Hold::Write).map(|(key, _)| key).collect();
        self.give_back(now, manager);
    }

    /// Deletes leases in Redis. If Redis cannot be reached, the leases expire by themselves.
    pub(super) fn give_back(&self, keys: Vec<Key>, manager: &Arc<LinkManager>) {
        let Some(link) = manager.status.link().filter(|_| !keys.is_empty()) else { return };
        let (manager, token) = (Arc::clone(manager), self.token.clone());
        // A task sends the command, because callers of `release` never wait.
        self.tasks.spawn(async move {
            let leases = keys.iter().map(|key| manager.names.lease(key)).collect();
            let given_back = link.give_back(leases, &token, manager.config.timeout).await;
            if let Some(error) = given_back.error {
                manager.status.failed(&link, &error);
            }
        });
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
        holds.add([key(1), key(2)]);
        queue.push(key(1), AtRest { bytes: bytes::Bytes::from_static(b"record"), until_ms: 1 });
        holds.release(&[key(1), key(2)], &queue, &manager);
        let held = || holds.lock().keys().copied().collect::<Vec<_>>();
        assert_eq!(held(), [key(1)], "nothing of the other waits");
        let batch = queue.next().await;
        queue.done(&batch);
        holds.written(&[key(1), key(2)], &manager);
        assert_eq!(held(), []);
    }
}

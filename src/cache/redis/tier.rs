//! Redis as a tier: one command for all keys of a request, write-behind, and purges shared with all replicas.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::holds::Holds;
use super::lease_commands::{LookupForm, LookupPart};
use super::ledger::Ledger;
use super::link::{Answers, Link, MAX_RECORD_BYTES};
use super::manager::{LinkManager, OnPurges};
use super::writing::{BATCH, RedisWriter};
use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::cache::{AtRest, Durability, LeasedValues, LowerTier, Queued, Tier, TierStats, WriteQueue};
use crate::config::RedisConfig;
use crate::key::Key;
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use futures_util::future::BoxFuture;

/// Handles that the tier works with.
#[derive(Clone, Debug)]
pub struct RedisParts {
    /// Clock for TTLs.
    pub clock: Clock,
    /// Metrics of look-ups.
    pub metrics: Arc<Metrics>,
    /// Purge counts of this process.
    pub purges: Arc<PurgeRegistry>,
    /// Limit on the total size of the values of one look-up, in bytes.
    pub max_read_bytes: usize,
}

/// The tier in Redis or Valkey.
pub struct RedisTier {
    pub(super) manager: Arc<LinkManager>,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) holds: Arc<Holds>,
    pub(super) parts: RedisParts,
    tasks: Tasks,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RedisTier {
    /// Creates a tier that does not connect until [`RedisTier::begin`] is called.
    pub fn new(config: RedisConfig, parts: RedisParts) -> Self {
        let tasks = Tasks::new();
        let queue = Arc::new(WriteQueue::new(config.queue_bytes, BATCH));
        let ledger = Ledger::new(Arc::clone(&parts.purges));
        let manager = Arc::new(LinkManager::new(config, ledger, parts.clock.clone(), tasks.clone()));
        let holds = Arc::new(Holds::new(tasks.clone()));
        Self { manager, queue, holds, parts, tasks, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Starts to connect in the background. The start of the process does not wait for it.
    pub fn begin(&self, on_purges: Box<dyn OnPurges>) {
        self.tasks.spawn_until_stop(Arc::clone(&self.manager).run(on_purges));
        self.tasks.spawn_until_stop(Arc::clone(&self.holds).renew(Arc::clone(&self.manager)));
        let (manager, queue, holds) = (Arc::clone(&self.manager), Arc::clone(&self.queue), Arc::clone(&self.holds));
        self.tasks.spawn_until_stop(RedisWriter { manager, queue, holds, clock: self.parts.clock.clone() }.run());
    }

    /// Looks up keys. With `leased`, a number of keys at the beginning and the usual time of a call, it also takes the
    /// leases of those that are missing.
    pub(super) async fn find(&self, keys: &[Key], leased: Option<(usize, Option<Duration>)>) -> LeasedValues {
        // Queued entries are newer than those in Redis, and are found even while it is down.
        let mut has_unread = false;
        let mut found: Vec<Option<Bytes>> = keys.iter().map(|key| self.queue.get(key)).collect();
        let places: Vec<usize> = (0..keys.len()).filter(|place| found[*place].is_none()).collect();
        if let Some(link) = self.manager.status.link().filter(|_| !places.is_empty()) {
            let begun = Instant::now();
            let open: Vec<Key> = places.iter().map(|place| keys[*place]).collect();
            let form = leased.and_then(|(leased, call_time)| {
                let leased = places.iter().filter(|place| **place < leased).count();
                self.lookup_form(&link, (leased, call_time))
            });
            let read = self.read(&link, &open, form.as_ref()).await;
            has_unread = read.has_unread;
            for (place, bytes) in places.into_iter().zip(read.values) {
                found[place] = bytes;
            }
            self.parts.metrics.tiers.lookup(Tier::Redis, begun.elapsed());
        }
        let hits = found.iter().flatten().count();
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        self.misses.fetch_add((keys.len() - hits) as u64, Ordering::Relaxed);
        LeasedValues { values: found, has_unread }
    }

    /// Reads all values in one round trip if they fit in memory at their largest size, else in several. Stops early if
    /// the values exceed the limit, by one value at most, or if Redis fails. Takes leases, if there is a form of them.
    async fn read(&self, link: &Arc<Link>, keys: &[Key], form: Option<&LookupForm>) -> LeasedValues {
        let clear_count = self.manager.ledger.clear_count();
        let names: Vec<String> = keys.iter().map(|key| self.manager.names.record(key, clear_count)).collect();
        let (mut values, mut read_bytes, max_read_bytes) = (Vec::new(), 0, self.parts.max_read_bytes);
        // The timeout covers all round trips together.
        let until = Instant::now() + self.manager.config.timeout;
        while values.len() < names.len() && read_bytes <= max_read_bytes {
            let first = values.len();
            // So many that values of the largest size fit in the rest of the limit.
            let count = ((max_read_bytes - read_bytes) / MAX_RECORD_BYTES).clamp(1, names.len() - first);
            let (records, within) = (&names[first..first + count], until.saturating_duration_since(Instant::now()));
            let answers = match form {
                Some(form) => {
                    let part = LookupPart { keys: &keys[first..first + count], records, first };
                    self.read_and_lease(link, part, (form, within)).await
                }
                None => link.read(records, within).await,
            };
            let has_failed = answers.error.is_some();
            let read = self.judge(link, answers);
            read_bytes += read.iter().flatten().map(Bytes::len).sum::<usize>();
            values.extend(read);
            if has_failed {
                break;
            }
        }
        let has_unread = values.len() < names.len() && read_bytes > max_read_bytes;
        // Values that were not read count as missing.
        values.resize(names.len(), None);
        LeasedValues { values, has_unread }
    }

    /// Reports success or failure to the status of the link and returns the results.
    pub(super) fn judge<T>(&self, link: &Arc<Link>, answers: Answers<T>) -> Vec<Option<T>> {
        match &answers.error {
            None => self.manager.status.answered(),
            Some(error) => self.manager.status.failed(link, error),
        }
        answers.each
    }

    /// Publishes purges at once if Redis can be reached. Otherwise the manager publishes them later.
    async fn tell(&self) -> Durability {
        if let Some(link) = self.manager.status.link() {
            let limit = self.manager.config.timeout;
            // The manager may be updating the counts right now, so running out of time is no failure of the link.
            if let Ok(Err(error)) = timeout(limit, self.manager.agree(&link, limit)).await {
                self.manager.status.failed(&link, &error);
            }
        }
        // The manager may have published the purge meanwhile, so the ledger decides.
        if self.manager.ledger.is_settled() {
            return Durability::ForGood;
        }
        tracing::warn!(
            "cannot send a purge to Redis; it will be sent when Redis is reachable; until then other replicas may serve \
             purged entries"
        );
        Durability::Pending
    }

    /// Removes forgotten entries from the queue and from Redis, and returns how many Redis had. They are dead by their
    /// counts already, so an entry that cannot be removed now is not served, and is deleted when the purge is sent.
    async fn remove(&self, keys: &[Key]) -> u64 {
        self.queue.remove(keys);
        // The writer does not see these entries any more, so their leases end here.
        self.holds.written(keys, &self.manager);
        let Some(link) = self.manager.status.link() else { return 0 };
        match self.manager.delete(&link, keys).await {
            Ok(removed) => removed,
            Err(error) => {
                self.manager.status.failed(&link, &error);
                0
            }
        }
    }

    async fn finish(&self, timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        // If Redis cannot be reached, waiting does not help.
        if self.manager.status.link().is_some() {
            timeout_at(until, self.queue.drained()).await.ok();
        }
        let left = self.queue.len();
        self.tasks.stop();
        // Leases that are being released get the time of one command.
        self.tasks.join(until.saturating_duration_since(Instant::now()).min(self.manager.config.timeout)).await;
        left
    }
}

impl LowerTier for RedisTier {
    fn tier(&self) -> Tier {
        Tier::Redis
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async { self.find(keys, None).await.values })
    }

    fn put(&self, key: Key, entry: AtRest) {
        // Entries are queued even while Redis is down, and are written once it is back.
        if self.queue.push(key, entry) == Queued::Dropped {
            tracing::debug!("the queue of writes to Redis is full; an entry is dropped");
        }
    }

    fn add_unsent(&self, subject: &PurgeSubject) {
        self.manager.ledger.add_unsent(subject);
    }

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, subject: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        Box::pin(async move {
            let removed = match subject {
                PurgeSubject::Inputs(keys) => self.remove(keys).await,
                PurgeSubject::Everything | PurgeSubject::Model(_) => 0,
            };
            (removed, self.tell().await)
        })
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(async move {
            // The queue is cleared before the count of clearings changes; `RedisWriter::write_over` relies on this
            // order.
            self.queue.clear();
            self.manager.ledger.add_unsent_clear();
            self.holds.nothing_waits(&self.manager);
            (0, self.tell().await)
        })
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // While Redis cannot be reached nothing is written, so do not wait.
            let Some(link) = self.manager.status.link() else { return };
            tokio::select! {
                () = self.queue.drained() => {}
                () = self.manager.status.left(&link) => {}
            }
        })
    }

    fn stats(&self) -> TierStats {
        TierStats {
            up: self.manager.status.link().is_some(),
            cause: self.manager.status.cause(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            dropped: self.queue.dropped(),
            ..TierStats::default()
        }
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, usize> {
        Box::pin(self.finish(timeout))
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTier").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

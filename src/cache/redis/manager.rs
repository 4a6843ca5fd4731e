//! Background task that connects to Redis, reconnects after failures, and synchronizes purges with other replicas.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::error::LinkError;
use super::ledger::Ledger;
use super::link::{Link, WRITE_WITHIN};
use super::names::Names;
use super::status::LinkStatus;
use crate::cache::purges::{MAX_FORGOTTEN, MAX_NAMES, PurgeNews};
use crate::config::RedisConfig;
use crate::key::Key;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use futures_util::future::BoxFuture;

/// Interval at which the shared purge counts are read, and so the delay until replicas learn of each other's purges.
const READ_PURGES_EVERY: Duration = Duration::from_secs(1);
/// Failed reads of the shared counts in a row until the link is closed. Other replicas may have purged entries by then.
const MAX_FAILED_READS: u32 = 3;
/// Attempts to update the shared counts while other replicas change them.
const ROUNDS: usize = 5;
/// Number of replicas whose purges fit in the shared hash even if all of them purged as much as they may during one
/// outage, when they do not learn of one another.
const MAX_REPLICAS: usize = 32;
/// Limit on the fields of the shared hash. A longer one cannot be vecho's.
const MAX_FIELDS: usize = MAX_REPLICAS * (MAX_FORGOTTEN + MAX_NAMES);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Receiver of the purge counts of all replicas.
pub trait OnPurges: Send + Sync {
    /// Records the counts before they take effect.
    fn note_ahead<'a>(&'a self, news: &'a PurgeNews) -> BoxFuture<'a, ()>;
    /// Applies the counts at once. If some are new, returns remaining work, which may take a while.
    fn learn(&self, news: &PurgeNews) -> Option<BoxFuture<'static, ()>>;
}

/// State of the connection to Redis, and the task that maintains it.
pub(super) struct LinkManager {
    pub(super) config: RedisConfig,
    pub(super) names: Names,
    pub(super) status: LinkStatus,
    pub(super) ledger: Ledger,
    clock: Clock,
    /// Set before the task runs.
    on_purges: OnceLock<Box<dyn OnPurges>>,
    /// Held while the shared counts are read and changed.
    turn: Mutex<()>,
    tasks: Tasks,
}

impl LinkManager {
    pub(super) fn new(config: RedisConfig, ledger: Ledger, clock: Clock, tasks: Tasks) -> Self {
        let names = Names::new(&config.key_prefix);
        Self {
            config,
            names,
            status: LinkStatus::default(),
            ledger,
            clock,
            on_purges: OnceLock::new(),
            turn: Mutex::default(),
            tasks,
        }
    }

    /// Maintains the connection until the task is stopped.
    pub(super) async fn run(self: Arc<Self>, on_purges: Box<dyn OnPurges>) {
        self.on_purges.set(on_purges).ok();
        let mut wait = FIRST_WAIT;
        loop {
            match self.connect().await {
                Ok(link) => {
                    let since = Instant::now();
                    self.status.set_up(Arc::clone(&link));
                    self.synchronize(&link).await;
                    // Only a link that lasted resets the wait. A server that fails right after each connection is tried
                    // ever less often.
                    if since.elapsed() > LONGEST_WAIT {
                        wait = FIRST_WAIT;
                    }
                }
                Err(error) => self.status.set_down(&error),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Opens a link that answers, and synchronizes purges over it.
    async fn connect(&self) -> Result<Arc<Link>, LinkError> {
        let link = Link::open(&self.config).await?;
        // The purges of other replicas apply here before requests read over the link.
        self.agree(&link, self.config.connect_timeout).await?;
        // A link is usable only if it answers within the timeout of requests.
        link.probe(&self.names.probes(), self.config.timeout).await?;
        Ok(Arc::new(link))
    }

    /// Synchronizes purges over a link at intervals. Returns once the link is no longer in use.
    async fn synchronize(&self, link: &Arc<Link>) {
        let mut failed_reads = 0;
        // The timeout is the interval. The loop ends early if the link is given up.
        while timeout(READ_PURGES_EVERY, self.status.left(link)).await.is_err() {
            match self.read_purges(link).await {
                Ok(()) => failed_reads = 0,
                Err(error) => {
                    failed_reads += 1;
                    self.status.failed(link, &error);
                    // Answers to look-ups reset the count of late answers, so unread purges are counted separately.
                    if failed_reads >= MAX_FAILED_READS {
                        self.status.cut(link, &error);
                    }
                }
            }
        }
    }

    async fn read_purges(&self, link: &Link) -> Result<(), LinkError> {
        let within = self.config.timeout;
        // A cluster with a node that does not answer counts as down: each request for that node would run into the
        // timeout.
        if self.config.cluster {
            link.probe(&self.names.probes(), within).await?;
        }
        self.agree(link, within).await
    }

    /// Applies the purges of other replicas and publishes those of this process. Each command may take `within`.
    pub(super) async fn agree(&self, link: &Link, within: Duration) -> Result<(), LinkError> {
        // Two concurrent updates of this process could each publish the same unsent purges.
        let _turn = self.turn.lock().await;
        let hash = self.names.purges();
        for _ in 0..ROUNDS {
            let fields = link.fields(&hash, within).await?;
            if fields.len() > MAX_FIELDS {
                return Err(LinkError::Lost(format!(
                    "{hash} has more than {MAX_FIELDS} fields: it is no list of purges"
                )));
            }
            let plan = self.ledger.plan(&fields, self.clock.now_ms());
            if let Some(on_purges) = self.on_purges.get() {
                // The disk saves the counts before any record can be written under them.
                on_purges.note_ahead(&plan.news()).await;
            }
            let sent = if plan.changes.is_empty() { Ok(true) } else { link.swap(&hash, &plan.changes, within).await };
            let is_sent = match sent {
                // Another replica changed the counts first.
                Ok(false) => continue,
                Ok(true) => true,
                // Redis accepts no writes, but the purges of other replicas still apply here.
                Err(LinkError::Refused(_)) => false,
                Err(error) => return Err(error),
            };
            if is_sent {
                // A forgotten record leaves Redis before its purge counts as sent, so an outage in between repeats both.
                self.delete(link, &plan.forgotten_by_us()).await?;
            }
            // No `await` from here on: if the caller drops this future, either all of these steps have run or none.
            let (news, sent) = self.ledger.end(plan, is_sent);
            if let Some(rest) = self.on_purges.get().and_then(|on_purges| on_purges.learn(&news)) {
                self.tasks.spawn(rest);
            }
            self.ledger.mark_sent(&sent);
            return Ok(());
        }
        Ok(())
    }

    /// Deletes the records of these keys, and returns how many there were.
    pub(super) async fn delete(&self, link: &Link, keys: &[Key]) -> Result<u64, LinkError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let clear_count = self.ledger.clear_count();
        let names = keys.iter().map(|key| self.names.record(key, clear_count)).collect();
        let deleted = link.delete(names, WRITE_WITHIN.max(self.config.timeout)).await;
        deleted.error.map_or_else(|| Ok(deleted.each.into_iter().flatten().sum()), Err)
    }
}

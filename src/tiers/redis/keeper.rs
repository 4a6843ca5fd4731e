//! Keeps the way to Redis: makes it, leaves it, makes it again, and hears of everybody's purges over it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Ledger;
use super::link::Link;
use super::names::Names;
use super::switch::Switch;
use super::trouble::Trouble;
use crate::config::Redis;
use crate::epochs::PurgeCounts;
use crate::tasks::Tasks;
use crate::tiers::Eventually;

/// How often the shared counts of purges are read: as late does one replica hear of another's.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that fail, until it is not asked any more: what it holds may be purged by now.
const BLIND_LOOKS: u32 = 3;
/// Rounds against other replicas that change the same counts.
const ROUNDS: usize = 5;
/// Names of models whose purges are followed. Each process counts a tenth of that apart, and all of them know those of
/// the others.
const MAX_FIELDS: usize = 10_000;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Who hears of everybody's counts of purges.
pub trait OnPurges: Send + Sync {
    /// Has them noted before they count.
    fn note_ahead<'a>(&'a self, counts: &'a PurgeCounts) -> Eventually<'a, ()>;
    /// Takes them in at once. If some are news, what it returns has yet to be done, and may take its time.
    fn learn(&self, counts: &PurgeCounts) -> Option<Eventually<'static, ()>>;
}

/// See above.
pub(super) struct Keeper {
    pub(super) config: Redis,
    pub(super) names: Names,
    pub(super) switch: Switch,
    pub(super) ledger: Ledger,
    /// Set before it runs.
    on_purges: OnceLock<Box<dyn OnPurges>>,
    /// Held while the shared counts are looked at and changed.
    turn: Mutex<()>,
    tasks: Tasks,
}

impl Keeper {
    pub(super) fn new(config: Redis, ledger: Ledger, tasks: Tasks) -> Self {
        let names = Names::new(&config.key_prefix);
        Self {
            config,
            names,
            switch: Switch::default(),
            ledger,
            on_purges: OnceLock::new(),
            turn: Mutex::default(),
            tasks,
        }
    }

    /// Goes on until it is stopped.
    pub(super) async fn run(self: Arc<Self>, on_purges: Box<dyn OnPurges>) {
        self.on_purges.set(on_purges).ok();
        let mut wait = FIRST_WAIT;
        loop {
            match self.connect().await {
                Ok(link) => {
                    let since = Instant::now();
                    self.switch.set_up(Arc::clone(&link));
                    self.look_after(&link).await;
                    if since.elapsed() > LONGEST_WAIT {
                        wait = FIRST_WAIT;
                    }
                }
                Err(trouble) => self.switch.set_down(&trouble),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// A way over which questions are answered, after everybody's purges are known.
    async fn connect(&self) -> Result<Arc<Link>, Trouble> {
        let link = Link::open(&self.config).await?;
        self.agree(&link, self.config.connect_timeout).await?;
        // What cannot be asked within the time that requests give it is no help to them.
        link.probe(&self.names.probes(), self.config.timeout).await?;
        Ok(Arc::new(link))
    }

    /// Returns once the link is not in use any more.
    async fn look_after(&self, link: &Arc<Link>) {
        let mut blind = 0;
        while timeout(LOOK_EVERY, self.switch.left(link)).await.is_err() {
            match self.look(link).await {
                Ok(()) => blind = 0,
                Err(trouble) => {
                    blind += 1;
                    self.switch.failed(link, &trouble);
                    if blind >= BLIND_LOOKS {
                        self.switch.cut(link, &trouble);
                    }
                }
            }
        }
    }

    async fn look(&self, link: &Link) -> Result<(), Trouble> {
        let within = self.config.timeout;
        // Half a cluster is none: who asks the other half would wait each time.
        if self.config.cluster {
            link.probe(&self.names.probes(), within).await?;
        }
        self.agree(link, within).await
    }

    /// Takes in everybody's purges and tells those of this process. Each question may take `within`.
    pub(super) async fn agree(&self, link: &Link, within: Duration) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        let hash = self.names.purges();
        for _ in 0..ROUNDS {
            let fields = link.fields(&hash, within).await?;
            if fields.len() > MAX_FIELDS {
                return Err(Trouble::Lost(format!(
                    "{hash} has more than {MAX_FIELDS} fields: it is no list of purges"
                )));
            }
            let plan = self.ledger.plan(&fields);
            if let Some(on_purges) = self.on_purges.get() {
                on_purges.note_ahead(&plan.lessons()).await;
            }
            let told = if plan.changes.is_empty() { Ok(true) } else { link.swap(&hash, &plan.changes, within).await };
            let is_told = match told {
                // Somebody else was quicker.
                Ok(false) => continue,
                Ok(true) => true,
                Err(Trouble::Refused(_)) => false,
                Err(trouble) => return Err(trouble),
            };
            // From here on nothing is waited for: who gave up on this must find all of it done or none.
            let (counts, told) = self.ledger.settle(plan, is_told);
            if let Some(rest) = self.on_purges.get().and_then(|on_purges| on_purges.learn(&counts)) {
                self.tasks.spawn(rest);
            }
            self.ledger.pay(&told);
            return Ok(());
        }
        Ok(())
    }
}

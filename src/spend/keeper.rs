//! Keeps the counts across restarts, and shares them with other replicas.
//!
//! The file is written at most once a second, and holds the cost of the calls under way as if they had ended. So a kill
//! loses what was reserved since the last write, and never what was known then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::amount::SpendAmount;
use super::file::{SavedSpend, SpendFile, new_replica};
use super::guard::SpendGuard;
use super::shared::{KEPT_FOR, divide, field, table};
use crate::process::shared_fields::{ReplicaFields, SharedFields};

/// Interval of the exchange with other replicas while the counts change here.
const STEP: Duration = Duration::from_millis(250);
/// Interval of the writes to the file, and of the exchange while nothing changes here.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Time after which a failed exchange is logged. A start and a short break are no outage.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// Interval of attempts to open a file that cannot be used.
const OPEN_EVERY: Duration = Duration::from_secs(10);

/// Background work on the counts.
pub struct SpendKeeper {
    guard: Arc<SpendGuard>,
    /// Folder of the file, if there is a disk tier.
    folder: Option<PathBuf>,
    shared: Option<Arc<dyn SharedFields>>,
    state: Mutex<Kept>,
}

/// What has been kept so far.
struct Kept {
    replica: String,
    file: Option<Arc<SpendFile>>,
    opened_at: Option<Instant>,
    written: Option<(Instant, u64)>,
    exchanged: Option<(Instant, u64)>,
    /// Counts of a day that the file held. The shared store may hold more of them; `None` once that was looked up.
    from_file: Option<SavedSpend>,
    has_failed: bool,
    outage: SharingOutage,
}

/// Time during which the counts cannot be shared. Logs one line when it lasts, and one when it ends.
#[derive(Default)]
struct SharingOutage {
    since: Option<Instant>,
    is_told: bool,
}

impl SharingOutage {
    fn failed(&mut self, cause: &str) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TOLD_AFTER && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(cause, "the budgets are not shared: each replica goes on with what it knows of the others");
        }
    }

    fn ended(&mut self) {
        if std::mem::take(self).is_told {
            tracing::info!("the budgets are shared again");
        }
    }
}

impl SpendKeeper {
    /// Creates a keeper that has done nothing yet.
    pub fn new(guard: Arc<SpendGuard>, folder: Option<PathBuf>, shared: Option<Arc<dyn SharedFields>>) -> Arc<Self> {
        let state = Kept {
            replica: new_replica(),
            file: None,
            opened_at: None,
            written: None,
            exchanged: None,
            from_file: Some(SavedSpend::default()),
            has_failed: false,
            outage: SharingOutage::default(),
        };
        Arc::new(Self { guard, folder, shared, state: Mutex::new(state) })
    }

    /// Reads the file if a budget is configured. Until then the counts are those of this process alone.
    pub async fn begin(&self) {
        if !self.guard.is_off() {
            self.open(&mut *self.state.lock().await).await;
        }
    }

    /// Keeps and shares the counts. Never returns.
    pub async fn run(self: Arc<Self>) {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            if !self.guard.is_off() {
                let mut kept = self.state.lock().await;
                self.open(&mut kept).await;
                self.exchange(&mut kept, false).await;
                self.write(&mut kept, false).await;
            }
        }
    }

    /// Keeps and shares the counts for the last time.
    pub async fn close(&self) {
        if !self.guard.is_off() {
            let mut kept = self.state.lock().await;
            self.exchange(&mut kept, true).await;
            self.write(&mut kept, true).await;
        }
    }

    /// Opens the file, and adds what it holds to the counts of this process.
    async fn open(&self, kept: &mut Kept) {
        let Some(folder) = self.folder.clone().filter(|_| kept.file.is_none()) else { return };
        if kept.opened_at.is_some_and(|at| at.elapsed() < OPEN_EVERY) {
            return;
        }
        kept.opened_at = Some(Instant::now());
        let shown = folder.display().to_string();
        match spawn_blocking(move || SpendFile::open(&folder)).await {
            Ok(Ok((file, saved))) => {
                kept.file = Some(Arc::new(file));
                if let Some(saved) = saved {
                    self.adopt(&saved);
                    kept.replica.clone_from(&saved.replica);
                    kept.from_file = Some(saved);
                }
            }
            Ok(Err(error)) if !std::mem::replace(&mut kept.has_failed, true) => {
                tracing::warn!(
                    %error,
                    folder = shown,
                    "the file of the budgets cannot be opened: a restart forgets what was spent today; make the folder \
                     of disk.path usable"
                );
            }
            _ => {}
        }
    }

    /// Adds the counts of a file, if they are of this day. A file of a later day was written under a clock that was
    /// ahead, and counts like one of this day.
    fn adopt(&self, saved: &SavedSpend) {
        let mut book = self.guard.rolled();
        if saved.day < book.day {
            return;
        }
        book.day = book.day.max(saved.day);
        for (name, amount) in &saved.spent {
            let row = book.row(name);
            row.own = row.own.plus(*amount);
        }
        drop(book);
        // The clock may be behind the file's day by more than a day.
        drop(self.guard.rolled());
        self.guard.notify();
    }

    /// Writes the counts of this process to the shared store, and takes over those of the others.
    async fn exchange(&self, kept: &mut Kept, is_last: bool) {
        let Some(shared) = &self.shared else { return };
        // The file has the name of this replica. Until it is open, nothing is written under another name.
        let may_write = self.folder.is_none() || kept.file.is_some();
        if may_write && let Some(read) = kept.from_file.take() {
            // What this replica wrote before a kill may be newer than its file.
            let day = self.guard.rolled().day;
            match shared.exchange(&table(day), (&ReplicaFields::new(), &[]), KEPT_FOR).await {
                Ok(fields) => self.catch_up(day, &divide(&fields, &kept.replica).0, &read),
                Err(cause) => {
                    kept.from_file = Some(read);
                    return kept.outage.failed(&cause);
                }
            }
        }
        let (day, changes, own) = self.fields(&kept.replica);
        let is_due = kept.exchanged.is_none_or(|(at, seen)| seen != changes || at.elapsed() >= WRITE_EVERY);
        if !is_due && !is_last {
            return;
        }
        let own = if may_write { own } else { ReplicaFields::new() };
        match shared.exchange(&table(day), (&own, &[]), KEPT_FOR).await {
            Ok(fields) => {
                self.guard.rolled().learn_others(day, &divide(&fields, &kept.replica).1);
                self.guard.notify();
                kept.exchanged = Some((Instant::now(), changes));
                kept.outage.ended();
            }
            Err(cause) => kept.outage.failed(&cause),
        }
    }

    /// Adds what the shared store holds of this replica beyond its file.
    fn catch_up(&self, day: u64, stored: &BTreeMap<String, SpendAmount>, read: &SavedSpend) {
        let mut book = self.guard.rolled();
        if book.day != day {
            return;
        }
        for (name, amount) in stored {
            let known = read.spent.get(name).copied().filter(|_| read.day == day).unwrap_or_default();
            let row = book.row(name);
            row.own = row.own.plus(amount.minus(known));
        }
    }

    fn fields(&self, replica: &str) -> (u64, u64, ReplicaFields) {
        let book = self.guard.rolled();
        let own = book.rows.iter().map(|(name, row)| (field(replica, name), row.committed().to_text())).collect();
        (book.day, book.changes, own)
    }

    /// Returns the content of the file, and the number of changes until now.
    fn to_save(&self, replica: &str) -> (SavedSpend, u64) {
        let book = self.guard.rolled();
        let spent = book.rows.iter().map(|(name, row)| (name.clone(), row.committed())).collect();
        (SavedSpend { replica: replica.to_owned(), day: book.day, spent }, book.changes)
    }

    async fn write(&self, kept: &mut Kept, is_last: bool) {
        let Some(file) = kept.file.clone() else { return };
        let (saved, changes) = self.to_save(&kept.replica);
        let is_due = kept.written.is_none_or(|(at, seen)| seen != changes && (is_last || at.elapsed() >= WRITE_EVERY));
        if !is_due {
            return;
        }
        match spawn_blocking(move || file.write(&saved)).await {
            Ok(Ok(())) => {
                kept.written = Some((Instant::now(), changes));
                kept.has_failed = false;
            }
            Ok(Err(error)) if !std::mem::replace(&mut kept.has_failed, true) => {
                tracing::warn!(%error, "the file of the budgets cannot be written: a restart may forget what was spent");
            }
            _ => {}
        }
    }
}

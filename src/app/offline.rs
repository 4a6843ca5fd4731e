//! The cache of a stopped vecho: the folder of its disk tier, opened with a separate stack.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;

use crate::cache::at_rest::ChecksumKeys;
use crate::cache::bounded::MapBounds;
use crate::cache::disk::{DiskStore, OpenError};
use crate::cache::purges::{JobStart, PurgeRegistry, PurgeSubject};
use crate::cache::transfer::{self, ImportRules, Imported, Pieces};
use crate::cache::{AtRest, Durability, Found, Lookup, LowerTier, MemoryTier, Stack, Tier, TierStats};
use crate::config::Config;
use crate::key::Key;
use crate::learned::SpaceState;
use crate::observe::traces::TraceContext;
use crate::process::clock::Clock;
use crate::vector::packed::Codec;
use futures_util::future::BoxFuture;

/// Memory for records on their way to the folder. It is minimal, since nothing reads them here.
const MEMORY_BYTES: u64 = 1 << 20;

/// A folder that this process owns exclusively until it is closed.
pub struct OfflineCache {
    stack: Arc<Stack>,
    disk: Arc<UnqueuedDisk>,
    clock: Clock,
    codec: Codec,
    forgotten_for_ms: u64,
}

/// Reason why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The configuration has no disk tier.
    #[error("its configuration has no disk tier, so nothing is left of it")]
    Disabled,
    /// The folder does not exist.
    #[error("there is no disk tier at {}", .0.display())]
    Absent(PathBuf),
    /// Another process owns the folder, or it cannot be used.
    #[error(transparent)]
    Closed(#[from] OpenError),
    /// The folder cannot be read.
    #[error("its folder cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl OfflineCache {
    /// Opens the folder of a configuration and creates it if necessary.
    pub fn open(config: &Config) -> Result<Self, OfflineError> {
        let path = path_of(config)?;
        let store = DiskStore::open(path, config.disk.max_bytes)?;
        let purges = Arc::new(PurgeRegistry::default());
        let noted = store.purges()?;
        // Without the counts from disk, records that were purged earlier would be read again.
        purges.learn_all(&noted.counts, &noted.forgotten);
        // Purges that Redis has not accepted yet must still be on disk after this command.
        purges.add_saved(&noted.unsent);
        let disk = Arc::new(UnqueuedDisk { store, waiting: Mutex::default() });
        let memory = MemoryTier::new(MapBounds { max_bytes: MEMORY_BYTES, max_entries: None });
        let checksum_keys = ChecksumKeys::new(config.cache.key_secret.as_ref());
        let stack = Stack::new(memory, vec![Arc::clone(&disk) as Arc<dyn LowerTier>], purges, checksum_keys);
        let (codec, forgotten_for_ms) = (config.cache.codec, config.cache.forgotten_for_ms());
        Ok(Self { stack: Arc::new(stack), disk, clock: Clock::System, codec, forgotten_for_ms })
    }

    /// Opens the folder of a configuration if it exists, and creates nothing otherwise.
    pub fn open_existing(config: &Config) -> Result<Self, OfflineError> {
        let path = path_of(config)?;
        // An unreadable folder causes an error when it is opened.
        match path.try_exists() {
            Ok(false) => Err(OfflineError::Absent(path.to_owned())),
            Ok(true) | Err(_) => Self::open(config),
        }
    }

    /// Returns the approximate number of records.
    pub fn records(&self) -> u64 {
        self.disk.store.stats().entries
    }

    /// Returns for each key of a space whether it has a record that is fresh.
    pub async fn holds(&self, space: Key, keys: &[Key]) -> Vec<bool> {
        let (now_ms, trace, space_state) = (self.clock.now_ms(), TraceContext::NONE, SpaceState::default());
        let (max_age_ms, codec, leases) = (None, self.codec, None);
        let lookup = Lookup { now_ms, max_age_ms, space_state: &space_state, space, codec, trace, leases };
        self.stack.examine(keys, &lookup).await.iter().map(Found::is_fresh).collect()
    }

    /// Exports all records that have not expired.
    pub async fn export(&self) -> Pieces<'static> {
        transfer::export(Arc::clone(&self.stack), self.clock.now_ms()).await
    }

    /// Imports the export of another instance, or the vectors of a job that began at this time. The error explains the
    /// failure.
    pub async fn import(&self, file: Pieces<'_>, job_began_ms: Option<u64>) -> Result<Imported, String> {
        let job = job_began_ms.map(|began_ms| JobStart { began_ms, remembered_ms: self.forgotten_for_ms });
        let rules = ImportRules { codec: self.codec, job };
        let imported =
            transfer::import(&self.stack, &self.clock, rules, file).await.map_err(|error| error.to_string())?;
        match self.disk.lock().failed.take() {
            None => Ok(imported),
            Some(error) => Err(format!("the folder cannot be written: {error}")),
        }
    }

    /// Closes the folder and releases its lock.
    pub fn close(self) -> io::Result<()> {
        self.disk.store.close()
    }
}

fn path_of(config: &Config) -> Result<&Path, OfflineError> {
    config.disk.path.as_deref().filter(|_| config.disk.enabled).ok_or(OfflineError::Disabled)
}

impl fmt::Debug for OfflineCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfflineCache").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A store without a queue: a writer waits until its entries are written. It blocks its caller, which is acceptable for
/// a command with only one.
#[derive(Debug)]
struct UnqueuedDisk {
    store: DiskStore,
    waiting: Mutex<UnwrittenEntries>,
}

#[derive(Debug, Default)]
struct UnwrittenEntries {
    entries: Vec<(Key, AtRest)>,
    failed: Option<io::Error>,
}

impl UnqueuedDisk {
    fn lock(&self) -> MutexGuard<'_, UnwrittenEntries> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let mut waiting = self.lock();
        let entries = std::mem::take(&mut waiting.entries);
        let written = self.store.append(entries.iter().map(|(key, entry)| (key, entry)));
        // A later success must not hide an earlier failure.
        waiting.failed = written.err().or(waiting.failed.take());
    }
}

impl LowerTier for UnqueuedDisk {
    fn tier(&self) -> Tier {
        Tier::Disk
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        // The reader of the entries checks their expiry.
        // A failed read is a miss, as in a running process.
        let entry = |key| self.store.get(key, 0).ok().flatten().map(|entry| entry.bytes);
        Box::pin(std::future::ready(keys.iter().map(entry).collect()))
    }

    fn put(&self, key: Key, entry: AtRest) {
        self.lock().entries.push((key, entry));
    }

    fn purged<'a>(&'a self, purges: &'a Arc<PurgeRegistry>, _: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        let noted = self.store.note_purges(purges).map(drop);
        let settled = if noted.is_ok() { Durability::ForGood } else { Durability::Pending };
        if let Err(error) = noted {
            self.lock().failed = Some(error);
        }
        Box::pin(std::future::ready((0, settled)))
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        let cleared = self.store.clear().map_or((0, Durability::Pending), |entries| (entries, Durability::ForGood));
        Box::pin(std::future::ready(cleared))
    }

    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.store.each(visit)
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.write() })
    }

    fn stats(&self) -> TierStats {
        let stats = self.store.stats();
        TierStats { up: true, entries: stats.entries, bytes: stats.bytes, ..TierStats::default() }
    }

    fn close(&self, _timeout: Duration) -> BoxFuture<'_, usize> {
        Box::pin(async {
            self.write();
            0
        })
    }
}

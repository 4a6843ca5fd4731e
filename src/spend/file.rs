//! The file that keeps the counts of a day across restarts.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::amount::SpendAmount;
use crate::process::{atomic_file, random};

/// Name of the file in the folder of the disk tier.
const NAME: &str = "spending.json";
/// Name of the file that is locked.
const LOCK: &str = "spending.lock";

/// The file, locked by this process.
#[derive(Debug)]
pub struct SpendFile {
    path: PathBuf,
    /// Held until the process ends in any way.
    _lock: File,
}

/// The counts of one day, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SavedSpend {
    /// Name of this replica among all that share one Redis.
    pub(super) replica: String,
    /// Days since the Unix epoch.
    pub(super) day: u64,
    /// Cost of the calls of this replica, by budget.
    pub(super) spent: BTreeMap<String, SpendAmount>,
}

/// The content of the file.
#[derive(Deserialize, Serialize)]
struct SpendFileContent {
    replica: String,
    day: u64,
    spent: BTreeMap<String, String>,
}

impl SpendFile {
    /// Opens the file in a folder, which is created if needed. Returns what it holds, or nothing for a new file. Blocks
    /// on the disk.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Option<SavedSpend>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))?;
        // Two processes that write one file would undo each other's counts.
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another process uses it")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = folder.join(NAME);
        let saved = match fs::read(&path) {
            Ok(bytes) => SavedSpend::read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok((Self { path, _lock: lock }, saved))
    }

    /// Replaces the content. Blocks on the disk.
    pub(super) fn write(&self, saved: &SavedSpend) -> io::Result<()> {
        atomic_file::replace(&self.path, &saved.to_bytes())
    }
}

impl SavedSpend {
    /// Reads the content of the file. A file that cannot be read counts as new, since no call can be refused for it.
    fn read(bytes: &[u8]) -> Option<Self> {
        let content: SpendFileContent = match serde_json::from_slice(bytes) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(%error, "the file {NAME} cannot be read: the budgets of this day count from zero");
                return None;
            }
        };
        let amount = |(name, text): (String, String)| text.parse().ok().map(|amount| (name, amount));
        let spent = content.spent.into_iter().filter_map(amount).collect();
        Some(Self { replica: content.replica, day: content.day, spent })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let spent = self.spent.iter().map(|(name, amount)| (name.clone(), amount.to_text())).collect();
        let content = SpendFileContent { replica: self.replica.clone(), day: self.day, spent };
        serde_json::to_vec(&content).expect("texts and numbers must be JSON")
    }
}

/// Returns a name that no other replica has.
pub(super) fn new_replica() -> String {
    let mut bytes = [0; 8];
    random::fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_read_back_as_they_were_written() {
        let amount = SpendAmount { tokens: u64::MAX, money_pico: u128::MAX };
        let spent = [(String::new(), amount), ("team=a \"x\"".to_owned(), SpendAmount::default())].into();
        let saved = SavedSpend { replica: new_replica(), day: 20_000, spent };
        assert_eq!(SavedSpend::read(&saved.to_bytes()), Some(saved));
    }

    #[test]
    fn a_damaged_file_counts_as_new() {
        for bytes in [&b""[..], b"{", b"[]", b"{\"replica\":\"a\",\"day\":-1,\"spent\":{}}"] {
            assert_eq!(SavedSpend::read(bytes), None);
        }
    }
}

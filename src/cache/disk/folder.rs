//! The store's folder: its lock, which admits one process at a time, and the names of its files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::process::atomic_file;

/// Name of the file that is locked.
pub(super) const LOCK: &str = "lock";
const SEGMENT: &str = ".segment";

/// Reason why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder open.
    #[error("another process uses {}", .0.display())]
    Held(PathBuf),
    /// The folder or a file in it cannot be read or written.
    #[error("{} cannot be used: {fault}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        fault: io::Error,
    },
}

/// Numbers of directory entries that are named like segments, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Regular files, the oldest first.
    pub(super) segments: Vec<u32>,
    /// Folders, pipes, links and other special files. The store leaves them alone.
    pub(super) others: Vec<u32>,
}

/// Folder locked by this process until it is dropped or the process ends in any way.
#[derive(Debug)]
pub(super) struct StoreFolder {
    path: PathBuf,
    lock: File,
}

impl StoreFolder {
    /// Creates the folder if needed and locks it. Only the owner can read its files, because vectors reveal their
    /// texts.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let unusable = |fault| OpenError::Unusable { path: path.to_owned(), fault };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = writable().create(true).open(path.join(LOCK)).map_err(unusable)?;
        // The operating system releases the lock however the process ends, so a crash leaves no stale one.
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held(path.to_owned())),
            Err(TryLockError::Error(fault)) => Err(unusable(fault)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Unlocks the folder for other processes.
    pub(super) fn release(&self) -> io::Result<()> {
        self.lock.unlock()
    }

    /// Lists directory entries that are named like segments.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT)?.parse::<u32>().ok());
            // Other spellings of a number, such as `1.segment`, are not names that the store gives.
            let Some(number) = number.filter(|number| self.segment(*number).file_name() == Some(&name)) else {
                continue;
            };
            // Links are not followed, so the store never writes or removes files outside the folder.
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file { &mut listing.segments } else { &mut listing.others }.push(number);
        }
        listing.segments.sort_unstable();
        listing.others.sort_unstable();
        Ok(listing)
    }

    /// Returns true if the name of segment `number` is taken, even by a dangling link.
    pub(super) fn is_taken(&self, number: u32) -> bool {
        fs::symlink_metadata(self.segment(number)).is_ok()
    }

    pub(super) fn segment(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:010}{SEGMENT}"))
    }

    pub(super) fn remove_segment(&self, number: u32) -> io::Result<()> {
        match fs::remove_file(self.segment(number)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
            _ => Ok(()),
        }
    }

    /// Removes all segments and syncs the folder. Tries every segment even after an error.
    pub(super) fn remove_segments(&self) -> io::Result<()> {
        let removed: Vec<_> = self.list()?.segments.into_iter().map(|number| self.remove_segment(number)).collect();
        removed.into_iter().collect::<io::Result<()>>()?;
        self.sync()
    }

    /// Replaces a small file atomically and syncs it: a reader never finds a partial file.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        atomic_file::replace(&self.path.join(name), bytes)
    }

    /// Writes and syncs a temporary file of `bytes` bytes. Fails if the disk is full or cannot be written.
    pub(super) fn probe(&self, bytes: usize) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = writable().create(true).truncate(true).open(&path)?;
        let written = io::Write::write_all(&mut file, &vec![1; bytes]).and_then(|()| file.sync_all());
        // Removed even after a failed write, because a full disk needs the space.
        fs::remove_file(&path)?;
        written
    }

    /// Syncs the folder, which makes created, renamed and removed files durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Reads a whole small file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Returns the options with which the store opens its files.
pub(super) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

//! Inspection of a store's folder by a process that does not use it. It creates nothing that stays, because the files
//! would belong to the wrong user.

use std::fs::{self, DirBuilder, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use super::OpenError;
use super::folder::{LOCK, writable};
use crate::process::file_system::existing_ancestor;

/// Name of the file that the inspection writes and removes.
const PROBE: &str = "inspection";

/// State of a folder that the disk tier can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderState {
    /// The folder does not exist and can be made.
    Absent,
    /// The folder exists and is writable.
    Usable {
        /// Id of the user that owns the folder.
        owner: u32,
        /// Size of the files in it.
        used_bytes: u64,
    },
}

/// Inspects a folder. Blocks on the disk.
pub fn inspect(path: &Path) -> Result<FolderState, OpenError> {
    let unusable = |fault| OpenError::Unusable { path: path.to_owned(), fault };
    match fs::metadata(path) {
        Ok(data) if !data.is_dir() => Err(unusable(io::ErrorKind::NotADirectory.into())),
        Ok(data) => {
            if is_locked(path).map_err(unusable)? {
                return Err(OpenError::Held(path.to_owned()));
            }
            write_and_remove(path).map_err(unusable)?;
            Ok(FolderState::Usable { owner: data.uid(), used_bytes: used_bytes(path) })
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            make_and_remove(path).map_err(unusable)?;
            Ok(FolderState::Absent)
        }
        Err(fault) => Err(unusable(fault)),
    }
}

/// Returns true if a process holds the lock of the folder.
fn is_locked(path: &Path) -> io::Result<bool> {
    let lock = match writable().open(path.join(LOCK)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match lock.try_lock() {
        Ok(()) => lock.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(fault)) => Err(fault),
    }
}

fn write_and_remove(path: &Path) -> io::Result<()> {
    let path = path.join(PROBE);
    let mut file = writable().create(true).truncate(true).open(&path)?;
    let written = io::Write::write_all(&mut file, &[1; 4096]).and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

/// Makes and removes the first missing folder of a path.
fn make_and_remove(path: &Path) -> io::Result<()> {
    let above = existing_ancestor(path).ok_or(io::ErrorKind::NotFound)?;
    let first = path.ancestors().take_while(|ancestor| *ancestor != above).last().unwrap_or(path);
    DirBuilder::new().mode(0o700).create(first)?;
    fs::remove_dir(first)
}

/// Returns the size of all files in the folder.
fn used_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

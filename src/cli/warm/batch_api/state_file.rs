//! The file with the state of a job, its lock, and the files of its parts beside it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::state::{FORMAT, JobState};
use crate::cli::moving::CommandError;

/// End of the name of a file that is being written.
const DRAFT: &str = ".part";

/// State file that this process owns exclusively.
pub(super) struct StateFile {
    path: PathBuf,
    lock: PathBuf,
    // The lock of the operating system ends with this handle, also after a kill.
    _held: File,
}

/// A file of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartFile {
    /// Requests as applications send them, by which the answers are imported.
    Requests,
    /// Requests as the service gets them.
    Upload,
    /// Answers of the service.
    Output,
    /// Errors of the service.
    Errors,
}

impl StateFile {
    /// Locks the state file, which need not exist yet. Fails if another process holds the lock.
    pub(super) fn lock(path: &Path) -> Result<Self, CommandError> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let lock = with_end(path, ".lock");
        let held =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed)?;
        let busy = || format!("another process works on the job of {}", path.display());
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // A process that has just ended may have removed the file between the open and the lock.
        let is_same = |data: fs::Metadata| held.metadata().is_ok_and(|own| own.ino() == data.ino());
        if !fs::symlink_metadata(&lock).is_ok_and(is_same) {
            return Err(busy());
        }
        // A process that was killed may have left a draft of the state.
        fs::remove_file(with_end(path, DRAFT)).ok();
        Ok(Self { path: path.to_owned(), lock, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the state, or `None` if there is no file.
    pub(super) fn load(&self) -> Result<Option<JobState>, CommandError> {
        let failed = |cause: &str| format!("the state file {} cannot be used: {cause}", self.path.display());
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error.to_string())),
        };
        let state: JobState = serde_json::from_slice(&bytes).map_err(|error| failed(&error.to_string()))?;
        if state.format != FORMAT {
            return Err(failed("another version of vecho wrote it"));
        }
        match state.fault() {
            Some(fault) => Err(failed(&format!("{fault}; restore the file, or remove it to plan the job again"))),
            None => Ok(Some(state)),
        }
    }

    /// Replaces the state durably: after a crash the file holds the old state or the new one.
    pub(super) fn save(&self, state: &JobState) -> Result<(), CommandError> {
        let failed = |error: io::Error| format!("cannot write the state file {}: {error}", self.path.display());
        let json = serde_json::to_vec_pretty(state).map_err(|error| failed(error.into()))?;
        replace(&self.path, |file| file.write_all(&json)).map_err(failed)
    }

    /// Removes the state of a job that has ended.
    pub(super) fn remove(&self) -> Result<(), CommandError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", self.path.display())),
            _ => Ok(()),
        }
    }

    /// Returns the path of a part's file.
    pub(super) fn of_part(&self, number: usize, file: PartFile) -> PathBuf {
        let name = match file {
            PartFile::Requests => "requests",
            PartFile::Upload => "upload",
            PartFile::Output => "output",
            PartFile::Errors => "errors",
        };
        with_end(&self.path, &format!(".{number}.{name}"))
    }

    /// Removes the files of a plan that was not sent.
    pub(super) fn remove_plan(&self) {
        for number in 1.. {
            if !fs::exists(self.of_part(number, PartFile::Requests)).unwrap_or(false) {
                break;
            }
            self.remove_part(number);
        }
    }

    /// Removes the files of a part.
    pub(super) fn remove_part(&self, number: usize) {
        for file in [PartFile::Requests, PartFile::Upload, PartFile::Output, PartFile::Errors] {
            // A file that remains costs only its place on disk.
            fs::remove_file(self.of_part(number, file)).ok();
        }
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // The file is removed while the lock is held, so no other process holds it.
        fs::remove_file(&self.lock).ok();
    }
}

/// Replaces a file by what `write` writes. It has its name only once it is durable. Only its owner may read it.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let draft = with_end(path, DRAFT);
    let mut file = create_private(&draft)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&draft, path)?;
    sync_folder(path)
}

/// Creates an empty file that only its owner may read.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

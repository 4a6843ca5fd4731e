//! The store's folder: one process at a time, and what its files are called.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const SEGMENT: &str = ".segment";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process uses {}", .0.display())]
    Held(PathBuf),
    /// The folder or a file in it cannot be read or written.
    #[error("{} cannot be used: {fault}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        fault: io::Error,
    },
}

/// Numbers of what is named like a segment, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Regular files, the oldest first.
    pub(super) segments: Vec<u32>,
    /// Folders, pipes, links and the like. They are left alone.
    pub(super) others: Vec<u32>,
}

/// A folder that is this process's alone, until it is dropped or the process ends in any way.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Makes the folder if need be, and takes it. What is in it is for its owner alone: vectors tell of their texts.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let unusable = |fault| OpenError::Unusable { path: path.to_owned(), fault };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = writable().create(true).open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held(path.to_owned())),
            Err(TryLockError::Error(fault)) => Err(unusable(fault)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets another process have it.
    pub(super) fn release(&self) -> io::Result<()> {
        self.lock.unlock()
    }

    /// Lists what is named like a segment.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT)?.parse::<u32>().ok());
            let Some(number) = number.filter(|number| self.segment(*number).file_name() == Some(&name)) else {
                continue;
            };
            // Links are not followed: nothing outside of the folder is ever written or removed.
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file { &mut listing.segments } else { &mut listing.others }.push(number);
        }
        listing.segments.sort_unstable();
        listing.others.sort_unstable();
        Ok(listing)
    }

    /// Whether anything has the name of segment `number`, be it a link to nowhere.
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

    /// Removes all segments for good, as far as that goes.
    pub(super) fn remove_segments(&self) -> io::Result<()> {
        let removed: Vec<_> = self.list()?.segments.into_iter().map(|number| self.remove_segment(number)).collect();
        removed.into_iter().collect::<io::Result<()>>()?;
        self.sync()
    }

    /// Replaces a small file: afterwards it is on the medium, and at no time half of it.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = writable().create(true).truncate(true).open(&fresh)?;
        let written = io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&fresh)))?;
        fs::rename(&fresh, self.path.join(name))?;
        self.sync()
    }

    /// Fails if the medium has no room for so many bytes or takes none.
    pub(super) fn probe(&self, bytes: usize) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = writable().create(true).truncate(true).open(&path)?;
        let written = io::Write::write_all(&mut file, &vec![1; bytes]).and_then(|()| file.sync_all());
        fs::remove_file(&path)?;
        written
    }

    /// Makes what files are called last.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// The whole of a small file, if it is there.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// How files of the store are opened.
pub(super) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

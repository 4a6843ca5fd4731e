//! Small files that are replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a small file atomically and syncs it: a reader never finds a partial file. Only its owner can read it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // The new file is synced before it gets its name: a power failure leaves either the old or the new content.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A partial file would only take space on a disk that may be full.
    written.inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    fs::rename(&fresh, path)?;
    // The folder is synced as well, which makes the new name durable.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

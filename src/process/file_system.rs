//! The file system that holds a path: its type and its free space.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use sysinfo::{DiskRefreshKind, Disks};

/// Mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Type as the kernel names it, such as `ext4`.
    pub kind: String,
    /// Free space for this user; `None` if it is unknown, as for network file systems, which may not answer.
    pub available_bytes: Option<u64>,
}

impl FileSystem {
    /// Returns the file system that holds a path or would hold it. Blocks on the disk.
    pub fn of(path: &Path) -> Option<Self> {
        let path = existing_ancestor(path)?.canonicalize().ok()?;
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage()).ok();
        let known = disks.iter().flat_map(|disks| disks.iter()).map(|disk| {
            (disk.mount_point().to_owned(), disk.file_system().to_string_lossy().into_owned(), disk.available_space())
        });
        let known: Vec<_> = known.collect();
        // The library leaves out network file systems, so the kernel's own list comes first.
        let mounts = fs::read_to_string("/proc/self/mounts").map_or_else(
            |_| known.iter().map(|(point, kind, _)| (point.clone(), kind.clone())).collect(),
            |text| text.lines().filter_map(mount).collect::<Vec<_>>(),
        );
        let (point, kind) = holder(mounts, &path)?;
        let available = known.iter().rev().find(|(other, other_kind, _)| *other == point && *other_kind == kind);
        Some(Self { kind, available_bytes: available.map(|(_, _, bytes)| *bytes) })
    }

    /// Returns true if the content is in memory, and is lost when the machine or the container stops.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// Returns true if another machine holds the content.
    pub fn is_remote(&self) -> bool {
        let kind = self.kind.as_str();
        matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "9p" | "ceph" | "glusterfs" | "fuse.sshfs")
    }
}

/// Returns the path, or else the nearest folder above it that exists.
pub fn existing_ancestor(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok())
}

/// Returns the mount that holds a path: the longest mount point above it, and the last one of equal points.
fn holder(mounts: Vec<(PathBuf, String)>, path: &Path) -> Option<(PathBuf, String)> {
    let above = mounts.into_iter().filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count())
}

/// Reads the mount point and the type from a line of `/proc/self/mounts`.
fn mount(line: &str) -> Option<(PathBuf, String)> {
    let mut fields = line.split(' ').skip(1);
    let (point, kind) = (fields.next()?, fields.next()?);
    Some((PathBuf::from(OsString::from_vec(unescaped(point))), kind.to_owned()))
}

/// Decodes the octal escapes of spaces and backslashes.
fn unescaped(field: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_last_mount_above_a_path_holds_it() {
        let mounts = ["/dev/a / ext4 rw 0 0", "none /x tmpfs rw 0 0", "b /x/y nfs4 rw 0 0", "c /x xfs rw 0 0"];
        let holder = |path: &str| holder(mounts.iter().filter_map(|line| mount(line)).collect(), Path::new(path));
        let kind = |path: &str| holder(path).map(|(_, kind)| kind);
        assert_eq!(kind("/etc").as_deref(), Some("ext4"));
        assert_eq!(kind("/x/z").as_deref(), Some("xfs"));
        assert_eq!(kind("/x/y/z").as_deref(), Some("nfs4"));
        assert_eq!(kind("/xy").as_deref(), Some("ext4"));
    }

    #[test]
    fn escaped_mount_points_are_decoded() {
        assert_eq!(mount(r"a /my\040disk\134 ext4 rw 0 0"), Some(("/my disk\\".into(), "ext4".to_owned())));
        assert_eq!(mount("a"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_system_of_this_machine_has_a_type_and_free_space() {
        let temporary = FileSystem::of(&std::env::temp_dir().join("no/such/folder")).expect("it is on a file system");
        assert!(!temporary.kind.is_empty() && temporary.available_bytes.is_some(), "{temporary:?}");
        let shared = FileSystem::of(Path::new("/dev/shm")).expect("Linux has it");
        assert!(shared.is_in_memory() && shared.available_bytes.is_some(), "{shared:?}");
    }
}

//! Warnings about the machine that vecho starts on: the disk tier's file system, the memory limit, and the clock.

use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::advice::Advice;
use crate::config::{Config, Origin};
use crate::process::clock::{Clock, rfc3339};
use crate::process::file_system::FileSystem;
use crate::process::system::System;

/// Longest delay of a start by a file system that does not answer.
const LOOK_WITHIN: Duration = Duration::from_millis(250);
/// Free space below which a file system is nearly full.
const NEARLY_FULL_BYTES: u64 = 256 << 20;
/// 2026-01-01 in milliseconds since the Unix epoch. This program is younger.
const EARLIEST_MS: u64 = 1_767_225_600_000;

/// Returns warnings about the machine. Facts that are not known in time cause none.
pub(super) async fn machine_warnings(config: &Config, system: &System, clock: &Clock) -> Vec<Advice> {
    let memory = memory_warning(config, system.container_limit_bytes());
    let path = config.disk.path.clone().filter(|_| config.disk.enabled);
    // A file system that does not answer blocks the thread that reads it.
    let disk = spawn_blocking(move || path.and_then(|path| disk_warning(&path, &FileSystem::of(&path)?)));
    let disk = timeout(LOOK_WITHIN, disk).await.ok().and_then(Result::ok).flatten();
    [memory, disk, clock_warning(clock)].into_iter().flatten().collect()
}

/// Warns of a file system that loses its content, does not lock reliably, or is nearly full.
pub fn disk_warning(path: &Path, system: &FileSystem) -> Option<Advice> {
    let (kind, path) = (&system.kind, path.display());
    let (message, remedy) = if system.is_in_memory() {
        let message =
            format!("the disk tier at {path} is in memory ({kind}) and is lost with the container or machine");
        (message, "set disk.path to a folder on a volume, or disk.enabled=false")
    } else if system.is_remote() {
        let message = format!("the disk tier at {path} is on a network file system ({kind}), whose locks may not work");
        (message, "set disk.path to a local folder; replicas share entries by redis.url")
    } else {
        let free = system.available_bytes.filter(|bytes| *bytes < NEARLY_FULL_BYTES)? >> 20;
        let message = format!("the disk tier at {path} has {free} MiB of free space left");
        (message, "free some, or set disk.path to another volume")
    };
    Some(Advice::new("disk", message, remedy))
}

/// Warns of a chosen memory limit that the container does not allow.
pub fn memory_warning(config: &Config, container_bytes: Option<u64>) -> Option<Advice> {
    let is_chosen = !matches!(config.effective.origin("memory.limit_mb"), Some(Origin::Default));
    let (limit, container) = (config.memory.limit_bytes >> 20, container_bytes? >> 20);
    (is_chosen && limit > container).then(|| {
        let message = format!(
            "memory.limit_mb is {limit}, but the container may use {container} MiB, so vecho keeps below nine tenths of \
             that"
        );
        Advice::new("memory", message, "raise the container's limit, or lower memory.limit_mb")
    })
}

fn clock_warning(clock: &Clock) -> Option<Advice> {
    let now_ms = clock.now_ms();
    (now_ms < EARLIEST_MS).then(|| {
        let message = format!("the clock says {}, which is before this program was made", rfc3339(now_ms));
        Advice::new("clock", message, "set it, since certificates and expiry times depend on it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(kind: &str, available_bytes: Option<u64>) -> String {
        let system = FileSystem { kind: kind.to_owned(), available_bytes };
        disk_warning(Path::new("/x"), &system).map_or_else(String::new, |advice| advice.to_string())
    }

    #[test]
    fn a_disk_folder_in_memory_on_a_network_or_nearly_full_is_warned_of() {
        assert_eq!(disk("ext4", Some(1 << 30)), "");
        assert_eq!(disk("ext4", None), "");
        assert!(disk("ext4", Some(10 << 20)).contains("has 10 MiB of free space"));
        assert!(disk("tmpfs", Some(1 << 30)).contains("is in memory (tmpfs)"));
        assert!(disk("nfs4", None).contains("network file system (nfs4)"));
    }

    #[test]
    fn only_a_chosen_memory_limit_above_that_of_the_container_is_warned_of() {
        let warning = |pairs: &[(&str, &str)], container_mb: u64| {
            memory_warning(&Config::from_pairs(pairs).expect("it is valid"), Some(container_mb << 20))
        };
        assert_eq!(warning(&[], 256), None);
        assert_eq!(warning(&[("memory.limit_mb", "2000")], 2000), None);
        let said = warning(&[("memory.limit_mb", "2000")], 256).expect("it is far above").message;
        assert!(said.starts_with("memory.limit_mb is 2000, but the container may use 256 MiB"), "{said}");
    }

    #[test]
    fn a_clock_that_was_never_set_is_warned_of() {
        let said = clock_warning(&Clock::manual(5_000)).expect("1970 is wrong").message;
        assert!(said.contains("1970-01-01T00:00:05Z"), "{said}");
        assert_eq!(clock_warning(&Clock::manual(EARLIEST_MS)), None);
    }
}

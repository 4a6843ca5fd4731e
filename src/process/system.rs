//! Memory of the machine and of this process: current use, limits, and the return of free memory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use serde::Serialize;

use crate::process::heap;

/// Source of the numbers. Tests can place the kernel's folders under another root.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

/// The machine, or the container that this process runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Processors available to this process.
    pub cpu_count: usize,
    /// Total memory of the machine.
    pub total_memory_bytes: u64,
    /// Memory available without swapping.
    pub available_memory_bytes: u64,
    /// Percentage of the machine's memory that is in use.
    pub memory_percent: f64,
}

/// Result of a request to reduce memory. Sizes are in units of 1,048,576 bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Optimized {
    /// Requested size.
    pub target_memory_mb: u64,
    /// Resident memory at the time of the request.
    pub current_memory_mb: f64,
    /// True if that was over the target.
    pub optimization_needed: bool,
    /// Actions taken, in order.
    pub actions_taken: Vec<String>,
    /// Measured reduction of resident memory.
    pub memory_saved_mb: f64,
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl System {
    /// Returns the machine that this process runs on.
    pub fn new() -> Self {
        Self::under(Path::new("/"))
    }

    /// Returns a machine with `proc` and `sys` under `root`.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns the resident memory of this process; 0 if it is unknown. Reads one small file of the kernel.
    pub fn resident_bytes(&self) -> u64 {
        if cfg!(target_os = "linux") { self.resident_from_status().unwrap_or(0) } else { resident_elsewhere() }
    }

    /// Reads `status` instead of `statm`, which counts pages without their size.
    fn resident_from_status(&self) -> Option<u64> {
        let status = fs::read_to_string(self.root.join("proc/self/status")).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Returns the machine's current processors and memory.
    pub fn machine(&self) -> Machine {
        let (total, available) = machine_memory();
        Machine {
            cpu_count: thread::available_parallelism().map_or(1, usize::from),
            total_memory_bytes: total,
            available_memory_bytes: available,
            memory_percent: percent(total.saturating_sub(available), total),
        }
    }

    /// Returns the memory limit of the container, if there is one: the lowest limit from the process's own control
    /// group up to the root, in either version of control groups.
    pub fn container_limit_bytes(&self) -> Option<u64> {
        let groups = fs::read_to_string(self.root.join("proc/self/cgroup")).ok()?;
        groups.lines().filter_map(|line| self.group_limit(line)).min()
    }

    /// Returns the number of files and sockets that this process may have open, if it is known and limited.
    pub fn open_files_limit(&self) -> Option<u64> {
        let limits = fs::read_to_string(self.root.join("proc/self/limits")).ok()?;
        // The soft limit comes first; `unlimited` is no number and gives `None`.
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
    }

    /// Returns the user that this process runs as, if it is known.
    pub fn user(&self) -> Option<u32> {
        Some(fs::metadata(self.root.join("proc/self")).ok()?.uid())
    }

    /// Returns the limit for one line `number:controllers:path` of `/proc/self/cgroup`.
    fn group_limit(&self, line: &str) -> Option<u64> {
        let mut fields = line.splitn(3, ':');
        // The path may contain colons, so only the first two separate fields.
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let mounted = self.root.join("sys/fs/cgroup");
        // Version 2 has the number 0 and names no controllers. In version 1 each controller has its own mount.
        if number == "0" && controllers.is_empty() {
            lowest_limit(&mounted, path, "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            lowest_limit(&mounted.join("memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    }

    /// Returns freed memory that the allocator still holds to the operating system. Takes milliseconds on a large heap.
    pub fn give_back(&self) {
        heap::give_back();
    }
}

/// Returns the lowest number in the files `name` of the group `path` and its ancestors. Missing groups are skipped: in
/// a container the path is often the host's, and only its top is mounted.
fn lowest_limit(mounted: &Path, path: &str, name: &str) -> Option<u64> {
    let group = Path::new(path.trim_start_matches('/'));
    group.ancestors().filter_map(|ancestor| read_limit(&mounted.join(ancestor).join(name))).min()
}

fn read_limit(file: &Path) -> Option<u64> {
    /// Version 1 reports "no limit" as the largest multiple of a page. No machine has this much memory.
    const NO_LIMIT_BYTES: u64 = 1 << 60;
    // Version 2 reports "no limit" as `max`, which is no number and gives `None`.
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < NO_LIMIT_BYTES).then_some(bytes)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { bytes_f64(part) / bytes_f64(whole) * 100.0 }
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^53")]
fn bytes_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Returns total and available memory, or zeros if they are unknown.
fn machine_memory() -> (u64, u64) {
    let Ok(mut system) = sysinfo::System::new() else { return (0, 0) };
    system.refresh_memory();
    (system.total_memory(), system.available_memory())
}

fn resident_elsewhere() -> u64 {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate};
    let (Ok(own), Ok(mut system)) = (sysinfo::get_current_pid(), sysinfo::System::new()) else { return 0 };
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, memory);
    system.process(own).map_or(0, sysinfo::Process::memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Temporary root folder, removed on drop.
    struct Tree(PathBuf);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            // Each test runs on its own thread and uses one tree at a time.
            let name = format!("vecho-system-{}-{:?}", std::process::id(), thread::current().id());
            let root = std::env::temp_dir().join(name);
            for (path, text) in files {
                let file = root.join(path);
                fs::create_dir_all(file.parent().expect("a file has a folder")).expect("it can be made");
                fs::write(file, text).expect("it can be written");
            }
            Self(root)
        }

        fn limit(files: &[(&str, &str)]) -> Option<u64> {
            let tree = Self::new(files);
            System::under(&tree.0).container_limit_bytes()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            // A leftover temporary folder does no harm.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_lowest_limit_among_parent_groups_is_used() {
        let limit = Tree::limit(&[
            ("proc/self/cgroup", "0::/a/b/c\n"),
            ("sys/fs/cgroup/a/b/c/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.max", "524288000\n"),
            ("sys/fs/cgroup/a/memory.max", "1048576000\n"),
        ]);
        assert_eq!(limit, Some(524_288_000));
    }

    #[test]
    fn groups_without_a_limit_are_unlimited() {
        let files = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(Tree::limit(&files), None);
        assert_eq!(Tree::limit(&[]), None);
    }

    #[test]
    fn inside_a_container_the_group_is_the_root() {
        let files = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "64000000\n")];
        assert_eq!(Tree::limit(&files), Some(64_000_000));
    }

    #[test]
    fn cgroup_version_1_is_read_and_its_huge_default_means_no_limit() {
        let groups = ("proc/self/cgroup", "5:cpu,cpuacct:/host\n4:memory:/host/pod\n1:name=systemd:/host\n");
        let at_root = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "256000000\n");
        let huge = ("sys/fs/cgroup/memory/host/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(Tree::limit(&[groups, at_root, huge]), Some(256_000_000));
        assert_eq!(Tree::limit(&[groups, huge]), None);
    }

    #[test]
    fn limits_of_other_controllers_are_ignored() {
        let files = [("proc/self/cgroup", "5:cpu:/x\n"), ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n")];
        assert_eq!(Tree::limit(&files), None);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let line = "Max open files            1024                 1048576              files\n";
        let limit = |text: &str| System::under(&Tree::new(&[("proc/self/limits", text)]).0).open_files_limit();
        assert_eq!(limit(&format!("Limit  Soft\n{line}")), Some(1024));
        assert_eq!(limit("Max open files            unlimited            unlimited            files\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_memory_is_read_in_bytes() {
        let tree = Tree::new(&[("proc/self/status", "Name:\tvecho\nVmHWM:\t  9 kB\nVmRSS:\t   12345 kB\n")]);
        assert_eq!(System::under(&tree.0).resident_bytes(), 12345 * 1024);
    }

    #[test]
    fn this_process_and_this_machine_have_plausible_sizes() {
        let system = System::new();
        let machine = system.machine();
        let resident = system.resident_bytes();
        assert!(resident > 100_000 && resident < machine.total_memory_bytes, "{resident} of {machine:?}");
        assert!(machine.cpu_count > 0 && machine.available_memory_bytes <= machine.total_memory_bytes);
        assert!((0.0..=100.0).contains(&machine.memory_percent), "{machine:?}");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn freed_memory_is_returned_to_the_system() {
        let system = System::new();
        // Blocks below the threshold of 128 KB come from the heap; the last one prevents the top of the heap from
        // moving down.
        let mut blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 64 * 1024]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = system.resident_bytes();
        system.give_back();
        let after = system.resident_bytes();
        assert!(after + 32 * 1024 * 1024 < before, "{before} before, {after} after");
        drop(last);
    }
}

//! Settings of one run of the harness: load and cores.

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;

/// Settings of this run that every scenario needs.
pub(crate) struct Bench {
    /// A tenth of the load. It shows that everything works; its numbers must not be quoted.
    pub(crate) quick: bool,
    /// True if servers run on the first core, load generator and upstream on the second.
    pub(crate) pinned: bool,
    /// Directory for server logs and raw numbers.
    pub(crate) out: PathBuf,
}

impl Bench {
    pub(crate) fn new(quick: bool) -> Outcome<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        let out = target.join("bench");
        std::fs::create_dir_all(&out)?;
        Ok(Self { quick, pinned: pin_self(), out })
    }

    /// Returns `count`, or a tenth of it in a quick run.
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        if self.quick { (count / 10).max(10) } else { count }
    }

    /// Returns the number of rounds in which a pair of servers is measured.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }
}

/// Moves this process to the second core if there are two cores and a `taskset`. Returns true if it did.
fn pin_self() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return false;
    }
    let pid = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-a", "-c", "-p", "1", &pid]).output();
    moved.is_ok_and(|output| output.status.success())
}

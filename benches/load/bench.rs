//! One run of the harness: scenarios, load and cores.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::report::{self, Report};
use crate::{Outcome, scenarios};

/// A scenario that takes longer than this waits for an answer that never comes.
const SCENARIO_WITHIN: Duration = Duration::from_mins(5);

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
    fn new(quick: bool) -> Outcome<Self> {
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

/// Runs the scenarios that `arguments` name (all if it names none) and reports. Returns false if one failed.
pub(crate) fn run(arguments: &[String]) -> Outcome<bool> {
    let (flags, names): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|word| word.starts_with("--"));
    if let Some(flag) = flags.iter().find(|flag| flag.as_str() != "--quick") {
        return Err(format!("unknown flag {flag}; there is --quick").into());
    }
    let chosen = choose(&names)?;
    let bench = Bench::new(!flags.is_empty())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    for name in chosen {
        let started = Instant::now();
        report::progress(&format!("{name} ..."));
        let scenario = async { tokio::time::timeout(SCENARIO_WITHIN, scenarios::run(name, &bench)).await };
        match runtime.block_on(scenario).unwrap_or_else(|_| Err("not done in time; does a server hang?".into())) {
            Ok(rows) => report.add(name, rows),
            Err(error) => report.fail(name, &error.to_string()),
        }
        report::progress(&format!("{name} took {:.1} s", started.elapsed().as_secs_f64()));
    }
    report.finish(&bench)
}

fn choose(names: &[&String]) -> Outcome<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(scenarios::NAMES.to_vec());
    }
    names.iter().map(|name| known(name)).collect()
}

fn known(name: &str) -> Outcome<&'static str> {
    let found = scenarios::NAMES.iter().find(|known| **known == name);
    found.copied().ok_or_else(|| format!("no scenario {name}; there are {}", scenarios::NAMES.join(", ")).into())
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

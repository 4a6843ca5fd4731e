//! One run of the harness: its scenarios and their report.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::report::{self, Report};
use crate::{Outcome, scenarios};

/// A scenario that takes longer than this waits for an answer that never comes.
const SCENARIO_WITHIN: Duration = Duration::from_mins(5);

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

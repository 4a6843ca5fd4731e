//! Output of a run: progress messages, a table for `docs/PERFORMANCE.md`, and a file with the raw numbers.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table goes to stdout, progress to stderr")]

use std::fs;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bench::Bench;

/// One line of the table.
pub(crate) struct Row {
    /// The measured quantity.
    pub(crate) what: String,
    /// The target to meet.
    pub(crate) target: String,
    /// The measured number.
    pub(crate) measured: String,
    /// The comparison in absolute numbers.
    pub(crate) reference: String,
    /// True if the target was missed; `None` without a target.
    pub(crate) missed: Option<bool>,
    /// Every round.
    pub(crate) raw: Value,
}

impl Row {
    /// Creates a row whose number must not exceed `limit`; `show` formats both.
    pub(crate) fn limited(what: &str, (limit, measured): (f64, f64), show: impl Fn(f64) -> String) -> Self {
        Self {
            what: what.to_owned(),
            target: format!("≤ {}", show(limit)),
            measured: show(measured),
            reference: String::new(),
            missed: Some(measured > limit),
            raw: json!({ "limit": limit, "measured": measured }),
        }
    }

    /// Creates a row without a target.
    pub(crate) fn told(what: &str, measured: String) -> Self {
        Self {
            what: what.to_owned(),
            target: String::new(),
            measured,
            reference: String::new(),
            missed: None,
            raw: json!({}),
        }
    }

    /// Replaces the text of the measured number.
    pub(crate) fn saying(self, measured: String) -> Self {
        Self { measured, ..self }
    }

    /// Adds the reference numbers and all rounds.
    pub(crate) fn against(mut self, reference: String, rounds: Value) -> Self {
        self.reference = reference;
        self.raw["rounds"] = rounds;
        self
    }
}

/// Rows and failures so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Row)>,
    failures: Vec<(&'static str, String)>,
}

impl Report {
    /// Adds a scenario's rows.
    pub(crate) fn add(&mut self, scenario: &'static str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (scenario, row)));
    }

    /// Records why a scenario has no result.
    pub(crate) fn fail(&mut self, scenario: &'static str, why: &str) {
        complain(&format!("{scenario}: {why}"));
        self.failures.push((scenario, why.to_owned()));
    }

    /// Prints the table and writes the file. Returns true if no scenario failed; a missed target is not a failure.
    pub(crate) fn finish(&self, bench: &Bench) -> Outcome<bool> {
        println!("{}\n", conditions(bench));
        println!("| what | target | measured | reference |\n|---|---|---|---|");
        for (_, row) in &self.rows {
            let mark = if row.missed == Some(true) { " (missed)" } else { "" };
            println!("| {} | {} | {}{mark} | {} |", row.what, row.target, row.measured, row.reference);
        }
        for (scenario, why) in &self.failures {
            println!("| {scenario} | | failed: {} | |", why.replace('|', "/"));
        }
        let file = bench.out.join("load.json");
        fs::write(&file, serde_json::to_vec_pretty(&self.json(bench))?)?;
        progress(&format!("raw numbers: {}", file.display()));
        Ok(self.failures.is_empty())
    }

    fn json(&self, bench: &Bench) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|(scenario, row)| row_json(scenario, row)).collect();
        let failures: Vec<Value> =
            self.failures.iter().map(|(scenario, why)| json!({ "scenario": scenario, "why": why })).collect();
        json!({ "conditions": conditions(bench), "quick": bench.quick, "rows": rows, "failures": failures })
    }
}

fn row_json(scenario: &str, row: &Row) -> Value {
    json!({
        "scenario": scenario, "what": row.what, "target": row.target, "measured": row.measured,
        "missed": row.missed, "reference": row.reference, "raw": row.raw,
    })
}

/// Describes the machine and the set-up of the run in one sentence.
fn conditions(bench: &Bench) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pinning = if bench.pinned {
        "server on one core, load generator and upstream on another (taskset)"
    } else {
        "nothing pinned to a core"
    };
    let quick = if bench.quick { " Quick run: a tenth of the load, not to be quoted." } else { "" };
    let available = if bench.pinned { String::new() } else { format!("{cores} cores, ") };
    let (model, kernel) = (model.trim_start_matches([' ', '\t', ':']), kernel.trim());
    format!("{model}, Linux {kernel}, {available}loopback; {pinning}; median of {} rounds.{quick}", bench.rounds())
}

/// Prints a progress message.
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

/// Prints a failure.
pub(crate) fn complain(line: &str) {
    eprintln!("FAILED {line}");
}

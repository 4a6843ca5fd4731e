//! What a run tells: progress on the way, a table for the README at the end, and the raw numbers in a file.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table goes to stdout, progress to stderr")]

use std::fs;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bench::Bench;

/// One line of the table.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The number to hold.
    pub(crate) target: String,
    /// The number found.
    pub(crate) measured: String,
    /// What it is compared with, in absolute numbers.
    pub(crate) reference: String,
    /// Whether the target was missed; nothing where there is no target.
    pub(crate) missed: Option<bool>,
    /// Every round.
    pub(crate) raw: Value,
}

impl Row {
    /// A row whose number is to stay at or under `limit`; `show` writes both.
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

    /// The same row with another text for the number found.
    pub(crate) fn saying(self, measured: String) -> Self {
        Self { measured, ..self }
    }

    /// The same row with what the number is compared with.
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
    /// Takes what a scenario found.
    pub(crate) fn add(&mut self, scenario: &'static str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (scenario, row)));
    }

    /// Takes why a scenario has no result.
    pub(crate) fn fail(&mut self, scenario: &'static str, why: &str) {
        complain(&format!("{scenario}: {why}"));
        self.failures.push((scenario, why.to_owned()));
    }

    /// Prints the table and writes the file. True when no scenario failed; a missed target is a result, no failure.
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

/// The machine and the cut of the run, in one sentence.
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

/// A line for whoever is waiting.
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

/// A line about what went wrong.
pub(crate) fn complain(line: &str) {
    eprintln!("FAILED {line}");
}

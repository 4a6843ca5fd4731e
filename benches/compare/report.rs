//! Output of a run: progress messages, a table for `docs/PERFORMANCE.md`, and a file with every round.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table goes to stdout, progress to stderr")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::bench::Bench;
use crate::proxies::{Proxy, vecho_binary};
use crate::stage::installed;

/// One line of the table.
pub(crate) struct Row {
    /// The measured quantity.
    pub(crate) what: String,
    /// What was measured for each proxy.
    pub(crate) cells: Vec<(Proxy, Cell)>,
}

/// A figure, or the reason why there is none: the proxy did not start, or gave a wrong answer.
pub(crate) type Cell = Result<String, String>;

/// Returns the cell of a proxy that gave a wrong answer or none.
pub(crate) fn disqualified(failure: &str) -> Cell {
    Err(format!("disqualified: {failure}"))
}

/// Rows and rounds so far.
pub(crate) struct Report {
    conditions: String,
    rows: Vec<Row>,
    raw: Map<String, Value>,
    file: PathBuf,
}

impl Report {
    /// Begins a report with the versions and sizes of the proxies.
    pub(crate) fn new(bench: &Bench, rounds: usize, pinning: &str) -> Outcome<Self> {
        let table = installed().join("installed.tsv");
        let text = fs::read_to_string(&table)
            .map_err(|error| format!("{}: {error}; run scripts/setup-compare", table.display()))?;
        let mut report = Self {
            conditions: conditions(bench, rounds, pinning),
            rows: Vec::new(),
            raw: Map::new(),
            file: bench.out.join("compare.json"),
        };
        let (versions, sizes) = programs(&text)?;
        report.add(Row { what: "version".to_owned(), cells: versions });
        report.add(Row { what: "size when installed".to_owned(), cells: sizes });
        Ok(report)
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds several rows.
    pub(crate) fn add_all(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Adds the proxies that could not be started for these scenarios.
    pub(crate) fn add_failures(&mut self, scenarios: &str, failures: &[(Proxy, String)]) {
        if !failures.is_empty() {
            let cells = failures.iter().map(|(proxy, error)| (*proxy, Err(error.clone()))).collect();
            self.add(Row { what: format!("could not be started: {scenarios}"), cells });
        }
    }

    /// Adds the rounds of a scenario to the file.
    pub(crate) fn add_raw(&mut self, name: &str, rounds: Value) {
        self.raw.insert(name.to_owned(), rounds);
    }

    /// Prints the table and writes the file. Returns an error if vecho did not start or gave a wrong answer.
    pub(crate) fn finish(&self) -> Outcome<()> {
        println!("{}\n", self.conditions);
        let titles: Vec<&str> = Proxy::ALL.iter().map(|proxy| proxy.title()).collect();
        println!("| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
        for row in &self.rows {
            let cells = Proxy::ALL.map(|proxy| row.cell(proxy).replace('|', "/").replace('\n', " "));
            println!("| {} | {} |", row.what, cells.join(" | "));
        }
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let file = json!({ "conditions": self.conditions, "rows": rows, "raw": self.raw });
        fs::write(&self.file, serde_json::to_vec_pretty(&file)?)?;
        progress(&format!("raw numbers: {}", self.file.display()));
        let failure = |row: &Row| Some(format!("{}: {}", row.what, row.find(Proxy::Vecho)?.as_ref().err()?));
        let failures: Vec<String> = self.rows.iter().filter_map(failure).collect();
        if failures.is_empty() { Ok(()) } else { Err(format!("vecho: {}", failures.join("; ")).into()) }
    }
}

impl Row {
    fn find(&self, proxy: Proxy) -> Option<&Cell> {
        self.cells.iter().find(|(its, _)| *its == proxy).map(|(_, cell)| cell)
    }

    fn cell(&self, proxy: Proxy) -> &str {
        self.find(proxy).map_or("", text)
    }

    fn json(&self) -> Value {
        let cells: Map<String, Value> =
            self.cells.iter().map(|(proxy, cell)| (proxy.name().to_owned(), json!(text(cell)))).collect();
        json!({ "what": self.what, "cells": cells })
    }
}

fn text(cell: &Cell) -> &str {
    cell.as_deref().unwrap_or_else(|failure| failure)
}

type Cells = Vec<(Proxy, Cell)>;

/// Returns versions and sizes of all proxies from the lines `NAME VERSION KILOBYTES`.
fn programs(table: &str) -> Outcome<(Cells, Cells)> {
    let mut versions = vec![(Proxy::Vecho, Ok(env!("CARGO_PKG_VERSION").to_owned()))];
    let mut sizes = vec![(Proxy::Vecho, Ok(megabytes(fs::metadata(vecho_binary())?.len())))];
    for line in table.lines() {
        let [name, version, kilobytes] = line.split('\t').collect::<Vec<&str>>()[..] else {
            return Err(format!("installed.tsv: unreadable line {line}").into());
        };
        let named = |proxy: &&Proxy| proxy.name() == name;
        let proxy = *Proxy::ALL.iter().find(named).ok_or_else(|| format!("installed.tsv: no proxy {name}"))?;
        versions.push((proxy, Ok(version.to_owned())));
        let kilobytes: u64 = kilobytes
            .parse()
            .map_err(|_| format!("installed.tsv: no size in the line {line}; run scripts/setup-compare again"))?;
        sizes.push((proxy, Ok(megabytes(kilobytes * 1024))));
    }
    Ok((versions, sizes))
}

/// Describes the machine and the set-up of the run.
fn conditions(bench: &Bench, rounds: usize, pinning: &str) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let pinning = if bench.pinned { pinning } else { "nothing pinned to a core" };
    let quick = if bench.quick { " Quick run: not to be quoted." } else { "" };
    let (model, kernel) = (model.trim_start_matches([' ', '\t', ':']), kernel.trim());
    format!("{model}, Linux {kernel}, loopback; {pinning}; medians of {rounds} rounds.{quick}")
}

/// Formats a time that is given in microseconds.
pub(crate) fn duration(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.1} µs")
    } else if us < 1e6 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.1} s", us / 1e6)
    }
}

/// Formats a size in bytes.
#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Formats a number with separators between thousands.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// Prints a progress message.
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

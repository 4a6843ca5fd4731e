//! One run of the comparison.

use std::process::Command;

use serde_json::json;

use crate::Outcome;
use crate::bench::Bench;
use crate::report::{Report, Row, megabytes, progress};
use crate::scenarios::closed::{self, Case, Texts};
use crate::scenarios::starts::Starts;
use crate::scenarios::{herd, memory, rounds};
use crate::stage::{Cores, Stage, remove_leftovers};

/// Scenarios with one core for each proxy.
const ONE_CORE: [Case; 4] = [
    Case { what: "hit, 1 input", texts: Texts::Known(1), first_new: 0, connections: 16 },
    Case { what: "hit, 256 inputs, the same body", texts: Texts::Known(256), first_new: 0, connections: 4 },
    Case { what: "32 inputs, 16 of them new", texts: Texts::HalfNew(32), first_new: 1 << 32, connections: 16 },
    Case { what: "miss, 1 input", texts: Texts::New, first_new: 2 << 32, connections: 16 },
];

/// The setting that projects of gateways publish: two cores, ten connections.
const TWO_CORES: [Case; 2] = [
    Case { what: "2 cores, 10 connections, hit", texts: Texts::Known(1), first_new: 0, connections: 10 },
    Case { what: "2 cores, 10 connections, miss", texts: Texts::New, first_new: 3 << 32, connections: 10 },
];

/// Groups of scenarios that have a stage in common.
const GROUPS: [&str; 3] = ["one_core", "callers", "two_cores"];

/// Measures the groups that `arguments` name (all if they name none) and prints the table.
pub(crate) fn run(arguments: &[String]) -> Outcome<()> {
    let (flags, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let is_known = |word: &&str| *word == "--quick" || GROUPS.contains(word);
    if let Some(word) = flags.iter().chain(&names).find(|word| !is_known(word)) {
        return Err(format!("unknown argument {word}; there are --quick, {}", GROUPS.join(", ")).into());
    }
    remove_leftovers();
    let bench = Bench::new(!flags.is_empty())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let groups = if names.is_empty() { GROUPS.to_vec() } else { names };
    let mut report = Report::new(&bench, rounds(&bench), &pinning(&groups))?;
    runtime.block_on(measure(&bench, &groups, &mut report))?;
    report.finish()
}

/// Describes the cores of these groups.
fn pinning(groups: &[&str]) -> String {
    let one = "each proxy on one core, load generator and upstream on another (taskset)";
    let two = "each proxy, load generator and upstream on the same two cores (taskset)";
    match (groups.contains(&"two_cores"), groups.len()) {
        (false, _) => one.to_owned(),
        (true, 1) => two.to_owned(),
        (true, _) => format!("{one}; in the rows with 2 cores {two}"),
    }
}

async fn measure(bench: &Bench, groups: &[&str], report: &mut Report) -> Outcome<()> {
    let mut starts = Starts::default();
    if groups.contains(&"one_core") {
        one_core(bench, report, &mut starts).await?;
    }
    if groups.contains(&"callers") {
        many_callers(bench, report, &mut starts).await?;
    }
    if !starts.is_empty() {
        report.add(starts.row());
        report.add_raw("starts", starts.json());
    }
    if groups.contains(&"two_cores") {
        two_cores(bench, report).await?;
    }
    Ok(())
}

async fn one_core(bench: &Bench, report: &mut Report, starts: &mut Starts) -> Outcome<()> {
    if !bench.quick {
        progress("starts ...");
        starts.once(bench).await?;
    }
    progress("one core ...");
    let stage = Stage::start(bench, 0, Cores::One).await?;
    starts.add(&stage);
    report.add_failures("one core", &stage.failures);
    progress("memory ...");
    let (memory_rows, raw) = memory::measure(bench, &stage).await;
    report.add_raw("memory", raw);
    for case in &ONE_CORE {
        progress(&format!("{} ...", case.what));
        let results = closed::measure(bench, &stage, case).await;
        report.add(results.cpu());
        report.add(results.latency());
        report.add(results.inputs());
        report.add_raw(case.what, results.json());
    }
    report.add_all(memory_rows);
    Ok(())
}

async fn many_callers(bench: &Bench, report: &mut Report, starts: &mut Starts) -> Outcome<()> {
    progress("herd ...");
    let stage = Stage::start(bench, 20, Cores::One).await?;
    starts.add(&stage);
    report.add_failures("500 callers", &stage.failures);
    let (rows, raw) = herd::measure(bench, &stage).await;
    report.add_all(rows);
    report.add_raw("herd", raw);
    Ok(())
}

/// Load generator and upstream are no longer on a core of their own.
async fn two_cores(bench: &Bench, report: &mut Report) -> Outcome<()> {
    progress("two cores ...");
    if bench.pinned {
        let id = std::process::id().to_string();
        let moved = Command::new("taskset").args(["-a", "-c", "-p", "0,1", &id]).output()?;
        if !moved.status.success() {
            let error = String::from_utf8_lossy(&moved.stderr);
            return Err(format!("taskset cannot give the load generator two cores: {}", error.trim()).into());
        }
    }
    let stage = Stage::start(bench, 0, Cores::Two).await?;
    report.add_failures("2 cores", &stage.failures);
    for case in &TWO_CORES {
        progress(&format!("{} ...", case.what));
        let results = closed::measure(bench, &stage, case).await;
        report.add(results.latency());
        report.add_raw(case.what, results.json());
    }
    let peaks = stage.proxies.iter().map(|running| (running.proxy, running.peak_bytes()));
    let peaks: Vec<_> = peaks.collect();
    let cells = peaks.iter().map(|(proxy, bytes)| (*proxy, Ok(megabytes(*bytes)))).collect();
    report.add(Row { what: "2 cores, 10 connections: peak memory".to_owned(), cells });
    let raw = peaks.iter().map(|(proxy, bytes)| json!({ "proxy": proxy.name(), "peak_bytes": bytes }));
    report.add_raw("peak memory", raw.collect());
    Ok(())
}

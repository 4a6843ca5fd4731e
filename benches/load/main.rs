//! The load harness: measures vecho against two reference servers in one run and prints the ratios.
//!
//! `cargo bench --bench load -- [--quick] [scenario...]`. The binary starts itself again for the servers that it needs:
//! `static` answers fixed bytes, `thin` only forwards, `upstream` is a stand-in for the embeddings service. vecho is
//! the release binary of the same build, or the one that `VECHO_BENCH_BINARY` names. Reading order: `scenarios` says
//! what is measured, `measure` how two servers are compared, `drive` how load is made, `child` how servers are started.

mod bench;
mod child;
mod client;
mod drive;
mod measure;
mod redis;
mod report;
mod roles;
mod scenarios;
mod shape;
mod vectors;

use std::error::Error;
use std::process::ExitCode;

/// What every step of the harness gives: a value, or the sentence that ends the scenario.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    // `cargo bench` adds `--bench` to whatever the user wrote.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.first().map(String::as_str) {
        Some("static" | "thin" | "least" | "upstream") => roles::run(&arguments).map(|()| true),
        _ => bench::run(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

//! The load harness: measures vecho against reference servers in one run and prints the ratios.
//!
//! `cargo bench --profile dist --bench load -- [--quick] [scenario...]`. The binary starts itself again as the reference servers:
//! `static` answers fixed bytes, `thin` only forwards, `least` is a minimal cache, `upstream` replaces the embeddings
//! service. vecho is the release binary of the same build, or the one that `VECHO_BENCH_BINARY` names. Reading order:
//! `scenarios` lists the measurements, `measure` compares two servers, `drive` generates load, `child` starts servers.

mod bench;
mod child;
mod client;
mod drive;
mod measure;
mod redis;
mod report;
mod roles;
mod run;
mod scenarios;
mod shape;
mod vectors;

use std::error::Error;
use std::process::ExitCode;

/// Result of every step of the harness: a value, or the message that ends the scenario.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    // `cargo bench` adds `--bench` to the user's arguments.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.first().map(String::as_str) {
        Some("static" | "thin" | "least" | "upstream") => roles::run(&arguments).map(|()| true),
        _ => run::run(&arguments),
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

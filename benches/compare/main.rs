//! The comparison: vecho beside the proxies that users would run instead, measured in one run on this machine.
//!
//! `cargo bench --profile dist --bench compare -- [--quick] [group...]`, after `scripts/setup-compare`. Load generator,
//! checks and upstream are those of the load harness. Reading order: `proxies` starts each proxy in its best
//! configuration, `stage` runs all of them in front of one upstream, `scenarios` measures them in turn, `report` prints
//! the table.

#[path = "../load/bench.rs"]
mod bench;
#[path = "../load/child.rs"]
#[expect(dead_code, reason = "shared with the load harness, whose servers are child processes")]
mod child;
#[path = "../load/client.rs"]
mod client;
#[path = "../load/drive.rs"]
#[expect(dead_code, reason = "shared with the load harness, which also loads at a constant rate")]
mod drive;
#[path = "../load/measure.rs"]
#[expect(dead_code, reason = "shared with the load harness, which compares two servers")]
mod measure;
mod process;
mod proxies;
mod report;
#[path = "../load/roles/mod.rs"]
#[expect(dead_code, reason = "of the servers of the load harness, only the upstream is needed")]
mod roles;
mod run;
mod scenarios;
#[path = "../load/shape.rs"]
#[expect(dead_code, reason = "shared with the load harness, which also asks for floats")]
mod shape;
mod stage;
#[path = "../load/vectors.rs"]
#[expect(dead_code, reason = "shared with the load harness, which also draws random texts")]
mod vectors;

use std::error::Error;
use std::process::ExitCode;

/// Result of every step: a value, or the message that ends the step.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    // `cargo bench` adds `--bench` to the user's arguments.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::progress(&format!("FAILED {error}"));
            ExitCode::FAILURE
        }
    }
}

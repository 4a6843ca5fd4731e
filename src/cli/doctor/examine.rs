//! Runs all checks and prints their results.

use serde_json::json;
use tokio::runtime::Builder;

use super::check::{CheckResult, CheckVerdict};
use super::options::DoctorOptions;
use super::{clock, configuration, disk, environment, limits, places, ports, redis_tier, tokens};
use crate::cli::output::{FAILED, FAULTY, Output, print};
use crate::cli::surrounding::Surrounding;
use crate::config::{Config, ConfigSource};

/// Checks everything and prints one line for each result. Returns 0 without a fault, 1 with one, and 64 if the
/// configuration is wrong.
pub(in crate::cli) fn doctor(
    source: &ConfigSource,
    surrounding: &Surrounding,
    options: &DoctorOptions,
    output: &mut Output<'_>,
) -> u8 {
    let config = match configuration::load(source) {
        Ok(config) => config,
        Err(faults) => {
            show(&faults, options, output);
            return FAULTY;
        }
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print(output.err, &format!("vecho: {error}"));
            return FAILED;
        }
    };
    let mut results = configuration::results(&config);
    results.extend(runtime.block_on(examine(&config, surrounding, options)));
    // A file system that does not answer may block a thread indefinitely, so the runtime must not wait for it.
    runtime.shutdown_background();
    let has_fault = results.iter().any(|result| result.verdict == CheckVerdict::Fault);
    let shown = show(&results, options, output);
    if has_fault { FAILED } else { shown }
}

/// Runs the checks of everything outside the configuration, all at once.
async fn examine(config: &Config, surrounding: &Surrounding, options: &DoctorOptions) -> Vec<CheckResult> {
    let local = async {
        let ports = ports::check(config).await;
        let version = ports.running.as_ref().map(|running| running.version.as_str());
        let disk = disk::check(config, version).await;
        (ports, disk)
    };
    let called = places::check(config, surrounding, options);
    let (called, (ports, disk), redis) = tokio::join!(called, local, redis_tier::check(config));
    let mut results = environment::check(config, surrounding, &called.first.addresses);
    results.extend(ports.running.as_ref().and_then(tokens::check));
    results.extend(ports.results);
    results.extend(called.results);
    results.push(clock::check(called.first.clock_ahead_s));
    results.extend([disk, redis]);
    results.extend(limits::check(config));
    results
}

fn show(results: &[CheckResult], options: &DoctorOptions, output: &mut Output<'_>) -> u8 {
    let worst = results.iter().map(|result| result.verdict).max().unwrap_or(CheckVerdict::Ok);
    let text = if options.json {
        format!("{:#}", json!({"version": env!("CARGO_PKG_VERSION"), "verdict": worst, "checks": results}))
    } else {
        results.iter().map(CheckResult::to_string).collect::<Vec<_>>().join("\n")
    };
    print(output.out, &text)
}

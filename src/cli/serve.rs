//! The command that runs the server.

use std::io::Write;

use super::output::{FAILED, FAULTY, OK, print};
use super::signals::Signals;
use crate::app::{App, Surroundings};
use crate::config::{Config, ConfigSource};
use crate::observe::logs;
use crate::process::clock::Clock;
use crate::process::heap;
use crate::process::workers::{Workers, runtime};

/// Runs the server until a signal stops it: logging, runtime, start, wait, stop.
pub(super) fn serve(source: ConfigSource, config: Config, err: &mut dyn Write) -> u8 {
    let level = match logs::init(&config.log.level, config.log.format) {
        Ok(level) => level,
        Err(error) => return failed(err, FAILED, &error),
    };
    // One heap per worker thread: workers do not contend for heap locks, and the other threads share these heaps.
    heap::limit_heaps(config.workers);
    // The main thread is the first worker.
    let runtime = match runtime(config.workers) {
        Ok(runtime) => runtime,
        Err(error) => return failed(err, FAILED, &error),
    };
    let status = runtime.block_on(async {
        let workers = match Workers::start(config.workers) {
            Ok(workers) => workers,
            Err(error) => return failed(err, FAILED, &error),
        };
        let surroundings = Surroundings { clock: Clock::System, level, source: Some(source), workers: Some(workers) };
        // The signals are caught from here on, so one that arrives during the start is not lost.
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed(err, FAILED, &error),
        };
        let app = match App::start(config, surroundings).await {
            Ok(app) => app,
            Err(error) if error.is_configuration() => return failed(err, FAULTY, &error),
            Err(error) => return failed(err, FAILED, &error),
        };
        signals.next().await;
        // A second signal does not wait for requests in flight.
        tokio::select! {
            _ = app.stop() => OK,
            () = signals.next() => {
                tracing::warn!("second signal to stop; cutting everything under way");
                FAILED
            }
        }
    });
    // A blocking thread that hangs on a disk would otherwise keep the process alive forever.
    runtime.shutdown_background();
    status
}

/// Reports a failed start on standard error, regardless of the configured log level and format.
fn failed(err: &mut dyn Write, status: u8, error: &dyn std::error::Error) -> u8 {
    // If standard error cannot be written, the exit status is the only report.
    print(err, &format!("vecho: cannot start: {error}"));
    status
}

//! Entry point of the process: arguments, environment and exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vecho::app::{App, Surroundings};
use vecho::cli::{self, Output};
use vecho::config::{Config, ConfigSource};
use vecho::observe::logs;
use vecho::process::clock::Clock;
use vecho::process::heap;
use vecho::process::workers::Workers;

fn main() -> ExitCode {
    let output = &mut Output { out: &mut io::stdout(), err: &mut io::stderr() };
    let status = match cli::parse(std::env::args_os(), environment(), output) {
        Ok(invocation) => cli::run(invocation, output, serve),
        Err(status) => status,
    };
    status.into()
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // `vars` would panic at a variable that is not UTF-8, even one of another program.
    let text = |value: OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Runs the server until a signal stops it: logging, runtime, start, wait, stop.
fn serve(source: ConfigSource, config: Config) -> u8 {
    let level = match logs::init(&config.log.level, config.log.format) {
        Ok(level) => level,
        Err(error) => return failed(cli::FAILED, &error),
    };
    // One heap per worker thread: workers do not contend for heap locks, and the other threads share these heaps.
    heap::limit_heaps(config.workers);
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(cli::FAILED, &error),
    };
    let status = runtime.block_on(async {
        let workers = match Workers::start(config.workers) {
            Ok(workers) => workers,
            Err(error) => return failed(cli::FAILED, &error),
        };
        let surroundings = Surroundings { clock: Clock::System, level, source: Some(source), workers: Some(workers) };
        // The signals are caught from here on, so one that arrives during the start is not lost.
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed(cli::FAILED, &error),
        };
        let app = match App::start(config, surroundings).await {
            Ok(app) => app,
            Err(error) if error.is_configuration() => return failed(cli::FAULTY, &error),
            Err(error) => return failed(cli::FAILED, &error),
        };
        signals.next().await;
        // A second signal does not wait for requests in flight.
        tokio::select! {
            _ = app.stop() => cli::OK,
            () = signals.next() => {
                tracing::warn!("second signal to stop; cutting everything under way");
                cli::FAILED
            }
        }
    });
    // A blocking thread that hangs on a disk would otherwise keep the process alive forever.
    runtime.shutdown_background();
    status
}

/// Reports a failed start on standard error, regardless of the configured log level and format.
fn failed(status: u8, error: &dyn std::error::Error) -> u8 {
    // If standard error cannot be written, the exit status is the only report.
    writeln!(io::stderr(), "vecho: cannot start: {error}").ok();
    status
}

/// Signals that stop the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! Runs a parsed command.

use std::io::Write;

use tokio::runtime::Builder;

use super::arguments::{Command, ConfigFormat, Invocation};
use super::output::{FAILED, FAULTY, OK, Output, print};
use super::serve::serve;
use super::{batch, doctor, find_mocks, health, moving, warm};
use crate::app::{check_trust, payer, proxy_of_calls, warnings};
use crate::config::{Config, Faults};

/// Runs a command and returns its exit status.
pub fn run(invocation: Invocation, output: &mut Output<'_>) -> u8 {
    let Invocation { command, source, surrounding } = invocation;
    // These need no configuration, so they work with a faulty one, too.
    match &command {
        Command::Healthcheck { url: Some(url) } => return health::check_url(url, output),
        Command::FindMocks(options) => return find_mocks::find_mocks(options, output),
        // It reports faults in its own form.
        Command::Doctor(options) => return doctor::doctor(&source, &surrounding, options, output),
        _ => {}
    }
    let credential = &surrounding.credential;
    let config = match source.load() {
        Ok(config) => config,
        Err(faults) => return print_faults(&faults, output),
    };
    match command {
        Command::Serve => match check_trust(&config) {
            Ok(()) => serve(source, config, output.err),
            Err(faults) => print_faults(&faults, output),
        },
        Command::Config { format } => print(output.out, &shown(&config, format)),
        Command::Check => match check_trust(&config) {
            Ok(()) => report(&config, output),
            Err(faults) => print_faults(&faults, output),
        },
        Command::Healthcheck { .. } => health::check_ops_port(&config, output),
        Command::FindMocks(options) => find_mocks::find_mocks(&options, output),
        Command::Doctor(options) => doctor::doctor(&source, &surrounding, &options, output),
        Command::Export { file, quiet } => {
            let Output { out, err } = output;
            let workers = config.workers;
            work(workers, err, async { moving::export(&config, &file, quiet, *out).await })
        }
        Command::Import { file, quiet } => work(config.workers, output.err, moving::import(&config, &file, quiet)),
        Command::ImportBatch(options) => work(config.workers, output.err, batch::import(config, credential, &options)),
        Command::Warm(options) => work(config.workers, output.err, warm::warm(config, credential, &options)),
    }
}

/// Runs an asynchronous command and prints why it failed.
fn work(workers: usize, err: &mut dyn Write, command: impl Future<Output = Result<(), String>>) -> u8 {
    let runtime = match Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print(err, &format!("vecho: {error}"));
            return FAILED;
        }
    };
    let done = runtime.block_on(command);
    // A blocking thread may wait for standard input indefinitely, so the runtime must not wait for it.
    runtime.shutdown_background();
    match done {
        Ok(()) => OK,
        Err(failed) => {
            print(err, &format!("vecho: {failed}"));
            FAILED
        }
    }
}

/// Prints the notes and warnings that a start with this configuration would log.
fn report(config: &Config, output: &mut Output<'_>) -> u8 {
    for note in std::iter::once(payer(config)).chain(proxy_of_calls(config)) {
        print(output.err, &format!("note: {note}"));
    }
    for warning in warnings(config) {
        print(output.err, &format!("warning: {warning}"));
    }
    print(output.out, "configuration ok")
}

fn shown(config: &Config, format: ConfigFormat) -> String {
    match format {
        ConfigFormat::Text => config.effective.to_text().trim_end().to_owned(),
        ConfigFormat::Json => format!("{:#}", config.effective.to_json()),
    }
}

fn print_faults(faults: &Faults, output: &mut Output<'_>) -> u8 {
    print(output.err, &faults.to_string());
    FAULTY
}

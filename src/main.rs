//! The process: arguments, environment, exit status.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use vecho::cli::{self, Output};
use vecho::config::{Config, Source};

fn main() -> ExitCode {
    let output = &mut Output { out: &mut io::stdout(), err: &mut io::stderr() };
    let status = match cli::parse(std::env::args_os(), environment(), output) {
        Ok(invocation) => cli::run(invocation, output, serve),
        Err(status) => status,
    };
    status.into()
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Serves until told to stop.
fn serve(_source: Source, _config: Config) -> u8 {
    cli::FAILED
}

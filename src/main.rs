//! Entry point of the process: arguments, environment and exit status.
//!
//! All other code is in the library. A generic or asynchronous function is compiled in the crate that uses it, so a
//! command that started here would have the compiler translate the server a second time.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use vecho::cli::{self, Output};

fn main() -> ExitCode {
    let output = &mut Output { out: &mut io::stdout(), err: &mut io::stderr() };
    let status = match cli::parse(std::env::args_os(), environment(), output) {
        Ok(invocation) => cli::run(invocation, output),
        Err(status) => status,
    };
    status.into()
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // `vars` would panic at a variable that is not UTF-8, even one of another program.
    let text = |value: OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

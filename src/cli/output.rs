//! Output streams and exit statuses of commands.

use std::io::{self, Write};

/// Success.
pub const OK: u8 = 0;
/// Negative result or failed work.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong (`EX_USAGE`).
pub const FAULTY: u8 = 64;

/// Output streams of a command: standard output and standard error, or buffers of a test.
pub struct Output<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Faults.
    pub err: &'a mut dyn Write,
}

/// Prints text. A closed pipe (`vecho config | head`) must not cause a panic.
pub(super) fn print(to: &mut dyn Write, text: &str) -> u8 {
    let written: io::Result<()> = writeln!(to, "{text}").and_then(|()| to.flush());
    if written.is_ok() { OK } else { FAILED }
}

//! The configuration, as `vecho check` reads it.

use super::check::CheckResult;
use crate::app::{check_trust, payer, warnings};
use crate::config::{Config, ConfigSource, Fault, Faults};

/// Reads the configuration, with the certificates and keys that it names. Fails with one result for each fault.
pub(super) fn load(source: &ConfigSource) -> Result<Config, Vec<CheckResult>> {
    let read = source.load().and_then(|config| check_trust(&config).map(|()| config));
    read.map_err(|Faults(faults)| faults.iter().map(fault).collect())
}

fn fault(fault: &Fault) -> CheckResult {
    CheckResult::fault("configuration", fault.to_string(), format!("correct {}", fault.key))
}

/// Returns the result for a valid configuration, and its warnings.
pub(super) fn results(config: &Config) -> Vec<CheckResult> {
    let valid = CheckResult::ok("configuration", format!("valid; {}", payer(config)));
    std::iter::once(valid).chain(warnings(config).into_iter().map(CheckResult::from)).collect()
}

//! Limits of the process and of its container.

use super::check::CheckResult;
use crate::app::memory_warning;
use crate::config::Config;
use crate::process::governor::effective_limit;
use crate::process::system::System;

/// Files and sockets beside those of connections: both ports, the log, the disk tier, Redis, the runtime.
const OTHER_FILES: u64 = 128;

/// Checks open files and memory.
pub(super) fn check(config: &Config) -> [CheckResult; 2] {
    let system = System::new();
    [open_files(config, system.open_files_limit()), memory(config, &system)]
}

fn open_files(config: &Config, limit: Option<u64>) -> CheckResult {
    let (connections, calls) = (config.limits.max_connections as u64, config.upstream.max_concurrent as u64);
    let needed = connections + calls + OTHER_FILES;
    let keys = format!("limits.max_connections {connections} and upstream.max_concurrent {calls}");
    match limit {
        Some(limit) if limit < needed => {
            let message = format!("this process may open {limit} files, but {keys} can need {needed}");
            let remedy = format!("raise the limit (ulimit -n {needed}, LimitNOFILE), or lower limits.max_connections");
            CheckResult::warning("open files", message, remedy)
        }
        Some(limit) => CheckResult::ok("open files", format!("{limit} allowed, up to {needed} needed")),
        None => CheckResult::ok("open files", format!("no known limit, up to {needed} needed")),
    }
}

fn memory(config: &Config, system: &System) -> CheckResult {
    let container = system.container_limit_bytes();
    if let Some(advice) = memory_warning(config, container) {
        return advice.into();
    }
    let limit_bytes = effective_limit(config.memory.limit_bytes, container);
    let total_bytes = system.machine().total_memory_bytes;
    let (limit_mb, total_mb) = (limit_bytes >> 20, total_bytes >> 20);
    if total_bytes > 0 && limit_bytes > total_bytes {
        let message = format!("memory.limit_mb is {limit_mb}, but the machine has {total_mb} MiB");
        return CheckResult::warning("memory", message, "lower memory.limit_mb");
    }
    let container = container
        .map_or_else(|| "no container limit".to_owned(), |bytes| format!("the container may use {} MiB", bytes >> 20));
    CheckResult::ok("memory", format!("vecho keeps below {limit_mb} MiB; {container}, the machine has {total_mb} MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::CheckVerdict;

    #[test]
    fn an_open_file_limit_below_the_configured_connections_is_warned_of() {
        let config = Config::from_pairs(&[("limits.max_connections", "1000"), ("upstream.max_concurrent", "10")]);
        let config = config.expect("it is valid");
        assert_eq!(open_files(&config, Some(1138)).verdict, CheckVerdict::Ok);
        assert_eq!(open_files(&config, None).verdict, CheckVerdict::Ok);
        let low = open_files(&config, Some(1137));
        assert_eq!(low.verdict, CheckVerdict::Warning);
        assert!(low.to_string().contains("ulimit -n 1138"), "{low}");
    }
}

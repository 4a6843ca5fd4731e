//! The folder of the disk tier.

use std::path::Path;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::check::{CheckResult, STEP_TIMEOUT};
use crate::app::disk_warning;
use crate::cache::disk::{FolderState, OpenError, inspect};
use crate::config::Config;
use crate::process::file_system::FileSystem;
use crate::process::system::System;

const CHECK: &str = "disk";

/// Checks the folder. `running` is the version of the vecho on this configuration's ports, which may hold it.
pub(super) async fn check(config: &Config, running: Option<&str>) -> CheckResult {
    let Some(path) = config.disk.path.clone().filter(|_| config.disk.enabled) else {
        let message = "the disk tier is off: vectors are lost with the process";
        return CheckResult::ok(CHECK, message);
    };
    let (max_bytes, is_running) = (config.disk.max_bytes, running.is_some());
    let shown = path.display().to_string();
    let judged = spawn_blocking(move || judge(&path, max_bytes, is_running));
    timeout(STEP_TIMEOUT, judged).await.ok().and_then(Result::ok).unwrap_or_else(|| {
        let message = format!("{shown} does not answer within {} s", STEP_TIMEOUT.as_secs());
        CheckResult::fault(CHECK, message, "look at the volume, or set disk.path to another folder")
    })
}

fn judge(path: &Path, max_bytes: u64, is_running: bool) -> CheckResult {
    let state = match inspect(path) {
        Ok(state) => state,
        Err(OpenError::Held(_)) if is_running => {
            return CheckResult::ok(
                CHECK,
                format!("{} is in use by the vecho that runs on these ports", path.display()),
            );
        }
        Err(error) => return fault(path, &error),
    };
    let system = FileSystem::of(path);
    if let Some(advice) = system.as_ref().and_then(|system| disk_warning(path, system)) {
        return advice.into();
    }
    let (stand, used_bytes) = match state {
        FolderState::Absent => ("can be made".to_owned(), 0),
        FolderState::Usable { owner, used_bytes } => (format!("is writable (owner {owner})"), used_bytes),
    };
    let message = format!("{} {stand}", path.display());
    let Some(free_bytes) = system.as_ref().and_then(|system| system.available_bytes) else {
        return CheckResult::ok(CHECK, message);
    };
    let kind = system.map_or_else(String::new, |system| system.kind);
    let message = format!("{message}; {kind} has {} MiB free, disk.max_mb is {}", free_bytes >> 20, max_bytes >> 20);
    if free_bytes.saturating_add(used_bytes) < max_bytes {
        return CheckResult::warning(CHECK, message, "free space, or lower disk.max_mb below it");
    }
    CheckResult::ok(CHECK, message)
}

fn fault(path: &Path, error: &OpenError) -> CheckResult {
    let shown = path.display();
    let remedy = match error {
        OpenError::Held(_) => "stop that process, or give each vecho a disk.path of its own".to_owned(),
        OpenError::Unusable { fault, .. } if fault.kind() == std::io::ErrorKind::NotADirectory => {
            format!("remove the file that is in the place of {shown} or above it, or set disk.path to a folder")
        }
        OpenError::Unusable { .. } => {
            let user = System::new().user().map_or_else(String::new, |user| format!(" {user}"));
            format!("let user{user} write to {shown}, or set disk.path to another folder")
        }
    };
    CheckResult::fault(CHECK, error.to_string(), remedy)
}

//! The environment of a running vecho: the real one in the process, a fake one in tests.

use crate::config::ConfigSource;
use crate::observe::logs::LevelHandle;
use crate::process::clock::Clock;
use crate::process::workers::Workers;

/// Environment of an [`App`](super::App): the real one in the process, a fake one in tests.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Clock.
    pub clock: Clock,
    /// The log level.
    pub level: LevelHandle,
    /// Source for configuration reloads, if there is one.
    pub source: Option<ConfigSource>,
    /// Workers that serve the public port. Without any, the current runtime does.
    pub workers: Option<Workers>,
}

impl Surroundings {
    /// Creates surroundings for tests: no reloads, no changes of logging, and the given clock.
    pub fn detached(clock: Clock) -> Self {
        Self { clock, level: LevelHandle::detached(), source: None, workers: None }
    }
}

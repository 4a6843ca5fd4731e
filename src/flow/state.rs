//! Shared state for answering requests.

use std::sync::Arc;

use super::progress::FetchResult;
use super::rotation::Rotation;
use super::single_flight::SingleFlight;
use super::tokenizer::Tokenizer;
use super::vector_budget::VectorBudget;
use super::watched::Watch;
use crate::cache::{Leases, Stack};
use crate::config::Live;
use crate::learned::{AcceptedCredentials, Spaces};
use crate::observe::logs::Throttled;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Tracer;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use crate::upstream::Batcher;

/// Shared state for answering requests. One per process, used by `Arc`.
pub struct Flow {
    /// The configuration in force.
    pub live: Live,
    /// Wall clock.
    pub clock: Clock,
    /// The storage tiers.
    pub tiers: Arc<Stack>,
    /// Leases that coordinate fetches between replicas, if configured.
    pub leases: Option<Arc<dyn Leases>>,
    /// Memory budget for the vectors of requests under way.
    pub vector_budget: VectorBudget,
    /// Fetches in flight.
    pub single_flight: Arc<SingleFlight<FetchResult>>,
    /// Sends calls to the upstream.
    pub batcher: Arc<Batcher>,
    /// State of each space.
    pub spaces: Spaces,
    /// Credentials that the upstream has accepted.
    pub accepted_credentials: AcceptedCredentials,
    /// Detects bearer tokens that rotate.
    pub rotation: Rotation,
    /// Checks whether models change behind their names.
    pub watch: Watch,
    /// Limits the rate of repeated log lines.
    pub throttled: Throttled,
    /// Counts tokens if no call reported them.
    pub tokenizer: Arc<Tokenizer>,
    /// Runs tasks that outlive their request.
    pub tasks: Tasks,
    /// Starts the traces of requests.
    pub tracer: Tracer,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
}

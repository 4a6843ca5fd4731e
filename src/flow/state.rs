//! Shared state for answering requests.

use std::sync::Arc;

use super::fetch_leases::FetchLeases;
use super::progress::FetchResult;
use super::rotation::Rotation;
use super::single_flight::SingleFlight;
use super::tokenizer::Tokenizer;
use super::vector_budget::VectorBudget;
use super::watched::Watch;
use crate::cache::Stack;
use crate::config::Live;
use crate::learned::{AcceptedCredentials, Spaces};
use crate::observe::logs::Throttled;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Tracer;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use crate::spend::SpendGuard;
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
    pub leases: Option<FetchLeases>,
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
    /// Proofs of tokens in flight: the first request with a new token, for which others wait.
    pub proofs: Arc<SingleFlight<()>>,
    /// Detects bearer tokens that rotate.
    pub rotation: Rotation,
    /// Counts what calls cost, and refuses those that no budget covers.
    pub spend: Arc<SpendGuard>,
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

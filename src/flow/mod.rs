//! The life of one embeddings request, top to bottom: plan, look up, claim, fetch, settle, stand in, assemble.
//!
//! Fetching and storing is a future of its own. The request drives it while it waits, and hands it to a task if the
//! request ends first. So a caller that disconnects cancels no fetch that others wait for, and finds its answer stored
//! when it retries.

mod assemble;
mod context;
mod controls;
mod fetch;
mod job;
mod lane;
mod lease;
pub mod mock;
mod outcome;
pub mod plan;
mod price;
mod progress;
mod request;
mod rotation;
mod single_flight;
mod source_counts;
mod stand_in;
mod tokenizer;
mod vector_budget;
mod wait;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::cache::{Leases, Stack};
use crate::config::Live;
use crate::learned::AcceptedCredentials;
use crate::learned::Spaces;
use crate::observe::logs::Throttled;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Tracer;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use crate::upstream::Batcher;
use crate::wire::Bypass;

pub use context::RequestContext;
pub use controls::{Calls, Controls};
pub use job::{EmbedJob, Origin, join_headers, model_key, scope_key, space_key};
pub use outcome::{Answer, Outcome};
pub use progress::Served;
pub use request::{speaks_f32, upstream_encoding};
pub use rotation::Rotation;
pub use single_flight::SingleFlight;
pub use source_counts::SourceCounts;
pub use tokenizer::Tokenizer;
pub use vector_budget::VectorBudget;

use progress::Failed;
use request::Request;

/// Maximum number of fetch rounds of a request. A model that changes during a fetch causes another round; after the
/// last one the request is passed through.
const MAX_ROUNDS: usize = 3;

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
    pub room: VectorBudget,
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

/// Result of a fetch for one key.
pub type FetchResult = Result<Served, Arc<Failed>>;

impl Flow {
    /// Answers one request.
    pub async fn answer(self: &Arc<Self>, ask: &EmbedJob<'_>) -> Outcome {
        let request = Request::new(self, ask);
        let Some(mut progress) = request.look_up().await else {
            return Outcome::PassThrough(Bypass::TooLarge);
        };
        if ask.context.controls.only_if_cached {
            // The model may have changed between two look-ups; then some vectors count as missing.
            let is_whole = !request.drop_older_models(&mut progress) && progress.is_complete();
            return if is_whole { request.assemble(&progress).await } else { Outcome::NotCached };
        }
        for _ in 0..MAX_ROUNDS {
            if progress.lacks_any() {
                if let Some(bypass) = request.known_unreadable() {
                    return Outcome::PassThrough(bypass);
                }
                Box::pin(request.fetch(&mut progress)).await;
            }
            if let Some(refused) = request.refusal(&progress) {
                return refused;
            }
            if request.drop_older_models(&mut progress) {
                continue;
            }
            return match request.stand_in(&mut progress).await {
                Ok(()) => request.assemble(&progress).await,
                Err(failed) => Outcome::Refused(Arc::clone(&failed.failure)),
            };
        }
        Outcome::PassThrough(Bypass::UnsteadyModel)
    }
}

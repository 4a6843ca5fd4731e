//! The life of one embeddings request, top to bottom: plan, look up, claim, fetch, settle, stand in, assemble.
//!
//! Fetching and landing is a future of its own, which the request drives while it waits and leaves to a task when it
//! ends first. So a caller that hangs up takes the fetch from nobody, and finds its answer stored when it asks again.

mod ask;
mod assemble;
mod fetch;
mod lane;
mod lease;
mod outcome;
mod price;
mod request;
mod room;
mod rotation;
mod stand_in;
mod tally;
mod tokenizer;
mod wait;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Live;
use crate::inflight::Flights;
use crate::logs::Throttled;
use crate::metrics::Metrics;
use crate::spaces::Spaces;
use crate::tasks::Tasks;
use crate::tiers::{Leases, Stack};
use crate::traces::Tracer;
use crate::upstream::Batcher;
use crate::vouch::Vouchers;
use crate::wire::Bypass;

pub use ask::{Ask, Calls, Controls, Origin, join_headers, model_key, scope_key, space_key};
pub use assemble::{Answer, Keep};
pub use outcome::{Outcome, Refusal, Source};
pub use request::{speaks_f32, upstream_encoding};
pub use room::VectorRoom;
pub use rotation::Rotation;
pub use tally::Tally;
pub use tokenizer::Tokenizer;

use outcome::{Failed, Landed};
use request::Request;
use room::NoRoom;

/// How often a request is put together again because the model changed meanwhile, before it is passed through.
const MAX_ROUNDS: usize = 3;

/// What a request needs on its way. One per process, used by `Arc`.
pub struct Flow {
    /// The configuration in force.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Where vectors are kept.
    pub tiers: Stack,
    /// Who fetches what, where replicas agree on that.
    pub leases: Option<Arc<dyn Leases>>,
    /// Room for the vectors of requests under way.
    pub room: VectorRoom,
    /// What is being fetched.
    pub flights: Arc<Flights<Landing>>,
    /// The way to the upstream.
    pub batcher: Arc<Batcher>,
    /// What is known of each space.
    pub spaces: Spaces,
    /// Whose credentials the upstream accepts.
    pub vouchers: Vouchers,
    /// Watches for bearer tokens that rotate.
    pub rotation: Rotation,
    /// Decides which log lines of a flood are written.
    pub throttled: Throttled,
    /// Counts what no call told.
    pub tokenizer: Arc<Tokenizer>,
    /// Where tasks run that outlive their request.
    pub tasks: Tasks,
    /// Where the traces of requests begin.
    pub tracer: Tracer,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What lands for one key.
pub type Landing = Result<Landed, Arc<Failed>>;

impl Flow {
    /// Answers one request.
    pub async fn answer(self: &Arc<Self>, ask: &Ask<'_>) -> Outcome {
        let request = Request::new(self, ask);
        let mut progress = match request.look_up().await {
            Ok(progress) => progress,
            Err(NoRoom::Never) => return Outcome::PassThrough(Bypass::TooLarge),
            Err(NoRoom::InTime) => return Outcome::Overloaded,
        };
        if ask.controls.only_if_cached {
            // The model may have changed between two look-ups; then not everything is cached any more.
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
                Err(failed) => Outcome::Refused(Refusal::of(&failed.failure)),
            };
        }
        Outcome::PassThrough(Bypass::UnsteadyModel)
    }
}

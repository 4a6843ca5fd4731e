//! The life of one embeddings request, top to bottom: plan, look up, claim, fetch, settle, stand in, assemble.
//!
//! Fetching and storing is a future of its own. The request drives it while it waits, and hands it to a task if the
//! request ends first. So a caller that disconnects cancels no fetch that others wait for, and finds its answer stored
//! when it retries.

mod answer;
mod assemble;
mod awaited;
mod context;
mod controls;
mod derive;
mod fallback;
mod fetch;
mod fetch_leases;
mod identity;
mod job;
mod lane;
mod lease;
mod long_input;
pub mod mock;
mod model_check;
mod outcome;
pub mod plan;
mod price;
mod progress;
mod proof;
mod references;
mod request;
mod rotation;
mod single_flight;
mod source_counts;
mod spending;
mod state;
mod texts_lease;
mod token_claims;
mod tokenizer;
mod vector_budget;
mod wait;
mod watched;

#[cfg(test)]
mod tests;

pub use context::RequestContext;
pub use controls::{Calls, Controls};
pub use fetch_leases::FetchLeases;
pub use job::{EmbedJob, RequestOrigin, join_headers, model_key, scope_key, space_key};
pub use long_input::{InputRules, UNMEASURED, Unfit};
pub use model_check::watch_models;
pub use outcome::{Answer, FlowOutcome};
pub use progress::{FetchResult, Served};
pub use references::StoredReferences;
pub use request::{speaks_f32, upstream_encoding};
pub use rotation::Rotation;
pub use single_flight::SingleFlight;
pub use source_counts::SourceCounts;
pub use state::Flow;
pub use token_claims::TokenClaims;
pub use tokenizer::Tokenizer;
pub use vector_budget::VectorBudget;
pub use watched::Watch;

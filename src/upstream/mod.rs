//! The service behind: packing misses into calls, making one call, repeating it, giving up for a while.

mod batcher;
mod breaker;
mod caller;
mod client;
mod endpoint;
mod error;
mod headers;
mod health;
mod job;
mod own;
mod portion;
mod retry;
mod room;
mod sizing;
mod turn;
mod width;

pub use batcher::{Batcher, Lane};
pub use breaker::Breaker;
pub use caller::{Answered, Caller, Terms};
pub use client::{BodyStalled, BoxError, Client, ClientBody, ForwardedBody, InProcess, OpenError};
pub use endpoint::{
    RouteKind, TooLong, classify_path, deployment, normal_path, port_of, resembles_embeddings, upstream_uri,
};
pub use error::{Class, Failure, Outage, Reply, Why};
pub use headers::{forwardable, is_hop_by_hop, shown_on_errors, shown_on_misses, strip_hop_by_hop};
pub use health::SpaceHealth;
pub use own::{OwnRequest, request_id};
pub use portion::{CallInfo, Fetched, Missing, Portion, Waiter};

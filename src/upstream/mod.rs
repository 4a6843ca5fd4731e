//! The service behind: packing misses into calls, making one call, repeating it, giving up for a while.

mod batcher;
mod breaker;
mod caller;
mod client;
mod endpoint;
mod error;
mod headers;
mod learned;
mod portion;
mod reading;
mod retry;
mod room;
mod turn;

pub use batcher::{Batcher, Lane};
pub use breaker::Breaker;
pub use caller::{Caller, Terms};
pub use client::{BodyStalled, BoxError, Client, ClientBody, ForwardedBody, InProcess, InProcessRequest, OpenError};
pub use endpoint::{RouteKind, TooLong, classify_path, deployment, port_of, upstream_uri};
pub use error::{Class, Failure, Reply, Why};
pub use headers::{forwardable, is_hop_by_hop, marks_stand_in, shown_on_errors, shown_on_misses, strip_hop_by_hop};
pub use portion::{Asker, CallInfo, Fetched, Portion};

//! The service behind: packing misses into calls, making one call, repeating it, giving up for a while.

mod batcher;
mod body;
mod breaker;
mod caller;
mod client;
mod connections;
mod endpoint;
mod error;
mod headers;
mod in_process;
mod learned;
mod pool;
mod portion;
mod redirect;
mod retry;
mod room;
mod turn;

pub use batcher::{Batcher, Lane};
pub use body::{BodyStalled, BoxError, ClientBody};
pub use breaker::Breaker;
pub use caller::{Caller, Terms};
pub use client::{Client, ForwardedBody};
pub use connections::OpenError;
pub use endpoint::{RouteKind, TooLong, classify_path, deployment, port_of, upstream_uri};
pub use error::{Class, Failure, Reply, Why};
pub use headers::{forwardable, is_hop_by_hop, shown_on_errors, shown_on_misses, strip_hop_by_hop};
pub use in_process::InProcess;
pub use portion::{Asker, CallInfo, Fetched, Portion};
pub use redirect::location_for_caller;

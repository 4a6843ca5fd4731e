//! Calls to the upstream: packs misses into calls, makes them, retries them, and stops calling an
//! upstream that is down.

mod answered;
mod batcher;
mod billing;
mod body;
mod breaker;
mod call;
mod call_executor;
mod client;
mod connections;
mod cost;
mod endpoint;
mod error;
mod fair;
mod headers;
mod health;
mod http2;
mod in_process;
mod interim;
mod job;
mod judgement;
mod known_good;
mod lane_properties;
mod lane_queue;
mod lane_turn;
mod lane_worker;
mod memory_budget;
mod multiplexer;
mod next_step;
mod offer;
mod own;
mod own_call;
mod paced;
mod pacing;
mod permit;
mod piece;
mod pool;
mod reading;
mod recovery;
mod redirect;
mod retry;
mod send_error;
mod sizing;
mod targets;
mod traced;
mod width;

pub use answered::{Answered, CallInfo};
pub use batcher::{Batcher, Lane};
pub use body::{BodyStalled, ClientBody, ForwardedBody, UpstreamBody};
pub use breaker::Breaker;
pub use call_executor::CallExecutor;
pub use client::UpstreamClient;
pub use connections::ForwardError;
pub use endpoint::{
    RouteKind, UriTooLong, classify_path, deployment, is_known_service, normal_path, port_of, resembles_embeddings,
    upstream_uri,
};
pub use error::{BudgetShortage, Class, Failure, Outage, UnavailableReason, UpstreamReply};
pub use fair::FairOrder;
pub use headers::{
    carries_credential, forwardable, is_hop_by_hop, marks_fallback, may_hold_secret, named_by_connection,
    shown_on_errors, shown_on_misses, strip_hop_by_hop,
};
pub use health::SpaceHealth;
pub use in_process::{InProcess, InProcessRequest};
pub use lane_properties::LaneProperties;
pub use lane_worker::HastenedSubmission;
pub use offer::offered_codings;
pub use own::{Charge, OwnRequest, request_id};
pub use pacing::{LimitFigures, PaceFigures, PaceReport, Pacers};
pub use piece::{Fetched, Missing, PieceResult, Report, Submission, Waiter};
pub use redirect::location_for_caller;
pub use targets::{
    CANARY_TEXTS, PlaceReport, Reference, References, Router, TargetPlace, UnreadReferences, canary_keys,
    cosine_distance,
};

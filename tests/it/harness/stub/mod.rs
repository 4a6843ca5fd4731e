//! A real HTTP/1.1 server on its own port that answers like the embeddings API and misbehaves on command.
//!
//! It runs on its own thread and runtime, so neither a blocking test nor a paused clock affects it.

mod behaviour;
mod calls;
mod control;
mod dialect;
mod embeddings;
mod gate;
mod handle;
mod quota;
mod quota_headers;
mod quota_record;
mod reply;
mod request;
mod routes;
mod server;
mod state;
mod streams;
mod vectors;

pub(crate) use behaviour::Behaviour;
pub(crate) use calls::Call;
pub(crate) use dialect::Dialect;
pub(crate) use gate::DEADLINE;
pub(crate) use handle::Stub;
pub(crate) use quota::{Counted, Quota, Reported};
pub(crate) use quota_record::QuotaRecord;
pub(crate) use state::Limits;
pub(crate) use vectors::{Input, Space, tokens};

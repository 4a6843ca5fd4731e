//! The public port: embeddings are answered by the flow, everything else passes through.

mod asked;
mod body;
mod callers;
mod controls;
mod cors;
mod decode;
mod embeddings;
mod explain;
mod gate;
mod glance;
mod intake;
mod passthrough;
mod reply;
mod service;
mod traced;

pub use body::ReplyBody;
pub use controls::{BadControl, ReadControls, read_controls};
pub use intake::{path_model, read_origin};
pub use service::Proxy;

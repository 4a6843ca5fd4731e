//! The public port: the flow answers embeddings and similarity requests, and everything else passes through.

mod admission;
mod body;
mod callers;
mod controls;
mod cors;
mod decode;
mod embeddings;
mod explain;
mod fast_path;
mod finished;
mod forget;
mod intake;
mod labels;
mod notes;
mod parts;
mod passthrough;
mod reading;
mod reply;
mod request_guard;
mod routes;
mod service;
mod similar;
mod tei_upstream;
mod traced;

pub use body::ReplyBody;
pub use controls::{BadControl, ReadControls, read_controls};
pub use intake::{path_model, read_origin};
pub use parts::Proxy;
pub use routes::OWN_ROUTES;

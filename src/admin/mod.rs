//! The ops port: metrics and probes for machines, figures and controls for operators.
//!
//! [`handle`] answers one request. It reaches the rest of the program through the handles of [`AdminContext`]; `guard`
//! decides about access.

mod body;
mod cache;
mod charge;
mod context;
mod dashboard;
mod feed;
mod forget;
mod guard;
mod health;
mod moving;
mod performance;
mod rate_limits;
mod reply;
mod savings;
mod service;
mod settings;
mod streams;
mod targets;
#[cfg(test)]
mod tests;

pub use charge::CHARGE_PATH;
pub use context::{AdminContext, Explainer, Finder};
pub use dashboard::run_updates;
pub use feed::Feed;
pub use guard::{Guard, TOKEN_HEADER, is_local_authority};
use moving::IMPORT_PATH;
pub use moving::{EXPORT_PATH, import_path};
pub use reply::AdminBody;
pub use service::handle;

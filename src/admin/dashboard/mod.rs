//! The live dashboard: a page with its files, its initial state, and an event stream.
//!
//! Requests for figures pass the guard like all others.

mod assets;
mod page;
mod report;
mod state;
mod updates;

pub(super) use page::{ASSETS_PATH, asset, page, to_page, vary, wants_page};
pub(super) use report::{dashboard, events, no_events};
pub use updates::run_updates;

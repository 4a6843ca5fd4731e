//! The configuration keys: their type, and one table of them by group.

mod budget;
mod cache;
mod compression;
mod drift;
mod key;
mod observing;
mod pace;
mod ports;
mod serving;
mod table;
mod targets;
mod upstream;

pub use key::ConfigKey;
pub(super) use key::toml_value;
pub use table::{KEYS, WELL_KNOWN};

//! The configuration keys: their type, and one table of them in six groups.

mod budget;
mod cache;
mod drift;
mod key;
mod observing;
mod ports;
mod serving;
mod table;
mod upstream;

pub use key::ConfigKey;
pub(super) use key::toml_value;
pub use table::{KEYS, WELL_KNOWN};

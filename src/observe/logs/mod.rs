//! Log output: formats, levels, and changes of the level at runtime.

mod output;
mod text;
mod throttled;

pub use output::{InitError, LevelHandle, init};
pub use text::{shorten_for_log, shortened};
pub use throttled::Throttled;

//! Keeps the process under its memory limit: returns freed memory to the operating system, and as a last resort shrinks
//! caches.
//!
//! ```text
//! share of the limit     action of a check
//! up to 75 %             none; an episode is over
//! over 80 %              returns freed memory, once per episode and again when the process has grown
//! still over 85 %        caches shrink, in order, down to 75 %
//! ```
//!
//! A part that can shrink implements [`Shrink`]; the governor knows nothing else about it. Memory is measured through
//! [`Meter`], so reports show what the operating system sees.

mod act;
mod action;
mod keeper;
mod optimize;

#[cfg(test)]
mod tests;

pub use action::{Action, GovernorAction};
pub use keeper::{Governor, GovernorHooks, Meter, Shrink, Status, effective_limit};

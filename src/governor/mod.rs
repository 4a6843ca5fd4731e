//! Keeps the process under its memory limit: settles, gives back, and as a last resort lets caches shrink.
//!
//! ```text
//! share of the limit     what a check does
//! up to 75 %             settles; an episode is over
//! over 80 %              gives freed memory back, once in an episode and again when the process has grown
//! still over 85 %        caches shrink in their order until 75 % is reached
//! ```
//!
//! A part that can shrink implements [`Shrink`]; the governor knows nothing else of it. Memory is measured through
//! [`Meter`], so that what is reported is what the operating system sees.

mod act;
mod keeper;
mod optimize;

#[cfg(test)]
mod tests;

pub use keeper::{Action, ActionKind, Governor, GovernorHooks, Meter, Shrink, Status, effective_limit};

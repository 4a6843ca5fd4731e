//! Pacing: calls wait for their turn, so that they stay inside the rate limits of the service.
//!
//! A pacer belongs to one credential and one model at one place. It knows the limits that are configured, those that
//! the service reports with its answers, and a rate that it has found out if the service only refuses calls.

mod accepted;
mod bucket;
mod demand;
mod found;
mod hold;
mod limits;
mod pacer;
#[cfg(test)]
mod pacer_tests;
mod pacers;
mod refusal_share;
mod refusals;
mod remainder;
mod replicas;
mod reported;
mod share;
mod sharing;
#[cfg(test)]
mod simulation;
mod small_calls;
mod state;
mod turn_order;

pub use limits::LimitFigures;
pub(super) use pacer::{PaceTurn, Pacer};
pub use pacers::{PaceReport, Pacers};
pub(super) use sharing::PaceSharing;
pub use state::PaceFigures;
pub(super) use turn_order::{TurnOrder, TurnWish};

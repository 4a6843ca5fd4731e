//! The spend guard: what embeddings calls have cost today, and whether another call fits in the budgets.
//!
//! A fetch reserves the tokens that it expects to cost before it calls. Each call adds what it did cost when it ends,
//! and the reservation is given back. So concurrent requests exceed a budget at most by the errors of their estimates.
//! The counts survive a restart in a small file, and replicas share them through a [`SharedFields`](crate::process::shared_fields::SharedFields).

mod amount;
mod book;
mod file;
mod guard;
mod keeper;
mod notice;
mod purchase;
mod refusal;
mod report;
mod reservation;
mod shared;

pub use amount::SpendAmount;
pub use file::SpendFile;
pub use guard::SpendGuard;
pub use keeper::SpendKeeper;
pub use purchase::Purchase;
pub use refusal::OverBudget;
pub use report::{BudgetReport, SpendReport};
pub use reservation::SpendReservation;

#[cfg(test)]
mod tests;

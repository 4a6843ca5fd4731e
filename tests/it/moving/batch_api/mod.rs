//! `vecho warm --batch-api`: vectors at half the price, each input paid exactly once.

mod absurd;
mod azure;
mod ends;
mod faults;
mod job;
mod kills;
mod limits;
mod purges;
mod questions;

//! `vecho warm --batch-api`: sends what is not cached through the Batch API of the upstream, at half the price.
//!
//! A job is a state file with parts. Each part is one batch of the service, and moves through the steps of
//! `state::PartStep`. A step is written to the state file before and after each request that changes something at the
//! service. A process that ends at any point is continued by the next one with the same state file.

mod advance;
mod answers;
mod api;
mod capacity;
mod charge;
mod dialect;
mod doubt;
mod job;
mod part_files;
mod plan;
mod price;
mod remote;
mod split;
mod state;
mod state_file;
mod upload;

pub(super) use job::run;

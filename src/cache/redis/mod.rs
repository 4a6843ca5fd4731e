//! The shared tier: Redis or Valkey, one server or a cluster.
//!
//! A failure costs each request at most `redis.timeout`, and nothing while Redis is known to be down. One task
//! maintains the link and loads all purges before requests read over a new link. Another task writes queued entries.

mod connect;
mod error;
mod holds;
mod lease_commands;
mod lease_value;
mod leasing;
mod ledger;
mod link;
mod manager;
mod names;
mod probe;
mod sharing;
mod status;
mod tier;
mod writing;

pub use ledger::{Ledger, PurgePlan};
pub use link::Change;
pub use manager::OnPurges;
pub use probe::{ServerFacts, inspect};
pub use tier::{RedisParts, RedisTier};

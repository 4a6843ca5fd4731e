//! The shared tier: Redis or Valkey, one server or a cluster.
//!
//! A failure costs each request at most `redis.timeout`, and nothing while Redis is known to be down. One task
//! maintains the link and loads all purges before requests read over a new link. Another task writes queued entries.

mod connect;
mod holds;
mod keeper;
mod ledger;
mod link;
mod names;
mod switch;
mod tier;
mod trouble;
mod writing;

pub use keeper::OnPurges;
pub use ledger::{Ledger, Plan};
pub use link::Change;
pub use tier::{RedisParts, RedisTier};

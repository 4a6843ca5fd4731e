//! The tier that replicas share: Redis or Valkey, one server or a cluster.
//!
//! Whatever happens to it costs a request at most `redis.timeout`, and nothing while it is known to be down. One task
//! keeps the way to it and knows everybody's purges before anything is read over a new one; one task writes.

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

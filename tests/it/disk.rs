//! The disk tier, tested from outside: entries survive every kind of process exit, a damaged entry is never served,
//! the tier stays within its size limit, and its failures fail no request.

mod bounds;
mod crashes;
mod damage;
mod failing;
mod forgetting;
pub(crate) mod ground;
mod purging;
mod queueing;
mod restarting;
mod times;

//! The tier on disk, seen from outside: what it holds outlives the process in any way that this ends, is right or not
//! served, stays within its bound, and its failures cost nobody a request.

mod bounds;
mod crashes;
mod damage;
mod failing;
pub(crate) mod ground;
mod purging;
mod queueing;
mod restarting;
mod times;

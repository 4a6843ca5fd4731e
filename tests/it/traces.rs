//! Traces, as a collector receives them.

mod delivery;
mod documentation;
mod ground;
mod privacy;
mod propagation;
mod requests;
mod shared;
mod targets;

//! Compression of answers with vectors, for callers that accept it.

mod mark;
mod plan;

pub(super) use mark::compress;
pub(super) use plan::CompressionPlan;

//! Traces: spans of a request, in whose trace they stand, and how they get to a collector.
//!
//! A [`Tracer`] begins a request's [`Span`]; a span's [`TraceContext`] begins others below it, in whatever task they
//! are. Both travel as values, and where traces are off both are empty: one branch, and nothing allocated.

pub mod attribute;
mod context;
mod export;
mod queue;
mod span;
mod tracer;

pub use context::TraceContext;
pub use span::{MAX_LINKS, Span};
pub use tracer::Tracer;

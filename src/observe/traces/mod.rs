//! Traces: the spans of a request, their context, and their export to a collector.
//!
//! A [`Tracer`] begins the [`Span`] of a request, and the [`TraceContext`] of a span begins child spans in any task.
//! Both are passed as values. If tracing is off, both are empty, and cost one branch and no allocation.

pub mod attribute;
mod context;
mod export;
mod queue;
mod span;
mod tracer;

pub use context::TraceContext;
pub use span::{MAX_LINKS, Span};
pub use tracer::Tracer;

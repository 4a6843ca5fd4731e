//! Delivery of traces.

use super::catalogue;
use super::handles::{Counter, PerLabel, Registrar};
use super::labels::SpanResult;

/// Metrics of traces.
#[derive(Debug)]
pub struct TraceMetrics {
    spans: PerLabel<SpanResult, Counter>,
}

impl TraceMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self { spans: registrar.counters(&catalogue::TRACE_SPANS) }
    }

    /// Records the result of `n` finished spans.
    pub fn spans(&self, result: SpanResult, n: usize) {
        self.spans.of(result).add(n as u64);
    }
}

//! Bounded queue of finished spans between requests and the exporter. Requests never wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::observe::metrics::{Metrics, SpanResult};

/// Span processor that queues finished spans. Spans that do not fit are dropped and counted.
#[derive(Debug)]
pub(super) struct SpanQueue {
    sender: Sender<SpanData>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Receiving end of the queue.
pub(super) struct FinishedSpans {
    pub(super) finished: Receiver<SpanData>,
    /// Number of spans that are neither delivered nor given up.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl SpanQueue {
    /// Creates a queue for `spans` spans, and its receiving end.
    pub(super) fn new(spans: usize, metrics: Arc<Metrics>) -> (Self, FinishedSpans) {
        let (sender, finished) = mpsc::channel(spans);
        let waiting = Arc::<AtomicUsize>::default();
        (Self { sender, waiting: Arc::clone(&waiting), metrics }, FinishedSpans { finished, waiting })
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        // Count the span before the exporter can receive it, because the exporter subtracts it.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A full queue drops the span, because a request must not wait for the collector.
        if self.sender.try_send(span).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.traces.spans(SpanResult::QueueFull, 1);
        }
    }

    // The exporter delivers the spans by itself, also at shutdown, so the SDK has nothing to do here.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

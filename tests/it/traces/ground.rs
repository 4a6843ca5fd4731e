//! Shared parts of the tests of traces: vecho in front of a stub, with a collector.

use crate::harness::client::Answer;
use crate::harness::front::{Ask, texts_of};
use crate::harness::{Collector, Front};

/// A caller's trace id, and the id of its span.
pub(super) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(super) const SPAN: &str = "00f067aa0ba902b7";

/// A vecho that exports its spans to a collector without delay.
pub(super) struct Ground {
    pub(super) collector: Collector,
    pub(super) front: Front,
}

impl Ground {
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(settings: &[(&str, &str)]) -> Self {
        let collector = Collector::start();
        let url = collector.url();
        let all = [&[("traces.endpoint", url.as_str()), ("traces.send_every", "10ms")], settings].concat();
        let front = Front::with(&all).await;
        Self { collector, front }
    }

    /// Builds a request for texts in the caller's trace, which is sampled.
    pub(super) fn in_trace(&self, texts: &[&str]) -> Ask {
        self.front.post(texts_of(texts).to_string()).header("traceparent", &traceparent("01"))
    }

    pub(super) async fn embed(&self, texts: &[&str]) -> Answer {
        self.front.embed(texts).await
    }

    /// Returns the `traceparent` of each embeddings call that the upstream has received.
    pub(super) fn parents_sent(&self) -> Vec<String> {
        let calls = self.front.stub.embedding_calls();
        calls.iter().map(|call| call.header("traceparent").unwrap_or("none").to_owned()).collect()
    }

    /// Returns the number of spans with this result, according to the metrics.
    pub(super) async fn counted(&self, result: &str) -> f64 {
        self.front.metric(&series(result)).await
    }

    pub(super) async fn counts(&self, result: &str, value: f64) {
        self.front.reaches(&series(result), value).await;
    }
}

/// Returns the caller's `traceparent` with these flags.
pub(super) fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

pub(super) fn series(result: &str) -> String {
    format!("vecho_trace_spans_total{{result=\"{result}\"}}")
}

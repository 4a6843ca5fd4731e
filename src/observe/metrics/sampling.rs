//! Samples of the counters for the history.

use std::sync::Arc;

use super::history::{HistorySample, Levels, Samples, Totals};
use super::labels::{CallOutcome, InputSource};
use super::registry::Metrics;

impl Metrics {
    /// Takes a sample. Only one task may call this, every [`STEP_SECONDS`](super::STEP_SECONDS).
    pub fn sample(&self) -> Arc<HistorySample> {
        let (totals, levels) = (self.totals(), self.levels());
        self.history.note(totals, levels)
    }

    /// Returns the samples.
    pub fn samples(&self) -> Samples {
        self.history.samples()
    }

    fn totals(&self) -> Totals {
        let counts = self.performance().counts();
        // The accounts settle their costs when they are read.
        let (_, statements) = self.accounts().statements();
        let (upstream_calls, upstream_inputs) = self.upstream.sizes();
        Totals {
            requests: counts.requests,
            errors: counts.errors,
            latencies: counts.latencies,
            inputs: std::array::from_fn(|place| self.usage.inputs_so_far(InputSource::ALL[place])),
            tokens_billed: statements.iter().map(|one| one.tokens_billed).sum(),
            tokens_saved: statements.iter().map(|one| one.tokens_saved).sum(),
            cost_billed: statements.iter().map(|one| one.cost_billed).sum(),
            cost_saved: statements.iter().map(|one| one.cost_saved).sum(),
            calls: std::array::from_fn(|place| self.upstream.calls_so_far(CallOutcome::ALL[place])),
            call_times: self.upstream.call_times(),
            upstream_calls,
            upstream_inputs,
        }
    }

    fn levels(&self) -> Levels {
        Levels {
            at_ms: self.performance().now_ms(),
            resident_bytes: u64::try_from(self.memory.resident.get()).unwrap_or_default(),
            breaker: self.upstream.breaker.state().label(),
        }
    }
}

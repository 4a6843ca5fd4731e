//! Fallback while the upstream is unavailable: a stale record, then a mock, as far as the configuration allows.

use std::sync::Arc;

use super::progress::{FailedFetch, Progress, Served, Slot};
use super::request::Request;
use crate::cache::{Record, Times};
use crate::config::FallbackMode;
use crate::flow::mock;
use crate::learned::ModelIdentity;
use crate::observe::metrics::{Incident, InputSource, Instead};
use crate::wire::Input;

impl Request<'_> {
    /// Fills failed keys with fallback vectors, or returns the failure to report.
    pub(super) async fn apply_fallback(&self, progress: &mut Progress) -> Result<(), Arc<FailedFetch>> {
        let configured = self.context().config.fallback.mode;
        // The caller may narrow the fallback, but only the operator can allow mocks.
        let mode = self.context().controls.fallback.map_or(configured, |asked| asked.min(configured));
        let model = self.fallback_identity(progress);
        let (mut to_mock, mut stale_places, mut cause) = (Vec::new(), Vec::new(), None);
        for place in 0..progress.slots.len() {
            let Slot::Failed(failed) = &progress.slots[place] else {
                continue;
            };
            // One answer has one model, so an entry of another model is of no use here.
            let stale = progress.fallback_records[place]
                .take()
                .filter(|record| mode >= FallbackMode::Stale && model.as_ref() == Some(&record.identity));
            let failed = Arc::clone(failed);
            // A failure without an outage may be the fault of one text, so it leads to no mock and no incident.
            let is_outage = failed.failure.outage.is_some();
            match stale {
                Some(record) => {
                    if is_outage {
                        stale_places.push(place);
                    }
                    progress.slots[place] = Slot::Served(Served { record, source: InputSource::Stale, call: None });
                }
                None if is_outage && mode >= FallbackMode::Mock => to_mock.push(place),
                None => {
                    if is_outage {
                        self.note(&failed, Instead::Errors, &[place]);
                    }
                    return Err(failed);
                }
            }
            progress.fallback.get_or_insert_with(|| failed.failure.measure());
            cause = Some(failed);
        }
        let dimension = model.map_or_else(|| self.expected_dimension(), |model| model.dimension);
        // Vectors of an older model were dropped after the reservation was made, so it may not cover them.
        let lacking_bytes = progress.reservation.lacking_bytes(to_mock.len(), dimension);
        if lacking_bytes > 0
            && !self.flow.vector_budget.take_more(&progress.reservation, lacking_bytes)
            && let Some(failed) = cause
        {
            self.note(&failed, Instead::Errors, &to_mock);
            return Err(failed);
        }
        self.mock(progress, &to_mock, dimension).await;
        if let Some(failed) = cause {
            self.note(&failed, Instead::Stale, &stale_places);
            self.note(&failed, Instead::Mocks, &to_mock);
        }
        Ok(())
    }

    /// Notes how these places were answered. Uses the current time because the request may have begun minutes ago.
    fn note(&self, failed: &FailedFetch, instead: Instead, places: &[usize]) {
        if places.is_empty() {
            return;
        }
        let times = self.plan.multiplicities();
        let inputs = places.iter().map(|place| u64::from(times[*place])).sum();
        let cause = &*format!("{}: {}", failed.failure.measure(), failed.failure.detail);
        let model = self.job.request.space.model_name();
        let incident = Incident { cause, model, instead, inputs };
        self.flow.metrics.incidents().note(self.flow.clock.now_ms(), &incident);
    }

    /// Returns the identity of the records that may serve as fallback. It is the model of the vectors at hand, else
    /// the current model of the space if it has a candidate, else the model of the first candidate. One answer never
    /// mixes two models.
    fn fallback_identity(&self, progress: &Progress) -> Option<ModelIdentity> {
        let candidates: Vec<&ModelIdentity> =
            progress.fallback_records.iter().flatten().map(|record| &record.identity).collect();
        let at_hand = progress.served().next().map(|served| served.record.identity.clone());
        // The current model counts only if some candidate has it; otherwise no stale entry could be served.
        let current = || self.space.space_state.identity().filter(|identity| candidates.contains(&identity));
        at_hand.or_else(current).or_else(|| candidates.first().map(|identity| (*identity).clone()))
    }

    /// Fills these places with mocks. A large request takes a second of work, so this runs on the blocking pool.
    async fn mock(&self, progress: &mut Progress, places: &[usize], dimension: usize) {
        if places.is_empty() {
            return;
        }
        let model: Arc<str> = Arc::from(self.job.request.space.model_name());
        let identity = ModelIdentity { model: Arc::clone(&model), dimension, revision: 0 };
        let input = |place: &usize| self.job.request.inputs[self.plan.firsts[*place]].to_owned_input();
        let inputs: Vec<Input<'static>> = places.iter().map(input).collect();
        // The request may end before the task, so the task owns copies of the inputs.
        let embed =
            move || inputs.iter().map(|input| (mock::vector(&model, dimension, input), tokens(input))).collect();
        let mocks: Vec<_> = tokio::task::spawn_blocking(embed).await.expect("the mock embedder must not panic");
        let times = Times { created_ms: self.context().now_ms, fresh_until_ms: 0, stale_until_ms: 0 };
        for (place, (vector, tokens)) in places.iter().zip(mocks) {
            let record = Arc::new(Record::new(vector, identity.clone(), times, tokens));
            progress.slots[*place] = Slot::Served(Served { record, source: InputSource::Mock, call: None });
        }
    }
}

/// Estimates the tokens, which suffices because mocks are not billed.
fn tokens(input: &Input<'_>) -> Option<u32> {
    u32::try_from(input.estimated_tokens()).ok()
}

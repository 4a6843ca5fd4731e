//! One check of one space: asks for the texts, and compares the answer with the reference.

use std::sync::Arc;
use std::time::Duration;

use super::canary;
use crate::cache::Times;
use crate::cache::purges::Generation;
use crate::config::{Config, DriftAction};
use crate::flow::Flow;
use crate::flow::texts_lease::TextsLease;
use crate::flow::watched::{Opened, Watched, distance_between, records_of};
use crate::learned::ModelIdentity;
use crate::observe::logs::shorten_for_log;
use crate::observe::metrics::WatchResult;
use crate::upstream::{Class, Failure, Fetched, UnavailableReason};

/// Longest time after a failed check until the next one.
const RETRY_MS: u64 = 60_000;

/// Time until the next look while another replica asks.
const ASKED_ELSEWHERE_MS: u64 = 1_000;

const DRIFTED: &str =
    "the model's vectors have changed behind its name: vecho's own texts got other vectors than before";
const DRIFTED_ELSEWHERE: &str =
    "another replica has found that the model's vectors changed behind its name; older entries are fetched again";
const UNSTEADY: &str = "the model gives one text different vectors from call to call; a change of the model cannot be told \
                        from that";
const REFUSED: &str = "the upstream refuses vecho's own texts, so a change of the model stays unnoticed";

/// Result of a check, and the time of the next one.
pub(super) struct Checked {
    pub(super) result: WatchResult,
    pub(super) due_ms: u64,
}

/// An answer to the texts, with the purges and the revision before it was asked for.
struct Told {
    fetched: Vec<Fetched>,
    identity: ModelIdentity,
    begun: Generation,
}

impl Watched {
    /// Checks the space. Returns `None` while another replica asks.
    pub(super) async fn check(&mut self, flow: &Arc<Flow>, config: &Config) -> Option<Checked> {
        let every_ms = millis(config.drift.every?);
        let soon_ms = every_ms.min(RETRY_MS);
        if flow.batcher.is_unavailable(&self.lane.properties) {
            return Some(Checked { result: WatchResult::Skipped, due_ms: flow.clock.now_ms().saturating_add(soon_ms) });
        }
        // One replica asks in each period. The lease comes before the reference is read, so that its holder has written.
        let store = flow.leases.as_ref().map(|leases| &leases.store);
        let Some(_lease) = TextsLease::request(store, self.reference.keys()).await else {
            self.due_ms = flow.clock.now_ms().saturating_add(ASKED_ELSEWHERE_MS);
            return None;
        };
        if let Some(due_ms) = self.was_asked_elsewhere(flow, every_ms).await {
            return Some(Checked { result: WatchResult::Elsewhere, due_ms });
        }
        let (result, pause_ms) = match self.compare(flow, config).await {
            Ok(result) => (result, every_ms),
            Err(failure) if failure.class == Class::Refused => {
                self.tell(flow, REFUSED);
                (WatchResult::Refused, every_ms)
            }
            Err(failure) => {
                tracing::debug!(cause = failure.detail, "a check of the model failed");
                (WatchResult::Failed, soon_ms)
            }
        };
        Some(Checked { result, due_ms: flow.clock.now_ms().saturating_add(pause_ms) })
    }

    /// Takes over the reference of another replica if it is newer. Returns the time of the next check if that replica has
    /// confirmed it within the period.
    async fn was_asked_elsewhere(&mut self, flow: &Arc<Flow>, every_ms: u64) -> Option<u64> {
        if !flow.tiers.is_shared() {
            return None;
        }
        let theirs = self.reference.find(&flow.tiers).await?;
        if self.confirmed_ms >= theirs.confirmed_ms() {
            return None;
        }
        // At the first check of a process, the change may be an old one.
        if self.confirmed_ms > 0 && theirs.identity().revision > self.space_state.revision() {
            tracing::warn!(model = &*shorten_for_log(&self.asked_model), "{DRIFTED_ELSEWHERE}");
        }
        // Also after the period, or this replica would find the change that the other one has found already.
        self.take_over(flow, &theirs);
        self.confirmed_ms = theirs.confirmed_ms();
        let next_ms = theirs.confirmed_ms().saturating_add(every_ms);
        (next_ms > flow.clock.now_ms()).then_some(next_ms)
    }

    fn take_over(&mut self, flow: &Arc<Flow>, theirs: &Opened) {
        self.reference.adopt(theirs.records(), &flow.tiers);
        self.space_state.renew(theirs.identity());
    }

    async fn compare(&mut self, flow: &Arc<Flow>, config: &Config) -> Result<WatchResult, Arc<Failure>> {
        let reference = self.reference(flow).await;
        if reference.is_none() && !flow.tiers.are_up() {
            // The vectors of an earlier process must not be replaced unseen.
            let detail = "a tier that may hold the vectors to compare with does not work";
            return Err(Arc::new(Failure::unavailable(UnavailableReason::Status, detail)));
        }
        let told = self.ask(flow, config).await?;
        let known = reference.filter(|known| known.identity().is_named_like(&told.identity));
        let Some(known) = known else {
            // The name has changed as well, and older entries are misses already.
            self.begin(flow, config, told);
            return Ok(WatchResult::First);
        };
        if known.identity().revision > told.identity.revision {
            // Another process has found the change that this one has yet to learn of.
            self.space_state.renew(known.identity());
        }
        self.distance = known.distance(&told.fetched);
        if self.distance <= config.drift.bound {
            self.confirm(flow, config, known);
            return Ok(WatchResult::Same);
        }
        // A single answer may be an accident, for example of one faulty machine behind a load balancer.
        let again = self.ask(flow, config).await?;
        let is_steady = distance_between(&told.fetched, &again.fetched) <= config.drift.bound;
        if !is_steady || known.distance(&again.fetched) <= config.drift.bound {
            self.tell(flow, UNSTEADY);
            return Ok(WatchResult::Unsteady);
        }
        self.drifted(flow, config, (known, again));
        Ok(WatchResult::Drifted)
    }

    /// Returns the reference: this process's own, else that of the tiers below memory.
    async fn reference(&self, flow: &Arc<Flow>) -> Option<Opened> {
        match self.reference.open(&flow.tiers) {
            Some(own) => Some(own),
            None => self.reference.find(&flow.tiers).await,
        }
    }

    async fn ask(&self, flow: &Arc<Flow>, config: &Config) -> Result<Told, Arc<Failure>> {
        let (begun, revision) = (flow.tiers.generation(), self.space_state.revision());
        let fetched = canary::ask(flow, &self.lane, &self.space_state).await?;
        let first = fetched.first().ok_or_else(|| Arc::new(Failure::no_room(self.lane.properties.encoding)))?;
        let tokens = first.call.prompt_tokens.unwrap_or(0);
        flow.metrics.watch.tokens(tokens);
        let named = first.call.model.as_deref().unwrap_or(&self.asked_model);
        let (identity, _) = flow.learn(&self.space_state, config, (named, first.vector.dimension(), revision));
        Ok(Told { fetched, identity, begun })
    }

    /// Makes an answer the reference of the space.
    fn begin(&mut self, flow: &Arc<Flow>, config: &Config, told: Told) {
        let times = times(flow, config);
        let records = records_of(told.fetched, &told.identity, (times, &self.asked_model));
        self.reference.keep(&records, &flow.tiers, told.begun);
        (self.confirmed_ms, self.distance, self.is_told) = (times.created_ms, 0.0, false);
    }

    /// Writes the reference anew, so that it outlives every entry of the space.
    fn confirm(&mut self, flow: &Arc<Flow>, config: &Config, known: Opened) {
        let (times, begun) = (times(flow, config), flow.tiers.generation());
        let records = known.confirmed(times, &self.asked_model);
        self.reference.keep(&records, &flow.tiers, begun);
        (self.confirmed_ms, self.is_told) = (times.created_ms, false);
    }

    fn drifted(&mut self, flow: &Arc<Flow>, config: &Config, (known, again): (Opened, Told)) {
        if !self.is_told {
            self.is_told = true;
            tracing::warn!(
                model = &*shorten_for_log(&self.asked_model),
                difference = self.distance,
                action = config.drift.action.name(),
                "{DRIFTED}"
            );
        }
        if config.drift.action == DriftAction::Warn {
            // The reference stays until the entries are purged, so the alert stays as well.
            self.confirmed_ms = flow.clock.now_ms();
            return;
        }
        let distance = self.distance;
        flow.metrics.cache.model_drifts.inc();
        // The time makes the revision later than that of every replica that has not noticed the change yet.
        let revision = flow.clock.now_ms().max(known.identity().revision + 1).max(again.identity.revision + 1);
        let identity = ModelIdentity { revision, ..again.identity.clone() };
        self.space_state.renew(&identity);
        self.begin(flow, config, Told { identity, ..again });
        self.distance = distance;
        if let Some(opened) = self.reference.open(&flow.tiers)
            && let Some(record) = opened.into_first()
        {
            // After a restart, this note tells which records below memory are of the older revision.
            flow.tiers.note_newest(&self.space, &Arc::new(record), &self.space_state, flow.tiers.generation());
        }
    }

    fn tell(&self, flow: &Arc<Flow>, message: &'static str) {
        if flow.throttled.admits(message) {
            tracing::warn!(model = &*shorten_for_log(&self.asked_model), difference = self.distance, "{message}");
        }
    }
}

/// Returns the times of a record that is as young as any of the cache.
fn times(flow: &Flow, config: &Config) -> Times {
    let created_ms = flow.clock.now_ms();
    let fresh_until_ms = created_ms.saturating_add(millis(config.cache.ttl));
    Times { created_ms, fresh_until_ms, stale_until_ms: fresh_until_ms.saturating_add(millis(config.cache.stale_for)) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

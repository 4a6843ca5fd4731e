//! The fetch of the keys that one request leads, from the claim to the results. It runs to its end, even
//! without waiters.

use std::pin::pin;
use std::sync::Arc;

use super::context::{CallerKeys, SpaceSnapshot};
use super::fetch_leases::lease_end;
use super::price::price;
use super::progress::{FailedFetch, Served};
use super::single_flight::Leader;
use super::vector_budget::VectorReservation;
use super::{FetchResult, Flow, RequestContext, speaks_f32};
use crate::cache::{Found, LeaseEnd, Lookup, Record, Times};
use crate::config::Priority;
use crate::key::Key;
use crate::learned::{ModelChange, ModelIdentity};
use crate::observe::logs::shorten_for_log;
use crate::observe::metrics::{InputSource, TokenProof};
use crate::process::pace::Pace;
use crate::upstream::{Class, Failure, Fetched, Lane, Missing, OwnRequest, PieceResult, Report, Waiter};
use crate::vector::packed::{Codec, Packed};
use crate::vector::{COMPONENT_BYTES, NotAVector};
use crate::wire::{AnswerFault, Encoding, Input};

const NOT_ASKED_FOR: &str = "the upstream's vectors in this encoding cannot be decoded; not requesting it for one \
                             minute; if no other encoding works, requests pass through uncached";
const OTHER_DIMENSION: &str = "the upstream ignores `dimensions`; storing vectors of the dimension in its answers";
const NOT_STORED: &str = "the upstream's answer is invalid; passed on and not stored";

/// Fetch of all keys that one request leads. It runs to its end, even without waiters: see `Request::launch`.
pub(super) struct Fetch {
    pub(super) flow: Arc<Flow>,
    /// The context of the request. Its trace ends when the request stops waiting.
    pub(super) context: RequestContext,
    pub(super) space: SpaceSnapshot,
    pub(super) caller: CallerKeys,
    pub(super) lead: Leader<FetchResult>,
    pub(super) lane: Lane,
    pub(super) priority: Priority,
    /// The request as its caller wrote it.
    pub(super) own: Arc<OwnRequest>,
    /// For each led key, its place among the distinct keys of the request.
    pub(super) places: Vec<u32>,
    /// True if stored vectors are acceptable.
    pub(super) may_use_stored: bool,
    /// True if another fetch has finished since the look-up.
    pub(super) has_news: bool,
    /// True if the look-up left stored values unread, because together they exceed memory. Then this fetch reads none
    /// either, and requests no further leases.
    pub(super) has_unread: bool,
    pub(super) asked_model: String,
    /// Revision of the space when this fetch began. If the model is found to have changed meanwhile, the vectors may be
    /// those of the older revision.
    pub(super) revision: u64,
    pub(super) expected_dimension: usize,
    /// Memory reservation for the vectors that this fetch brings.
    pub(super) reservation: Arc<VectorReservation>,
}

impl Fetch {
    pub(super) async fn run(self, inputs: Vec<Input<'static>>) {
        // Keys that another fetch has stored since the look-up need no call.
        let stored = self.complete_stored();
        let open = inputs.into_iter().enumerate().filter(|(place, _)| !stored.contains(place)).collect();
        // With leases, one replica calls the upstream for a key, and the others wait for its record.
        match self.leases() {
            Some(leases) => self.fetch_by_lease(leases, open).await,
            None => self.fetch(open).await,
        }
    }

    /// Fetches inputs from the upstream. They are given with their places in the lead.
    pub(super) async fn fetch(&self, open: Vec<(usize, Input<'static>)>) {
        if open.is_empty() {
            return;
        }
        let (places, inputs): (Vec<usize>, Vec<_>) = open.into_iter().unzip();
        let spending = match self.reserve(&inputs).await {
            Ok(spending) => spending,
            Err(refusal) => return self.refuse(&refusal, &places),
        };
        let own_places = places.iter().map(|place| self.places[*place]).collect();
        let missing = Missing { inputs, places: own_places, own: Arc::clone(&self.own) };
        // `work` must run to its end, because its worker may also serve inputs of other requests of the lane.
        let (mut reports, work) = self.flow.batcher.submit(&self.lane, missing, self.waiter());
        if self.priority == Priority::Bulk {
            self.lead.note_bulk(work.submission());
        }
        let completion = pin!(async {
            while let Some(report) = reports.recv().await {
                // The call continues after this report, and its result is stored for requests that come later.
                let Report::Result(result) = report else {
                    self.lead.note_late();
                    continue;
                };
                let completed = result.places.clone();
                // Its cost is counted by now, or it has cost nothing.
                spending.release(completed.clone());
                let end = self.complete(result, &places).await;
                // Released only after storing has begun: the next holder of the lease must find the record.
                self.release(&places[completed], end);
            }
        });
        // `join!` moves what it is given, and the work is large.
        let work = pin!(work.run());
        // The work is polled first, so its results are handled in the same poll.
        tokio::join!(biased; work, completion);
    }

    /// Looks into memory once more if an earlier fetch has finished between the look-up and the claim. Without this
    /// look its result would be paid for twice.
    fn complete_stored(&self) -> Vec<usize> {
        // Without news, no fetch of this process has stored a vector since the look-up.
        if !(self.may_use_stored && self.has_news) {
            return Vec::new();
        }
        let lookup = self.lookup();
        let found =
            self.lead.keys().iter().enumerate().filter_map(|(place, key)| match self.flow.tiers.peek(key, &lookup) {
                Found::Fresh(record, tier) => Some((place, Ok(Served::stored(record, tier)))),
                _ => None,
            });
        let found: Vec<_> = found.collect();
        let places = found.iter().map(|(place, _)| *place).collect();
        self.lead.complete(found);
        places
    }

    fn waiter(&self) -> Waiter {
        let (deadline, trace) = (self.context.deadline, self.context.trace.clone());
        Waiter { deadline, caller: self.caller.caller, priority: self.priority, trace }
    }

    pub(super) fn lookup(&self) -> Lookup<'_> {
        // A fetch may last for minutes after its request began, so ages count from the present time.
        let now_ms = self.flow.clock.now_ms();
        Lookup {
            now_ms,
            max_age_ms: self.context.controls.max_age_ms,
            space_state: &self.space.space_state,
            space: self.space.key,
            codec: self.context.config.cache.codec,
            trace: &self.context.trace,
            leases: None,
        }
    }

    /// Returns the vectors if the reservation covers them. Vectors may be larger than expected; the reservation then
    /// grows, or the fetch fails.
    fn with_room(&self, fetched: Vec<Fetched>) -> Result<Vec<Fetched>, Arc<Failure>> {
        // All vectors of one answer have the same dimension, which the reader of answers has checked.
        let dimension = fetched.first().map_or(0, |first| first.vector.dimension());
        let beyond = dimension.saturating_sub(self.expected_dimension) * COMPONENT_BYTES * fetched.len();
        if beyond > 0 && !self.flow.vector_budget.take_more(&self.reservation, beyond) {
            // The next request of this space reserves enough.
            self.learn_identity(&fetched[0]);
            return Err(Arc::new(Failure::no_room(self.lane.properties.encoding)));
        }
        Ok(fetched)
    }

    /// Fills the tiers, then releases the waiters. `places` maps the submitted inputs to those of the lead. Returns how
    /// the fetch ended for the replicas that wait for it.
    async fn complete(&self, piece: PieceResult, places: &[usize]) -> LeaseEnd {
        let places = &places[piece.places];
        match piece.result.and_then(|fetched| self.with_room(fetched)) {
            Ok(mut fetched) => {
                let is_openai = speaks_f32(&self.context.config);
                // A record is shared as soon as it is stored, so its tokens are determined first.
                price(&self.flow, (&self.space.space_state, is_openai), piece.inputs, &mut fetched).await;
                // Memory comes first: a look-up at any moment must find a key in memory or in the table of fetches.
                // Nothing is stored before all are packed, so the steps of `keep` stay together.
                pack_in_slices(&mut fetched, self.context.config.cache.codec).await;
                let completed = self.keep(fetched, places);
                self.lead.complete(places.iter().copied().zip(completed.iter().cloned().map(Ok)));
                if !self.context.controls.no_store {
                    // The waiters already have their results and do not wait for the serialization.
                    let kept = places.iter().map(|place| self.lead.keys()[*place]);
                    let kept = kept.zip(completed.iter().map(|served| &served.record));
                    self.flow.tiers.keep_all_below(kept, self.space.generation).await;
                    if let Some(newest) = completed.last() {
                        // After a restart, this note tells which records below memory are of an older model.
                        self.flow.tiers.note_newest(
                            &self.space.key,
                            &newest.record,
                            &self.space.space_state,
                            self.space.generation,
                        );
                    }
                }
                LeaseEnd::Fetched
            }
            Err(failure) => {
                // The state changes before the waiters are released, so their retries already see it.
                self.learn_from(&failure);
                // Each waiter compares these keys with its own to decide whether the failure may be its own.
                let keys = places.iter().map(|place| self.lead.keys()[*place]).collect();
                let end = lease_end(&failure);
                let failed = FailedFetch { failure, keys, credential: self.caller.credential, request: self.own.id() };
                let failed = Arc::new(failed);
                self.lead.complete(places.iter().map(|place| (*place, Err(Arc::clone(&failed)))));
                end
            }
        }
    }

    /// Stores packed vectors in memory.
    fn keep(&self, fetched: Vec<Fetched>, places: &[usize]) -> Vec<Served> {
        let now_ms = self.flow.clock.now_ms();
        let Some(identity) = fetched.first().map(|first| self.learn_identity(first)) else {
            return Vec::new();
        };
        self.space.space_state.mark_readable(self.lane.properties.encoding);
        // Later hits get a generated id if the answers of the upstream have one.
        self.space.space_state.note_id(fetched[0].call.members.iter().any(|(name, _)| name == "id"));
        // A fetched vector proves that the upstream serves this model again.
        self.flow.metrics.incidents().end(now_ms, &self.asked_model);
        // A success proves the credential, so stored vectors may be served to it until the proof expires.
        if let Some(accepted_credential) = self.caller.accepted_credential {
            let acceptance = self.caller.acceptance(&self.context.config, now_ms);
            let is_new = self.flow.accepted_credentials.accept(accepted_credential, acceptance, now_ms);
            if is_new && self.caller.owner.is_some() {
                self.flow.metrics.requests.token_proof(TokenProof::Accepted);
            }
        }
        let (times, asked_model) = (self.times(now_ms), self.asked_as(&identity));
        let mut outdates_any = false;
        let keep_one = |(fetched, place): (Fetched, &usize)| {
            let record = Record::new(fetched.vector, identity.clone(), times, fetched.tokens);
            let record = Arc::new(record.asked_as(&asked_model));
            if !self.context.controls.no_store {
                let key = self.lead.keys()[*place];
                // The check compares with the record in memory, which the next line replaces.
                outdates_any |= self.outdates(&key, &record);
                self.flow.tiers.remember(key, &record, self.space.generation);
            }
            Served { record, source: InputSource::Upstream, call: Some(fetched.call) }
        };
        let completed = fetched.into_iter().zip(places).map(keep_one).collect();
        if !self.context.controls.no_store {
            // A request that looked the key up earlier and claims it now must look again, whichever table
            // this fetch used.
            self.flow.single_flight.note_completion();
        }
        // Cached replies still contain the replaced vectors.
        if outdates_any {
            self.space.space_state.note_replacement();
        }
        completed
    }

    /// Returns true if a record replaces another vector that would still be served. If memory does not hold the key, a
    /// caller that asked for a new vector may be replacing one in a lower tier.
    fn outdates(&self, key: &Key, record: &Record) -> bool {
        // A look-up without conditions came first and found no servable record, so none can be replaced.
        let has_looked = self.may_use_stored && self.context.controls.max_age_ms.is_none();
        let is_wished_anew = self.context.controls.no_cache || self.context.controls.max_age_ms.is_some();
        let differs = |kept: Arc<Record>| kept.vector != record.vector;
        !has_looked && self.flow.tiers.memory().peek(key).map_or(is_wished_anew, differs)
    }

    /// Returns the caller's name for the model, shared by all records of one result. If the path names the model, this
    /// is the name in the identity.
    fn asked_as(&self, identity: &ModelIdentity) -> Arc<str> {
        let is_other = !self.asked_model.is_empty() && *self.asked_model != *identity.model;
        if is_other { Arc::from(&*self.asked_model) } else { Arc::clone(&identity.model) }
    }

    fn learn_identity(&self, fetched: &Fetched) -> ModelIdentity {
        let named = fetched.call.model.as_deref().unwrap_or(&self.asked_model);
        let dimension = fetched.vector.dimension();
        let told = (named, dimension, self.revision);
        let (identity, lesson) = self.flow.learn(&self.space.space_state, &self.context.config, told);
        // The first answer already shows whether the upstream follows `dimensions`.
        if lesson == ModelChange::First && self.lane.properties.asked_dimension.is_some_and(|asked| asked != dimension)
        {
            self.warn_of_dimension(dimension);
        }
        identity
    }

    fn times(&self, now_ms: u64) -> Times {
        let fresh_until_ms = now_ms.saturating_add(millis(self.context.config.cache.ttl));
        let stale_until_ms = fresh_until_ms.saturating_add(millis(self.context.config.cache.stale_for));
        Times { created_ms: now_ms, fresh_until_ms, stale_until_ms }
    }

    fn learn_encoding(&self, cause: AnswerFault, encoding: Encoding) {
        let is_proof = match EncodingFault::of(cause, encoding) {
            EncodingFault::Legible => return,
            EncodingFault::Doubtful => false,
            EncodingFault::Foreign => true,
        };
        let is_news = self.space.space_state.mark_unreadable(encoding, is_proof, self.flow.clock.now_ms());
        if is_news && self.flow.throttled.admits(NOT_ASKED_FOR) {
            tracing::warn!(encoding = encoding.name(), model = &*shorten_for_log(&self.asked_model), "{NOT_ASKED_FOR}");
        }
    }

    fn learn_dimension(&self, dimension: usize) {
        if self.space.space_state.note_other_dimension(dimension) {
            self.warn_of_dimension(dimension);
        }
    }

    fn warn_of_dimension(&self, dimension: usize) {
        let asked = self.lane.properties.asked_dimension;
        if asked != Some(dimension) && self.flow.throttled.admits(OTHER_DIMENSION) {
            tracing::warn!(model = &*shorten_for_log(&self.asked_model), asked, dimension, "{OTHER_DIMENSION}");
        }
    }

    fn learn_from(&self, failure: &Failure) {
        if let Class::InvalidAnswer(AnswerFault::OtherDimension(dimension), _) = failure.class {
            // One such answer may be an accident, so a shorter dimension is accepted after three in a row.
            return self.learn_dimension(dimension);
        }
        // Any other failure ends a run of answers with an unexpected dimension.
        self.space.space_state.note_other_failure();
        match failure.class {
            Class::InvalidAnswer(cause, encoding) => {
                if self.flow.throttled.admits(NOT_STORED) {
                    tracing::warn!(cause = &*shorten_for_log(&failure.detail), "{NOT_STORED}");
                }
                self.learn_encoding(cause, encoding);
            }
            Class::Refused => {
                let status = failure.reply.as_ref().map_or(0, |reply| reply.status.as_u16());
                // A 401 concerns the key itself, so its acceptance is withdrawn for all models. A 403 may concern one
                // model or one text, so it is withdrawn only for this model.
                if matches!(status, 401 | 403) && self.caller.owner.is_some() {
                    self.flow.metrics.requests.token_proof(TokenProof::Refused);
                }
                match (status, &self.caller.accepted_credential) {
                    (401, _) => self.flow.accepted_credentials.refuse(&self.caller.credential),
                    (403, Some(accepted_credential)) => self.flow.accepted_credentials.forbid(accepted_credential),
                    _ => {}
                }
            }
            Class::Unavailable(_) | Class::Throttled | Class::NotInTime { .. } | Class::OverBudget(_) => {
                tracing::debug!(cause = failure.detail, "a fetch failed");
            }
        }
    }
}

/// Packs vectors, each in its place. While many are packed, other tasks of the thread run in between.
pub(super) async fn pack_in_slices(fetched: &mut [Fetched], codec: Codec) {
    let mut pace = Pace::default();
    for fetched in fetched {
        fetched.vector = Packed::pack(&fetched.vector.unpack(), codec);
        pace.after(fetched.vector.dimension() * COMPONENT_BYTES).await;
    }
}

/// What an unreadable answer says about how the upstream encodes vectors.
enum EncodingFault {
    /// Nothing: only this one answer is unusable.
    Legible,
    /// This encoding may be unreadable in general.
    Doubtful,
    /// The upstream puts something other than f32 into base64.
    Foreign,
}

impl EncodingFault {
    fn of(cause: AnswerFault, encoding: Encoding) -> Self {
        use AnswerFault::{Base64, Dimension, NoRoom, Vector};
        match (cause, encoding) {
            // Zeros, and NaN among numbers, are faults of the text and prove nothing about the encoding.
            (NoRoom | Vector(NotAVector::AllZero), _) | (Vector(NotAVector::NotFinite), Encoding::Float) => {
                Self::Legible
            }
            // float64 or int8 that is read as f32 has the wrong length or invalid numbers.
            (Dimension | Base64 | Vector(_), Encoding::Base64) => Self::Foreign,
            _ => Self::Doubtful,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

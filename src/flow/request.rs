//! One request under way: its look-ups, the vectors it may use, and the failures it must report.

use std::sync::Arc;
use std::time::Duration;

use super::context::{CallerKeys, SpaceSnapshot};
use super::fetch_leases::FetchLeases;
use super::progress::{FailedFetch, Progress, Served, Slot};
use super::vector_budget::{BudgetClaim, Wanted, bytes_of};
use super::{EmbedJob, Flow, FlowOutcome, RequestContext, space_key};
use crate::cache::{Found, Lookup, Record};
use crate::config::{self, Config, UpstreamTarget};
use crate::flow::mock;
use crate::flow::plan::Plan;
use crate::key::Key;
use crate::learned::{ModelIdentity, SpaceState};
use crate::upstream::{Class, is_known_service};
use crate::wire::{Bypass, EmbedRequest, Encoding, WrittenEncoding};

/// A request and the state that stays the same while it is answered.
pub(super) struct Request<'a> {
    pub(super) flow: &'a Arc<Flow>,
    pub(super) job: &'a EmbedJob<'a>,
    pub(super) plan: Plan,
    pub(super) space: SpaceSnapshot,
    pub(super) caller: CallerKeys,
    /// Count of finished fetches before the look-up.
    pub(super) completions_before: u64,
    /// True if stored vectors and other callers' fetches may be used at all.
    pub(super) trusted: bool,
    /// True if the upstream is known to put f32 into base64.
    pub(super) speaks_f32: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(flow: &'a Arc<Flow>, job: &'a EmbedJob<'a>) -> Self {
        let key = space_key(&job.origin.scope, &job.origin.uri, &job.request.space);
        let space_state = flow.spaces.of(key);
        // Both counts are read before the look-up, so changes during the request are noticed.
        let (replacements, generation) = (space_state.replacements(), flow.tiers.generation());
        let accepted_credential = job.origin.accepted_credential(&job.request.space);
        Self {
            flow,
            job,
            plan: Plan::new(job.request.inputs.iter().map(|input| input.key(&key))),
            space: SpaceSnapshot { key, space_state, replacements, generation },
            caller: CallerKeys {
                credential: job.origin.credential,
                caller: job.origin.caller,
                accepted_credential,
                owner: job.origin.owner,
            },
            // A fetch that completes after this point may have stored a key that the look-up misses.
            completions_before: flow.single_flight.completions(),
            trusted: accepted_credential.is_none_or(|accepted_credential| {
                flow.accepted_credentials.holds(&accepted_credential, job.context.now_ms)
            }),
            speaks_f32: speaks_f32(&job.context.config),
        }
    }

    pub(super) const fn context(&self) -> &'a RequestContext {
        &self.job.context
    }

    /// Looks up every distinct key: first in memory, then in the lower tiers, with memory reserved for the keys that
    /// are missing.
    pub(super) async fn look_up(&self) -> Option<Progress> {
        let mut progress = self.look_into_memory();
        // A leader never waits for memory that a waiter of its fetch may hold: nothing is claimed before this.
        self.take_room(&mut progress).await?;
        if self.trusted && self.flow.tiers.has_lower() && progress.lacks_any() {
            // Boxed, like the fetch, because few requests need its memory.
            Box::pin(self.look_below(&mut progress)).await;
        }
        if self.context().config.cache.derive_dimensions && progress.lacks_any() {
            Box::pin(self.derive(&mut progress)).await;
        }
        Some(progress)
    }

    /// Reserves memory for the vectors that must be loaded, and for those already in memory. The latter would otherwise
    /// be held uncounted while a slow client reads the answer.
    async fn take_room(&self, progress: &mut Progress) -> Option<()> {
        let missing = progress.slots.iter().filter(|slot| slot.served().is_none()).count();
        let at_hand_bytes = progress.served().map(|served| bytes_of(&served.record.vector)).sum();
        let wanted = Wanted { missing, dimension: self.expected_dimension(), at_hand_bytes };
        // Without a success in this space, the credential may be any.
        let is_known = self.trusted && self.space.space_state.identity().is_some();
        let claim = BudgetClaim { caller: self.job.origin.caller, deadline: self.context().deadline, is_known };
        progress.reservation = Arc::new(self.flow.vector_budget.take(wanted, claim).await?);
        Some(())
    }

    /// Returns the expected dimension of the vectors: that of the space, the requested one, or a usual one. A forged
    /// token learns nothing of the space, not even from a mock.
    pub(super) fn expected_dimension(&self) -> usize {
        let space = &self.job.request.space;
        let may_know = self.trusted || self.caller.owner.is_none();
        let known = || self.space.space_state.identity().map(|identity| identity.dimension);
        may_know
            .then(known)
            .flatten()
            .or(space.dimensions.map(|dimensions| dimensions as usize))
            .or_else(|| mock::usual_dimension(space.model_name()))
            .unwrap_or(self.context().config.fallback.mock_dimensions)
    }

    async fn look_below(&self, progress: &mut Progress) {
        // With `no-cache`, a stored vector can only serve as fallback, so a key that already has one needs no
        // further look-up.
        let is_open = |place: &usize| !self.context().controls.no_cache || progress.fallback_records[*place].is_none();
        let places: Vec<usize> = progress.empty_places().into_iter().filter(is_open).collect();
        let keys: Vec<Key> = places.iter().map(|place| self.plan.keys[*place]).collect();
        // The look-up takes the leases of missing keys, which spares a round trip before their fetch.
        let leases = self.lookup_leases();
        let mut taken = leases.map(|(leases, call_time)| (leases.of_lookup(keys.clone()), call_time));
        let leases = taken.as_ref().map(|(leases, call_time)| leases.lookup(*call_time));
        let lookup = Lookup { leases, ..self.lookup() };
        let found = self.flow.tiers.look_below(&keys, &lookup, self.space.generation).await;
        if let Some((leases, _)) = &mut taken {
            leases.keep_missing(&found);
        }
        progress.leases = taken.map(|(leases, _)| leases);
        for (place, found) in places.into_iter().zip(found) {
            let (slot, fallback_record) = self.take_in(found);
            progress.slots[place] = slot;
            // A fallback record from memory is as good as one from a lower tier.
            progress.fallback_records[place] = progress.fallback_records[place].take().or(fallback_record);
        }
    }

    /// Returns the leases for the look-up, and the usual time of a call, if missing keys will be fetched for all
    /// replicas.
    fn lookup_leases(&self) -> Option<(&FetchLeases, Option<Duration>)> {
        let controls = &self.context().controls;
        let is_shared = !controls.only_if_cached && !controls.no_cache && !controls.no_store;
        let leases = self.flow.leases.as_ref().filter(|_| is_shared)?;
        Some((leases, self.flow.batcher.recent_call_time(&self.lane(self.priority()))))
    }

    fn look_into_memory(&self) -> Progress {
        let count = self.plan.keys.len();
        let (slots, fallback_records) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut progress =
            Progress { slots, fallback_records, reservation: Arc::default(), fallback: None, leases: None };
        let lookup = self.lookup();
        for key in &self.plan.keys {
            // Stored vectors are not for a caller whose credential the upstream has not accepted.
            let found = if self.trusted { self.flow.tiers.look_up(key, &lookup) } else { Found::Missing };
            let (slot, fallback_record) = self.take_in(found);
            progress.slots.push(slot);
            progress.fallback_records.push(fallback_record);
        }
        progress
    }

    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup {
            now_ms: self.context().now_ms,
            max_age_ms: self.context().controls.max_age_ms,
            space_state: &self.space.space_state,
            space: self.space.key,
            codec: self.context().config.cache.codec,
            trace: &self.context().trace,
            leases: None,
        }
    }

    fn take_in(&self, found: Found) -> (Slot, Option<Arc<Record>>) {
        match found {
            // With `no-cache`, a fresh record only serves as fallback.
            Found::Fresh(record, _) if self.context().controls.no_cache => (Slot::Empty, Some(record)),
            Found::Fresh(record, tier) => (Slot::Served(Served::stored(record, tier)), None),
            Found::Stale(record) => (Slot::Empty, Some(record)),
            Found::Missing => (Slot::Empty, None),
        }
    }

    pub(super) fn upstream_encoding(&self) -> WrittenEncoding {
        upstream_encoding(&self.context().config, &self.job.request, &self.space.space_state, self.context().now_ms)
    }

    /// Returns the reason to pass the request through if its answers are known to be unreadable.
    pub(super) fn known_unreadable(&self) -> Option<Bypass> {
        self.space
            .space_state
            .is_unreadable(self.upstream_encoding().meaning(), self.context().now_ms)
            .then_some(Bypass::UnreadableAnswer)
    }

    /// Returns the outcome if a failure ends the request. A refusal takes precedence, as it will not pass by itself.
    pub(super) fn refusal(&self, progress: &Progress) -> Option<FlowOutcome> {
        let find = |wanted: fn(Class) -> bool| progress.failed().find(|failed| wanted(failed.failure.class));
        if let Some(refused) = find(|class| class == Class::Refused) {
            return Some(FlowOutcome::Refused(Arc::clone(&refused.failure)));
        }
        if let Some(unreadable) = find(|class| matches!(class, Class::InvalidAnswer(..))) {
            return Some(self.pass_on(unreadable));
        }
        let is_throttled = |class| matches!(class, Class::Throttled | Class::NotInTime { .. });
        find(is_throttled).map(|throttled| FlowOutcome::Refused(Arc::clone(&throttled.failure)))
    }

    /// Passes on an unreadable answer if it answers exactly this caller's request. Otherwise the caller's own request
    /// must be forwarded.
    fn pass_on(&self, failed: &FailedFetch) -> FlowOutcome {
        // The client expects the encoding that it requested.
        let asked_as_we_did =
            matches!(failed.failure.class, Class::InvalidAnswer(_, asked) if asked == self.job.request.encoding);
        // A call with the caller's own bytes answers one request. Any other call must carry exactly these inputs.
        let answers_this = if failed.failure.is_own {
            failed.request == self.own_id()
        } else {
            *failed.keys == *self.plan.keys && self.plan.slots.len() == self.plan.keys.len()
        };
        match &failed.failure.reply {
            Some(reply) if asked_as_we_did && answers_this => FlowOutcome::InvalidAnswer(reply.clone()),
            _ => FlowOutcome::PassThrough(Bypass::UnreadableAnswer),
        }
    }

    /// Drops the vectors of all models but the newest, because one answer must never mix two models. Returns true if
    /// any was dropped; those keys must be fetched again.
    pub(super) fn drop_older_models(&self, progress: &mut Progress) -> bool {
        let Some(newest) = self.newest_identity(progress) else {
            return false;
        };
        let mut dropped = false;
        for slot in &mut progress.slots {
            if slot.served().is_some_and(|served| served.record.identity != newest) {
                *slot = Slot::Empty;
                dropped = true;
            }
        }
        dropped
    }

    /// Returns the identity to keep, if the vectors at hand have more than one.
    fn newest_identity(&self, progress: &Progress) -> Option<ModelIdentity> {
        let first = progress.served().next()?;
        if progress.served().all(|served| served.record.identity == first.record.identity) {
            return None;
        }
        let latest = || progress.served().max_by_key(|served| served.record.times.created_ms);
        // The space may know a newer model than all vectors at hand. Then all of them are fetched again.
        self.space.space_state.identity().or_else(|| latest().map(|served| served.record.identity.clone()))
    }
}

/// Returns the `encoding_format` of calls. By default it is the caller's own. It is base64 if the vectors are known to
/// be f32, because base64 takes a quarter of the bytes. The configuration may choose otherwise. If base64 is requested
/// but cannot be read, the member is absent, which every server accepts.
pub fn upstream_encoding(
    config: &Config,
    request: &EmbedRequest<'_>,
    space_state: &SpaceState,
    now_ms: u64,
) -> WrittenEncoding {
    const BASE64: WrittenEncoding = WrittenEncoding::Value(Encoding::Base64);
    let is_readable = !space_state.is_unreadable(Encoding::Base64, now_ms);
    // Without a known dimension, base64 may contain float64 as well as f32.
    let is_proven = request.space.dimensions.is_some() || space_state.identity().is_some();
    let written = request.form.encoding;
    let as_asked = if written == BASE64 && !is_readable { WrittenEncoding::Absent } else { written };
    match config.upstream.encoding {
        config::UpstreamEncoding::Float => WrittenEncoding::Value(Encoding::Float),
        config::UpstreamEncoding::Base64 if is_readable && is_proven => BASE64,
        config::UpstreamEncoding::Auto if speaks_f32(config) && is_readable => BASE64,
        config::UpstreamEncoding::AsAsked | config::UpstreamEncoding::Auto | config::UpstreamEncoding::Base64 => {
            as_asked
        }
    }
}

/// Returns true for upstreams that send f32 in base64: OpenAI, Azure and the built-in mock. Of several targets, each
/// must be one of them.
pub fn speaks_f32(config: &Config) -> bool {
    match &config.upstream.target {
        UpstreamTarget::Mock => true,
        UpstreamTarget::Http(base) => {
            is_known_service(base) && config.targets.iter().all(|target| is_known_service(&target.url))
        }
    }
}

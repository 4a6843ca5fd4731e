//! One request on its way: what it looked up, what it may use, what it has to refuse.

use std::sync::Arc;

use http::Uri;
use tokio::time::Instant;

use super::outcome::{Failed, Progress, Served, Slot};
use super::room::{NoRoom, Wanted, bytes_of};
use super::{Ask, Flow, Outcome, Refusal, Source, space_key};
use crate::config::{self, Config, UpstreamTarget};
use crate::generation::Generation;
use crate::key::Key;
use crate::mock;
use crate::plan::Plan;
use crate::spaces::{Identity, Lessons};
use crate::tiers::{Found, Lookup, Record};
use crate::upstream::Class;
use crate::vouch::Voucher;
use crate::wire::{Bypass, EmbedRequest, Encoding, WrittenEncoding};

/// A request and what stays the same while it is answered.
pub(super) struct Request<'a> {
    pub(super) flow: &'a Arc<Flow>,
    pub(super) ask: &'a Ask<'a>,
    pub(super) config: Arc<Config>,
    pub(super) now_ms: u64,
    pub(super) deadline: Instant,
    pub(super) space: Key,
    pub(super) plan: Plan,
    pub(super) lessons: Arc<Lessons>,
    /// How often something of the space had been replaced before the look-up.
    pub(super) refreshes: u64,
    pub(super) generation: Generation,
    /// How many fetches had landed before the look-up.
    pub(super) landings_before: u64,
    /// What has to be accepted by the upstream before stored vectors are served, where it has to.
    pub(super) voucher: Option<Voucher>,
    /// Whether stored vectors and other callers' fetches may be used at all.
    pub(super) trusted: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(flow: &'a Arc<Flow>, ask: &'a Ask<'a>) -> Self {
        let config = flow.live.load();
        let now_ms = flow.clock.now_ms();
        let space = space_key(&ask.origin.scope, &ask.origin.uri, &ask.request.space);
        let voucher = ask.origin.voucher(&ask.request.space);
        let lessons = flow.spaces.of(space);
        Self {
            flow,
            ask,
            now_ms,
            deadline: ask.deadline,
            space,
            plan: Plan::new(ask.request.inputs.iter().map(|input| input.key(&space))),
            refreshes: lessons.refreshes(),
            lessons,
            generation: flow.tiers.generation(),
            landings_before: flow.flights.landings(),
            trusted: voucher.is_none_or(|voucher| flow.vouchers.holds(&voucher, now_ms)),
            voucher,
            config,
        }
    }

    /// Asks the tiers for every distinct key: memory first, then, with room for what memory lacks, those below it.
    pub(super) async fn look_up(&self) -> Result<Progress, NoRoom> {
        let mut progress = self.look_into_memory();
        self.take_room(&mut progress).await?;
        if self.trusted && self.flow.tiers.has_lower() && progress.lacks_any() {
            // In a box, like the fetch: few requests need its room.
            Box::pin(self.look_below(&mut progress)).await;
        }
        Ok(progress)
    }

    /// Takes room for the vectors that have to be brought into memory, and for those in it, which would otherwise be held
    /// uncounted while a slow client takes the answer.
    async fn take_room(&self, progress: &mut Progress) -> Result<(), NoRoom> {
        let missing = progress.slots.iter().filter(|slot| slot.served().is_none()).count();
        let at_hand_bytes = progress.served().map(|served| bytes_of(&served.record.vector)).sum();
        let wanted = Wanted { missing, dimension: self.expected_dimension(), at_hand_bytes };
        progress.room = Arc::new(self.flow.room.take(wanted, self.ask.origin.caller, self.deadline).await?);
        Ok(())
    }

    /// The dimension of the vectors, as far as it is known: that of the space, the one that is asked for, or a usual one.
    pub(super) fn expected_dimension(&self) -> usize {
        let space = &self.ask.request.space;
        let known = self.lessons.identity().map(|identity| identity.dimension);
        known
            .or(space.dimensions.map(|dimensions| dimensions as usize))
            .or_else(|| mock::usual_dimension(space.model_name()))
            .unwrap_or(self.config.fallback.mock_dimensions)
    }

    async fn look_below(&self, progress: &mut Progress) {
        // Where stored vectors are not wanted, one that may stand in is all there is to find.
        let is_open = |place: &usize| !self.ask.controls.no_cache || progress.stand_ins[*place].is_none();
        let places: Vec<usize> = progress.empty_places().into_iter().filter(is_open).collect();
        let keys: Vec<Key> = places.iter().map(|place| self.plan.keys[*place]).collect();
        let found = self.flow.tiers.look_below(&keys, &self.terms(), self.generation).await;
        for (place, found) in places.into_iter().zip(found) {
            let (slot, stand_in) = self.take_in(found);
            progress.slots[place] = slot;
            // What memory had serves as well as what lay below it.
            progress.stand_ins[place] = progress.stand_ins[place].take().or(stand_in);
        }
    }

    fn look_into_memory(&self) -> Progress {
        let count = self.plan.keys.len();
        let (slots, stand_ins) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut progress = Progress { slots, stand_ins, room: Arc::default(), fallback: None };
        let terms = self.terms();
        for key in &self.plan.keys {
            let found = if self.trusted { self.flow.tiers.look_up(key, &terms) } else { Found::Missing };
            let (slot, stand_in) = self.take_in(found);
            progress.slots.push(slot);
            progress.stand_ins.push(stand_in);
        }
        progress
    }

    pub(super) fn terms(&self) -> Lookup<'_> {
        Lookup {
            now_ms: self.now_ms,
            max_age_ms: self.ask.controls.max_age_ms,
            lessons: &self.lessons,
            space: self.space,
            codec: self.config.cache.codec,
            trace: &self.ask.trace,
        }
    }

    fn take_in(&self, found: Found) -> (Slot, Option<Arc<Record>>) {
        match found {
            Found::Fresh(record, _) if self.ask.controls.no_cache => (Slot::Empty, Some(record)),
            Found::Fresh(record, tier) => {
                (Slot::Served(Served { record, source: Source::Tier(tier), call: None }), None)
            }
            Found::StandIn(record) => (Slot::Empty, Some(record)),
            Found::Missing => (Slot::Empty, None),
        }
    }

    pub(super) fn upstream_encoding(&self) -> WrittenEncoding {
        upstream_encoding(&self.config, &self.ask.origin.uri, &self.ask.request, &self.lessons, self.now_ms)
    }

    /// Whether the upstream is known to put f32 into base64.
    pub(super) fn speaks_f32(&self) -> bool {
        speaks_f32(&self.config.upstream.target, &self.ask.origin.uri)
    }

    /// Whether asking is known to bring nothing that can be read.
    pub(super) fn known_unreadable(&self) -> Option<Bypass> {
        self.lessons.is_unreadable(self.upstream_encoding().meaning(), self.now_ms).then_some(Bypass::UnreadableAnswer)
    }

    /// How the request ends if a failure ends it: a refusal goes first, since it will not pass by itself.
    pub(super) fn refusal(&self, progress: &Progress) -> Option<Outcome> {
        let find = |wanted: fn(Class) -> bool| progress.failed().find(|failed| wanted(failed.failure.class));
        if let Some(refused) = find(|class| class == Class::Refused) {
            return Some(Outcome::Refused(Refusal::of(&refused.failure)));
        }
        if let Some(unreadable) = find(|class| matches!(class, Class::Unreadable(..))) {
            return Some(self.pass_on(unreadable));
        }
        find(|class| class == Class::Throttled).map(|throttled| Outcome::Refused(Refusal::of(&throttled.failure)))
    }

    /// An unreadable answer is passed on where it answers exactly what the caller asked; else the caller's own
    /// request has to go up.
    fn pass_on(&self, failed: &Failed) -> Outcome {
        let asked_as_we_did =
            matches!(failed.failure.class, Class::Unreadable(_, asked) if asked == self.ask.request.encoding);
        let answers_this = if failed.failure.is_own {
            failed.request == self.own_id()
        } else {
            *failed.keys == *self.plan.keys && self.plan.slots.len() == self.plan.keys.len()
        };
        match &failed.failure.reply {
            Some(reply) if asked_as_we_did && answers_this => Outcome::Unreadable(reply.clone()),
            _ => Outcome::PassThrough(Bypass::UnreadableAnswer),
        }
    }

    /// One answer never mixes two models: where it would, the vectors of all but the newest are asked for again.
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

    /// The identity to keep, if the vectors at hand have more than one.
    fn newest_identity(&self, progress: &Progress) -> Option<Identity> {
        let first = progress.served().next()?;
        if progress.served().all(|served| served.record.identity == first.record.identity) {
            return None;
        }
        let latest = || progress.served().max_by_key(|served| served.record.times.created_ms);
        self.lessons.identity().or_else(|| latest().map(|served| served.record.identity.clone()))
    }
}

/// The `encoding_format` of calls. It is the caller's own but where the vectors are known to be f32, which base64 carries in
/// a quarter of the bytes; where the configuration says otherwise; and where base64 cannot be read: then the member is
/// absent, which every server takes.
pub fn upstream_encoding(
    config: &Config,
    uri: &Uri,
    request: &EmbedRequest<'_>,
    lessons: &Lessons,
    now_ms: u64,
) -> WrittenEncoding {
    const BASE64: WrittenEncoding = WrittenEncoding::Value(Encoding::Base64);
    let is_readable = !lessons.is_unreadable(Encoding::Base64, now_ms);
    let is_proven = request.space.dimensions.is_some() || lessons.identity().is_some();
    let written = request.form.encoding;
    let as_asked = if written == BASE64 && !is_readable { WrittenEncoding::Absent } else { written };
    match config.upstream.encoding {
        config::Encoding::Float => WrittenEncoding::Value(Encoding::Float),
        config::Encoding::Base64 if is_readable && is_proven => BASE64,
        config::Encoding::Auto if speaks_f32(&config.upstream.target, uri) && is_readable => BASE64,
        config::Encoding::AsAsked | config::Encoding::Auto | config::Encoding::Base64 => as_asked,
    }
}

/// OpenAI and Azure send f32 in base64; the built-in mock does too.
pub fn speaks_f32(target: &UpstreamTarget, uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    *target == UpstreamTarget::Mock
        || host == "api.openai.com"
        || [".api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com"]
            .iter()
            .any(|end| host.ends_with(end))
}

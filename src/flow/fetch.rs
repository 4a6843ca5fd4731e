//! From a missing key to a landed result: claim, launch, fetch, fill, land, and waiting for it.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::outcome::{Failed, Landed, Progress, Served, Slot};
use super::price::price;
use super::request::Request;
use super::{Flow, Landing as Result_, Source};
use crate::config::Config;
use crate::generation::Generation;
use crate::inflight::{Flights, Landing, Lead};
use crate::key::{Key, KeyBuilder, Tag};
use crate::spaces::{Identity, Lesson, Lessons};
use crate::tiers::{Found, Lookup, Record, Tier, Times};
use crate::upstream::{Class, Failure, Fetched, Lane, Portion, Terms, Why, forwardable};
use crate::wire::{Encoding, Input, Unreadable};

/// Request headers that differ from call to call and mean nothing for the answer; they do not keep misses apart.
const NOISE: [&str; 14] = [
    "accept",
    "accept-language",
    "baggage",
    "date",
    "origin",
    "priority",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Prefixes of such headers: the SDKs' notes about themselves, and a browser's.
const NOISE_PREFIXES: [&str; 2] = ["x-stainless-", "sec-"];

impl Request<'_> {
    /// Fetches what is missing. A failure that another caller's request may have caused is not taken over: those
    /// inputs are asked for once more, by this request alone.
    pub(super) async fn fetch(&self, progress: &mut Progress) {
        let alone = self.ask.controls.no_store || !self.trusted;
        let again = self.fetch_places(&progress.empty_places(), alone, progress).await;
        if !again.is_empty() {
            self.fetch_places(&again, true, progress).await;
        }
    }

    /// Fetches some keys, `alone` or together with other callers. Returns the places whose failure is another's.
    async fn fetch_places(&self, places: &[usize], alone: bool, progress: &mut Progress) -> Vec<usize> {
        let keys: Vec<Key> = places.iter().map(|place| self.plan.keys[*place]).collect();
        // A table of its own: nobody joins, nobody is joined.
        let flights = if alone { Flights::new() } else { Arc::clone(&self.flow.flights) };
        let claims = flights.claim(&keys);
        let mut is_led = vec![false; keys.len()];
        if let Some(lead) = claims.lead {
            claims.led.iter().for_each(|place| is_led[*place] = true);
            self.launch(lead, claims.led.iter().map(|place| places[*place]));
        }
        let mut again = Vec::new();
        for ((place, join), led) in places.iter().zip(&claims.joins).zip(is_led) {
            let landing = timeout_at(self.deadline, join.landing()).await;
            match self.settle(landing.ok(), led) {
                Some(slot) => progress.slots[*place] = slot,
                None => again.push(*place),
            }
        }
        again
    }

    /// What a landing means for this request; nothing if it is a failure that another's request may have caused.
    fn settle(&self, landing: Option<Landing<Result_>>, led: bool) -> Option<Slot> {
        let failure = match landing {
            Some(Landing::Landed(Ok(landed))) => return Some(Slot::Served(landed.served(led))),
            Some(Landing::Landed(Err(failed))) if led || self.is_mine(&failed) => return Some(Slot::Failed(failed)),
            Some(Landing::Landed(Err(_))) => return None,
            Some(Landing::Abandoned) => Failure::unavailable(Why::Stopping, "the fetch was given up"),
            None => Failure::unavailable(Why::Timeout, "no answer within limits.request_timeout"),
        };
        let (failure, credential) = (Arc::new(failure), self.ask.origin.credential);
        Some(Slot::Failed(Arc::new(Failed { failure, keys: [].into(), credential })))
    }

    /// A refusal is this request's own if everything that was asked together is also asked here, by the same caller.
    /// That the upstream is down is everybody's.
    fn is_mine(&self, failed: &Failed) -> bool {
        let same_caller = failed.credential == self.ask.origin.credential;
        match failed.failure.class {
            Class::Unavailable(_) => true,
            Class::Throttled => same_caller,
            Class::Refused | Class::Unreadable(..) => {
                same_caller && failed.keys.iter().all(|key| self.plan.keys.contains(key))
            }
        }
    }

    fn launch(&self, lead: Lead<Result_>, places: impl Iterator<Item = usize>) {
        let inputs = places.map(|place| self.ask.request.inputs[self.plan.firsts[place]].to_owned_input()).collect();
        let fetch = Fetch {
            flow: Arc::clone(self.flow),
            config: Arc::clone(&self.config),
            lead,
            lane: self.lane(),
            lessons: Arc::clone(&self.lessons),
            generation: self.generation,
            deadline: self.deadline,
            may_use_stored: self.trusted && !self.ask.controls.no_cache,
            max_age_ms: self.ask.controls.max_age_ms,
            may_store: !self.ask.controls.no_store,
            credential: self.ask.origin.credential,
            asked_model: self.ask.request.space.model_name().to_owned(),
        };
        self.flow.tasks.spawn(fetch.run(inputs));
    }

    /// The lane of this request's misses: one space, one credential, and whatever else a call has only one of.
    fn lane(&self) -> Lane {
        let (request, origin) = (&self.ask.request, &self.ask.origin);
        let encoding = self.upstream_encoding();
        let mut id = KeyBuilder::new(None);
        id.part(Tag::Scope, self.space.as_bytes())
            .part(Tag::Scope, origin.credential.as_bytes())
            .part(Tag::Encoding, encoding.name().as_bytes())
            .part(Tag::Control, format!("{:?}", request.kind()).as_bytes());
        if let Some(user) = &request.user {
            id.part(Tag::User, user.as_bytes());
        }
        let headers = forwardable(origin.headers, self.config.upstream.api_key.is_some());
        for (name, value) in headers.iter().filter(|(name, _)| !is_noise(name.as_str())) {
            id.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
        let asked = request.space.dimensions.map(|dimensions| dimensions as usize);
        let known = || self.lessons.identity().filter(|_| encoding == Encoding::Base64).map(|known| known.dimension);
        let terms = Terms {
            uri: origin.uri.clone(),
            headers,
            space: request.space.clone(),
            encoding,
            user: request.user.clone(),
            dimension: asked.or_else(known),
        };
        Lane { id: id.finish(), terms: Arc::new(terms) }
    }
}

fn is_noise(name: &str) -> bool {
    NOISE.contains(&name) || NOISE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Landed {
    fn served(self, led: bool) -> Served {
        let source = match (&self.call, led) {
            (None, _) => Source::Tier(Tier::Memory),
            (Some(_), true) => Source::Upstream,
            (Some(_), false) => Source::Joined,
        };
        Served { record: self.record, source, call: self.call }
    }
}

/// The fetch of everything that one request leads. It runs to its end whoever still waits for it.
struct Fetch {
    flow: Arc<Flow>,
    config: Arc<Config>,
    lead: Lead<Result_>,
    lane: Lane,
    lessons: Arc<Lessons>,
    generation: Generation,
    deadline: Instant,
    may_use_stored: bool,
    max_age_ms: Option<u64>,
    may_store: bool,
    credential: Key,
    asked_model: String,
}

impl Fetch {
    async fn run(self, inputs: Vec<Input<'static>>) {
        let stored = self.land_stored();
        let (places, inputs): (Vec<usize>, Vec<_>) =
            inputs.into_iter().enumerate().filter(|(place, _)| !stored.contains(place)).unzip();
        if places.is_empty() {
            return;
        }
        let mut portions = self.flow.batcher.submit(&self.lane, inputs, self.deadline);
        while let Some(portion) = portions.recv().await {
            self.land(portion, &places).await;
        }
    }

    /// Looks into memory once more. Between the look-up and the claim an earlier fetch may have landed and left;
    /// without this look its result would be paid for twice.
    fn land_stored(&self) -> Vec<usize> {
        if !self.may_use_stored {
            return Vec::new();
        }
        let now_ms = self.flow.clock.now_ms();
        let terms = Lookup { now_ms, max_age_ms: self.max_age_ms, lessons: &self.lessons };
        let found =
            self.lead.keys().iter().enumerate().filter_map(|(place, key)| match self.flow.tiers.peek(key, &terms) {
                Found::Fresh(record, _) => Some((place, Ok(Landed { record, call: None }))),
                _ => None,
            });
        let found: Vec<_> = found.collect();
        let places = found.iter().map(|(place, _)| *place).collect();
        self.lead.land(found);
        places
    }

    /// Fills the tiers, then lets the waiters go. `places` maps the submitted inputs to the lead's.
    async fn land(&self, portion: Portion, places: &[usize]) {
        let places = &places[portion.places];
        match portion.result {
            Ok(mut fetched) => {
                price(&self.lessons, portion.inputs, &mut fetched).await;
                let landed = self.keep(fetched, places);
                self.lead.land(places.iter().copied().zip(landed.into_iter().map(Ok)));
            }
            Err(failure) => {
                self.learn_from(&failure);
                let keys = places.iter().map(|place| self.lead.keys()[*place]).collect();
                let failed = Arc::new(Failed { failure, keys, credential: self.credential });
                self.lead.land(places.iter().map(|place| (*place, Err(Arc::clone(&failed)))));
            }
        }
    }

    fn keep(&self, fetched: Vec<Fetched>, places: &[usize]) -> Vec<Landed> {
        let now_ms = self.flow.clock.now_ms();
        let Some(identity) = fetched.first().map(|first| self.learn_identity(first)) else {
            return Vec::new();
        };
        self.lessons.mark_readable(self.lane.terms.encoding);
        self.flow.outage.end(now_ms);
        let vouched_until_ms = now_ms.saturating_add(millis(self.config.auth.vouch_ttl));
        self.flow.vouchers.accept(self.credential, vouched_until_ms, now_ms);
        let (times, asked_model) = (self.times(now_ms), self.asked_as(&identity));
        let keep_one = |(fetched, place): (Fetched, &usize)| {
            let record = Record::new(fetched.vector, identity.clone(), times, fetched.tokens);
            let record = Arc::new(record.asked_as(&asked_model));
            if self.may_store {
                self.flow.tiers.fill(self.lead.keys()[*place], &record, self.generation);
            }
            Landed { record, call: Some(fetched.call) }
        };
        fetched.into_iter().zip(places).map(keep_one).collect()
    }

    /// The asker's name for the model, to be shared by all records of a portion. A path may name it in its place.
    fn asked_as(&self, identity: &Identity) -> Arc<str> {
        let is_other = !self.asked_model.is_empty() && *self.asked_model != *identity.model;
        if is_other { Arc::from(&*self.asked_model) } else { Arc::clone(&identity.model) }
    }

    fn learn_identity(&self, fetched: &Fetched) -> Identity {
        let model = fetched.call.model.as_deref().unwrap_or(&self.asked_model);
        let (identity, lesson) = self.lessons.learn(model, fetched.vector.dimension());
        if lesson == Lesson::Drift {
            self.flow.metrics.model_drifts.inc();
            tracing::warn!(model, "another model answers than before: older vectors of its space are fetched again");
        }
        identity
    }

    fn times(&self, now_ms: u64) -> Times {
        let fresh_until_ms = now_ms.saturating_add(millis(self.config.cache.ttl));
        let stale_until_ms = fresh_until_ms.saturating_add(millis(self.config.cache.stale_for));
        Times { created_ms: now_ms, fresh_until_ms, stale_until_ms }
    }

    fn learn_from(&self, failure: &Failure) {
        match failure.class {
            Class::Unreadable(cause, encoding) => {
                let wrong_base64 = encoding == Encoding::Base64 && cause == Unreadable::Dimension;
                self.lessons.mark_unreadable(encoding, wrong_base64, self.flow.clock.now_ms());
                tracing::warn!(cause = failure.detail, "an answer was passed on and not stored");
            }
            Class::Refused => {
                let status = failure.reply.as_ref().map_or(0, |reply| reply.status.as_u16());
                if matches!(status, 401 | 403) {
                    self.flow.vouchers.refuse(&self.credential);
                }
            }
            Class::Unavailable(_) | Class::Throttled => {
                tracing::debug!(cause = failure.detail, "a fetch failed");
            }
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

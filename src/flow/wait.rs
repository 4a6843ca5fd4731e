//! Waits for missing keys: claims them, has them fetched, and decides what each result means for this request.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::timeout_at;

use super::fetch::Fetch;
use super::fetch_leases::LookupLeases;
use super::progress::{FailedFetch, Progress, Served, Slot};
use super::request::Request;
use super::single_flight::{self, Claims, FlightWaiter, Leader, SingleFlight};
use super::{Calls, FetchResult, RequestContext};
use crate::cache::Age;
use crate::config::{Priority, Scope};
use crate::key::Key;
use crate::observe::traces::{Span, TraceContext};
use crate::process::tasks::DetachOnDrop;
use crate::upstream::{Class, Failure, HastenedSubmission, OwnRequest, Submission, UnavailableReason, request_id};

/// Table of fetches in which an input is retried after a fetch that another request led has failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryMode {
    /// A table of this request alone, because the other request may have caused the failure.
    Private,
    /// The table of all requests, because only the deadline of the other request had passed.
    Shared,
}

impl Request<'_> {
    /// Fetches the missing keys. A failure that another caller's request may have caused is not taken over; those
    /// inputs are fetched once more.
    pub(super) async fn fetch(&self, progress: &mut Progress) {
        // `no-store` results must not reach others. An unaccepted credential must not use fetches of others.
        let is_private =
            self.context().controls.no_store || self.context().controls.calls == Calls::Own || !self.trusted;
        let retries = self.fetch_places(&progress.empty_places(), is_private, progress).await;
        let (shared, mut rest): (Vec<_>, Vec<_>) =
            retries.into_iter().partition(|(_, mode)| *mode == RetryMode::Shared);
        // A failure of another request in the second try proves as little about this request as in the first.
        rest.extend(self.fetch_places(&places_of(&shared), false, progress).await);
        // A request with a private table owns every failure, so no input is left after this.
        self.fetch_places(&places_of(&rest), true, progress).await;
    }

    /// Fetches some keys, through a private table or the one shared with other callers. Returns the places to retry,
    /// because another request may have caused their failure.
    pub(super) async fn fetch_places(
        &self,
        places: &[usize],
        is_private: bool,
        progress: &mut Progress,
    ) -> Vec<(usize, RetryMode)> {
        if places.is_empty() {
            return Vec::new();
        }
        let keys: Vec<Key> = places.iter().map(|place| self.plan.keys[*place]).collect();
        // A private table prevents joins in both directions.
        let single_flight = if is_private { SingleFlight::new() } else { Arc::clone(&self.flow.single_flight) };
        let Claims { waiters, led, lead } = single_flight.claim(&keys);
        let mut is_led = vec![false; keys.len()];
        for place in &led {
            is_led[*place] = true;
        }
        let waiting = self.context().trace.wait(led.len(), keys.len() - led.len());
        let led_places = led.iter().map(|place| places[*place]).collect();
        let fetch = lead.map(|lead| self.launch(lead, led_places, (progress, waiting.context())));
        // All led keys belong to one flight, so one of its handles tells when all of them are complete.
        let own = led.first().map(|place| &waiters[*place]);
        let hastened = self.hasten(waiters.iter().zip(&is_led));
        self.wait(fetch.zip(own), &waiters).await;
        drop(hastened);
        let mut retries = Vec::new();
        for ((place, join), led) in places.iter().zip(&waiters).zip(is_led) {
            match self.settle(join.try_completion(), led) {
                Ok(slot) => progress.slots[*place] = slot,
                Err(mode) => retries.push((*place, mode)),
            }
        }
        link_calls(&waiting, places.iter().map(|place| &progress.slots[*place]));
        retries
    }

    /// Lets an interactive request that waits for the fetches of bulk requests lend them its priority. The keys that it
    /// leads are its own.
    fn hasten<'w>(
        &self,
        waiters: impl Iterator<Item = (&'w FlightWaiter<FetchResult>, &'w bool)>,
    ) -> Vec<HastenedSubmission> {
        if self.priority() == Priority::Bulk {
            return Vec::new();
        }
        let awaited: BTreeSet<Submission> =
            waiters.filter(|(_, is_led)| !**is_led).filter_map(|(waiter, _)| waiter.bulk()).collect();
        if awaited.is_empty() {
            return Vec::new();
        }
        // Only calls that this request could make itself: those of its own credential.
        let lane = self.lane(Priority::Bulk);
        let hasten = |awaited| self.flow.batcher.hasten(&lane, awaited, self.context().deadline);
        awaited.into_iter().filter_map(hasten).collect()
    }

    /// Waits until all keys have results, at most until the deadline, and drives its own fetch meanwhile. The rest of
    /// that fetch becomes a task if the deadline passes, or if only other requests still need it.
    async fn wait(
        &self,
        own: Option<(DetachOnDrop, &FlightWaiter<FetchResult>)>,
        waiters: &[FlightWaiter<FetchResult>],
    ) {
        let everything = async {
            if let Some((mut fetch, join)) = own {
                // Only this fetch completes the keys that are led here, so one check after each poll suffices.
                poll_fn(|cx| {
                    let is_done = Pin::new(&mut fetch).poll(cx).is_ready();
                    if is_done || join.is_whole_flight_complete() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            // The own fetch comes first, because no other task polls it. Fetches of others progress meanwhile.
            for join in waiters {
                join.completion().await;
            }
        };
        // Results that arrived by the deadline are used even if the wait itself timed out.
        drop(timeout_at(self.context().deadline, everything).await);
    }

    /// Decides what the result of a fetch means for this request.
    fn settle(&self, completion: Option<single_flight::Completion<FetchResult>>, led: bool) -> Result<Slot, RetryMode> {
        match completion {
            Some(single_flight::Completion::Done(Ok(served))) if self.accepts(&served) => {
                Ok(Slot::Served(if led { served } else { served.joined() }))
            }
            // The leader accepted an older record than this request does.
            Some(single_flight::Completion::Done(Ok(_))) => Err(RetryMode::Private),
            // A call for several requests that fails is repeated for each of them, so this failure is its own.
            Some(single_flight::Completion::Done(Err(failed))) if led => Ok(Slot::Failed(failed)),
            Some(single_flight::Completion::Done(Err(failed))) => self.take_over(failed),
            // The call continues and its answer is stored, so the same request can wait for it again.
            Some(single_flight::Completion::Late) => {
                Ok(self.failed(UnavailableReason::Timeout, "no answer within upstream.headers_timeout"))
            }
            Some(single_flight::Completion::Abandoned) => {
                Ok(self.failed(UnavailableReason::Stopping, "the fetch was given up"))
            }
            None => Ok(self.failed(UnavailableReason::Timeout, "no answer within limits.request_timeout")),
        }
    }

    /// Returns true if a result is young enough for this request, and as exact as its configuration demands. A
    /// fetch that began before a reload packs with the previous codec. Vectors fresh from the upstream are
    /// always young enough.
    fn accepts(&self, served: &Served) -> bool {
        let (controls, times) = (&self.context().controls, &served.record.times);
        let is_young = || times.age(self.context().now_ms, controls.max_age_ms) == Age::Fresh;
        let is_exact = self.context().config.cache.codec.accepts(served.record.vector.form());
        is_exact && (served.call.is_some() || (!controls.no_cache && is_young()))
    }

    /// Decides whether the failure of a fetch that another request led also applies to this request. An unavailable
    /// upstream applies to all requests. A refusal applies if the same caller asks here for all keys of that fetch.
    fn take_over(&self, failed: Arc<FailedFetch>) -> Result<Slot, RetryMode> {
        let same_caller = failed.credential == self.job.origin.credential;
        let asked_here = || failed.keys.iter().all(|key| self.plan.keys.contains(key));
        match failed.failure.class {
            // The upstream was not called: the time of the other request was over, or its cost exceeded a budget that
            // may cover this one.
            Class::Unavailable(UnavailableReason::Expired) | Class::NotInTime { .. } | Class::OverBudget(_) => {
                Err(RetryMode::Shared)
            }
            // One of the other texts may be the cause.
            Class::Unavailable(reason) if reason.may_be_of_the_call() && !asked_here() => Err(RetryMode::Private),
            // The upstream's reply may describe the other caller's account.
            Class::Unavailable(reason) if !same_caller => Ok(self.failed_like(reason, &failed.failure)),
            Class::Unavailable(_) => Ok(Slot::Failed(failed)),
            Class::Throttled if same_caller => Ok(Slot::Failed(failed)),
            Class::Refused | Class::InvalidAnswer(..) if same_caller && asked_here() => Ok(Slot::Failed(failed)),
            // A refusal of another caller, or of other texts, proves nothing about this request.
            Class::Throttled | Class::Refused | Class::InvalidAnswer(..) => Err(RetryMode::Private),
        }
    }

    fn failed(&self, reason: UnavailableReason, detail: &str) -> Slot {
        self.failed_with(Failure::unavailable(reason, detail))
    }

    /// Returns the same failure without the upstream's reply.
    fn failed_like(&self, reason: UnavailableReason, other: &Failure) -> Slot {
        self.failed_with(Failure { outage: other.outage, ..Failure::unavailable(reason, other.detail.clone()) })
    }

    fn failed_with(&self, failure: Failure) -> Slot {
        let failure = Arc::new(failure);
        let (keys, credential, request) = ([].into(), self.job.origin.credential, self.own_id());
        Slot::Failed(Arc::new(FailedFetch { failure, keys, credential, request }))
    }

    fn own_request(&self) -> Arc<OwnRequest> {
        let written = (self.job.body.clone(), self.job.request.form, Arc::clone(&self.job.charge));
        OwnRequest::new(written, self.own_id(), (&self.plan.firsts, &self.plan.slots))
    }

    pub(super) fn own_id(&self) -> u64 {
        request_id(&self.plan.keys, &self.plan.slots)
    }

    /// Logs one warning about bearer tokens that rotate. Only requests that fetch come here, so hits do not pay for it.
    fn watch_token(&self) {
        // A token with an owner begins with the entries of the earlier ones.
        if self.context().config.cache.scope != Scope::Credential || self.caller.owner.is_some() {
            return;
        }
        let Some(kind) = self.flow.rotation.note(self.job.origin.headers) else {
            return;
        };
        self.flow.metrics.requests.rotating_credentials.inc();
        // One line for each process suffices; the counter has the number of owners.
        if self.flow.metrics.requests.rotating_credentials.get() == 1 {
            tracing::warn!(
                "bearer tokens with the same claims, or of the same kind, rotate: in scope credential each new token \
                 begins with an empty cache; {} keeps it, and the upstream still checks each token",
                kind.remedy()
            );
        }
    }

    /// Starts a fetch. It runs to its end even without waiters.
    fn launch(
        &self,
        lead: Leader<FetchResult>,
        places: Vec<usize>,
        (progress, trace): (&Progress, TraceContext),
    ) -> DetachOnDrop {
        self.watch_token();
        let input = |place: &usize| self.job.request.inputs[self.plan.firsts[*place]].to_owned_input();
        let inputs = places.iter().map(input).collect();
        let own_place = |place: usize| u32::try_from(place).expect("a request must have fewer than 2^32 inputs");
        let fetch = Fetch {
            flow: Arc::clone(self.flow),
            context: RequestContext { trace, ..self.context().clone() },
            space: self.space.clone(),
            caller: self.caller,
            lead,
            lane: self.lane(self.priority()),
            priority: self.priority(),
            own: self.own_request(),
            places: places.into_iter().map(own_place).collect(),
            may_use_stored: self.trusted && !self.context().controls.no_cache,
            // The count is read after the claim, so a fetch that ended between look-up and claim is noticed.
            has_news: self.flow.single_flight.completions() != self.completions_before,
            has_unread: progress.leases.as_ref().is_some_and(LookupLeases::has_unread),
            asked_model: self.job.request.space.model_name().to_owned(),
            revision: self.space.space_state.revision(),
            expected_dimension: self.expected_dimension(),
            reservation: Arc::clone(&progress.reservation),
        };
        // The fetch counts as a task from now on, so a shutdown waits for it.
        self.flow.tasks.lend(fetch.run(inputs))
    }
}

/// Links a wait to the calls that other requests made for it.
fn link_calls<'a>(waiting: &Span, slots: impl Iterator<Item = &'a Slot>) {
    if !waiting.is_recorded() {
        return;
    }
    let (own, mut linked) = (waiting.context(), Vec::new());
    for call in slots.filter_map(|slot| slot.served()?.call.as_ref()) {
        if !linked.contains(&Arc::as_ptr(call)) {
            linked.push(Arc::as_ptr(call));
            if !call.trace.is_same_trace(&own) {
                waiting.link(&call.trace);
            }
        }
    }
}

fn places_of(retries: &[(usize, RetryMode)]) -> Vec<usize> {
    retries.iter().map(|(place, _)| *place).collect()
}

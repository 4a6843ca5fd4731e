//! Turns the vectors of a request's distinct keys into the answer, in the caller's order, with its token counts.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::progress::{Progress, Served};
use super::request::Request;
use super::vector_budget::VectorReservation;
use super::{Answer, FlowOutcome, SourceCounts};
use crate::cache::reply_cache::Validity;
use crate::observe::metrics::{self, InputSource};
use crate::upstream::{CallInfo, shown_on_misses};
use crate::vector::packed::Packed;
use crate::wire::{Input, Members, Rendering};

/// Header with the names of the targets that made the vectors of this answer.
const TARGET: HeaderName = HeaderName::from_static("x-vecho-target");

/// The vector of a distinct key, and the number of inputs that ask for it.
struct DistinctVector<'a> {
    served: &'a Served,
    input: &'a Input<'a>,
    times_asked: u32,
    /// Its tokens as known when this answer began. Another request that waited for the same fetch may set them at any
    /// moment; they must not be added to a sum that already includes them.
    known_tokens: Option<u32>,
}

impl DistinctVector<'_> {
    fn call(&self) -> Option<*const CallInfo> {
        self.served.call.as_ref().map(Arc::as_ptr)
    }
}

impl Request<'_> {
    /// Assembles the answer; every key must be served.
    pub(super) async fn assemble(&self, progress: &Progress) -> FlowOutcome {
        let mut parts = self.parts(progress);
        // A hit reports usage as its miss did, but a call reports only the sum of its inputs.
        self.count_what_nobody_told(&mut parts).await;
        let mut source_counts = SourceCounts::default();
        for part in &parts {
            source_counts.add(part.served.source, part.times_asked);
        }
        let prompt_tokens = sum_tokens(&parts, &mut source_counts);
        let answer = Answer {
            rendering: self.rendering(&parts, prompt_tokens),
            call_headers: call_headers(&parts),
            fallback: progress.fallback.clone(),
            reservation: Arc::<VectorReservation>::clone(&progress.reservation),
            // Only a full hit may enter the reply cache, so a body with a mock or a stale vector never does.
            // A derived vector must not outlive the arrival of the service's own.
            validity: (source_counts.outcome() == metrics::Outcome::Hit && source_counts.derived == 0)
                .then(|| self.validity(&parts))
                .flatten(),
            source_counts,
        };
        FlowOutcome::Answer(Box::new(answer))
    }

    fn parts<'p>(&'p self, progress: &'p Progress) -> Vec<DistinctVector<'p>> {
        let slots = progress.slots.iter().zip(&self.plan.firsts).zip(self.plan.multiplicities());
        slots
            .map(|((slot, first), times_asked)| {
                // A gap here would shift every later vector to the wrong input.
                let served = slot.served().expect("assembling must come after every key was served");
                let (input, known_tokens) = (&self.job.request.inputs[*first], served.record.tokens());
                DistinctVector { served, input, times_asked, known_tokens }
            })
            .collect()
    }

    fn rendering(&self, parts: &[DistinctVector<'_>], prompt_tokens: u64) -> Rendering {
        let is_mock = |slot: &u32| parts[*slot as usize].served.source == InputSource::Mock;
        let mocks = self.plan.slots.iter().enumerate().filter(|(_, slot)| is_mock(slot));
        // A mock has the requested name, so the model is taken from a real vector if there is one.
        let real = parts.iter().find(|part| part.served.source != InputSource::Mock).or(parts.first());
        Rendering {
            vectors: parts.iter().map(|part| part.served.record.vector.clone()).collect::<Vec<Packed>>().into(),
            slots: self.plan.slots.clone().into(),
            encoding: self.job.request.encoding,
            model: real.map_or_else(String::new, |part| part.served.record.identity.model.to_string()),
            prompt_tokens,
            members: self.members(parts),
            mocks: mocks.map(|(input, _)| u32::try_from(input).unwrap_or(u32::MAX)).collect(),
        }
    }

    /// Returns further members of the answer. They come from the call. Without a call they are a generated id, if the
    /// upstream's answers have an id or may have one. The id is the same for equal requests.
    fn members(&self, parts: &[DistinctVector<'_>]) -> Members {
        let call = parts.iter().find_map(|part| part.served.call.as_ref());
        match call {
            Some(call) => call.members.clone(),
            // OpenAI's answers have no id. A client of another server may expect one.
            None if !self.speaks_f32 && self.space.space_state.may_have_ids() => {
                vec![("id".to_owned(), format!("\"embd-vecho-{:016x}\"", self.own_id()).into())]
            }
            None => Vec::new(),
        }
    }

    fn validity(&self, parts: &[DistinctVector<'_>]) -> Option<Validity> {
        // The reply must not outlive the first of its records to expire.
        let fresh_until_ms = parts.iter().map(|part| part.served.record.times.fresh_until_ms).min()?;
        Some(Validity {
            fresh_until_ms,
            // All vectors have one identity here, because `drop_older_models` runs before each assembly.
            identity: parts.first()?.served.record.identity.clone(),
            space_state: Arc::clone(&self.space.space_state),
            // Both counts are from before the look-up, so a purge or a replacement since then invalidates the reply.
            generation: self.space.generation,
            replacements: self.space.replacements,
            accepted_credential: self.caller.accepted_credential,
        })
    }
}

/// Returns the headers of the first call that was made for this request.
fn call_headers(parts: &[DistinctVector<'_>]) -> Option<HeaderMap> {
    let mut own = parts.iter().filter(|part| part.served.source == InputSource::Upstream).peekable();
    let mut headers = own.peek()?.served.call_headers().map(shown_on_misses)?;
    let mut targets: Vec<&str> = own.filter_map(|part| part.served.call.as_ref()?.target.as_deref()).collect();
    if !targets.is_empty() {
        targets.sort_unstable();
        targets.dedup();
        // The configuration has checked that names fit a header.
        if let Ok(names) = HeaderValue::from_str(&targets.join(", ")) {
            headers.insert(TARGET, names);
        }
    }
    Some(headers)
}

impl Request<'_> {
    /// Counts the inputs with tokens that neither their record nor the sum of a call gives. Each input is counted only
    /// once because its record stores the count.
    async fn count_what_nobody_told(&self, parts: &mut [DistinctVector<'_>]) {
        let untold = untold(parts);
        if untold.is_empty() {
            return;
        }
        let estimates: Vec<usize> = untold.iter().map(|place| parts[*place].input.estimated_tokens()).collect();
        let inputs: Vec<&Input<'_>> = untold.iter().map(|place| parts[*place].input).collect();
        match self.flow.tokenizer.count(&inputs, self.context().now_ms).await {
            Some(counts) => keep_counts(parts, &untold, &counts),
            // The estimate serves this answer only, because a record must hold exact counts.
            None => untold.iter().zip(estimates).for_each(|(place, estimate)| {
                parts[*place].known_tokens = u32::try_from(estimate).ok();
            }),
        }
    }
}

fn keep_counts(parts: &mut [DistinctVector<'_>], untold: &[usize], counts: &[u32]) {
    for (&place, &tokens) in untold.iter().zip(counts) {
        parts[place].served.record.set_tokens(tokens);
        parts[place].known_tokens = Some(tokens);
    }
}

fn untold(parts: &[DistinctVector<'_>]) -> Vec<usize> {
    let sums = sums_of_own_calls(parts);
    let is_told = |part: &DistinctVector<'_>| {
        part.known_tokens.is_some() || part.call().is_some_and(|call| sums.contains_key(&call))
    };
    (0..parts.len()).filter(|place| !is_told(&parts[*place])).collect()
}

/// Returns `usage.prompt_tokens`, and adds the billed and the saved tokens to the tally. The sum of a call is used if
/// the whole call was made for this request.
fn sum_tokens(parts: &[DistinctVector<'_>], source_counts: &mut SourceCounts) -> u64 {
    let mut total = 0;
    for part in parts {
        let tokens = part.known_tokens.map_or(0, u64::from);
        note(part, tokens, source_counts);
        total += tokens * u64::from(part.times_asked);
    }
    // These calls carried only inputs without a count, so no token is added twice.
    for sum in sums_of_own_calls(parts).values() {
        source_counts.billed += sum;
        total += sum;
    }
    total
}

/// Adds the tokens of one key to the tally. The first of several equal inputs is billed if it was fetched for this
/// request. Repetitions count as saved, unless the call itself sent them.
fn note(part: &DistinctVector<'_>, tokens: u64, source_counts: &mut SourceCounts) {
    let asked = u64::from(part.times_asked);
    match part.served.source {
        InputSource::Upstream => {
            // A call with the caller's own bytes repeats equal inputs, and the upstream bills each of them.
            let sent = if part.served.call.as_ref().is_some_and(|call| call.has_repetitions) { asked } else { 1 };
            source_counts.billed += tokens * sent;
            source_counts.saved += tokens * (asked - sent);
        }
        // A mock replaces no paid answer, so it neither costs nor saves tokens.
        InputSource::Mock => {}
        InputSource::Memory
        | InputSource::Disk
        | InputSource::Redis
        | InputSource::Derived
        | InputSource::Joined
        | InputSource::Stale => {
            source_counts.saved += tokens * asked;
        }
    }
}

/// Returns the token sums of calls that carried only inputs of this request, each of them once, none counted yet.
fn sums_of_own_calls(parts: &[DistinctVector<'_>]) -> HashMap<*const CallInfo, u64> {
    // The address identifies a call. The parts keep the call alive, so the address is not reused meanwhile.
    let mut seen: HashMap<*const CallInfo, (usize, &CallInfo)> = HashMap::new();
    // A repeated input needs a count of its own, because usage includes each repetition.
    let uncounted = parts.iter().filter(|part| {
        part.times_asked == 1 && part.served.source == InputSource::Upstream && part.known_tokens.is_none()
    });
    for call in uncounted.filter_map(|part| part.served.call.as_ref()) {
        seen.entry(Arc::as_ptr(call)).or_insert((0, call)).0 += 1;
    }
    // If a call also carried inputs of other requests, its sum does not belong to this request.
    let whole = seen.into_iter().filter(|(_, (count, call))| *count == call.inputs);
    whole.filter_map(|(pointer, (_, call))| Some((pointer, call.prompt_tokens?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Record, Times};
    use crate::learned::ModelIdentity;
    use crate::observe::traces::TraceContext;
    use crate::vector::Vector;

    #[test]
    fn tokens_counted_by_another_request_are_not_added_twice() {
        let info = CallInfo {
            headers: HeaderMap::new(),
            model: None,
            prompt_tokens: Some(10),
            members: Vec::new(),
            inputs: 2,
            has_repetitions: false,
            target: None,
            trace: TraceContext::default(),
        };
        let call = Arc::new(info);
        let served = || {
            let vector = Vector::from_components(&[1.0]).expect("it is a vector");
            let identity = ModelIdentity { model: Arc::from("m"), dimension: 1, revision: 0 };
            let times = Times { created_ms: 0, fresh_until_ms: 1, stale_until_ms: 1 };
            let record = Arc::new(Record::new(vector, identity, times, None));
            Served { record, source: InputSource::Upstream, call: Some(Arc::clone(&call)) }
        };
        let (first, second) = (served(), served());
        let input = Input::Text("two words".into());
        let part = |served| DistinctVector { served, input: &input, times_asked: 1, known_tokens: None };
        let parts = [part(&first), part(&second)];
        first.record.set_tokens(4);
        let mut source_counts = SourceCounts::default();
        assert_eq!(sum_tokens(&parts, &mut source_counts), 10);
        assert_eq!((source_counts.billed, source_counts.saved), (10, 0));
    }
}

//! From the vectors of a request's distinct keys to the answer in the caller's order, with what it cost and saved.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use super::outcome::{Progress, Served};
use super::request::Request;
use super::{Outcome, Source};
use crate::generation::Generation;
use crate::metrics::{self, Metrics, SourceLabel};
use crate::spaces::{Identity, Lessons};
use crate::tiers::Tier;
use crate::upstream::{CallInfo, shown_on_misses};
use crate::vector::Vector;
use crate::wire::{Input, Rendering};

/// A request's vectors, ready to be written.
pub struct Answer {
    /// The body.
    pub rendering: Rendering,
    /// Where it came from.
    pub tally: Tally,
    /// What the call made for this request said about itself.
    pub call_headers: Option<HeaderMap>,
    /// How long the finished body stays true, if it is a full hit.
    pub keep: Option<Keep>,
}

/// What a finished body's truth hangs on.
pub struct Keep {
    /// Until when all of its records are fresh.
    pub fresh_until_ms: u64,
    /// Whose vectors it holds.
    pub identity: Identity,
    /// What is known of their space.
    pub lessons: Arc<Lessons>,
    /// The purges it has seen.
    pub generation: Generation,
}

/// Inputs by source, and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Inputs from memory.
    pub memory: u64,
    /// Inputs from a fetch of another request.
    pub joined: u64,
    /// Inputs from the upstream.
    pub upstream: u64,
    /// Inputs from entries past their time.
    pub stale: u64,
    /// Mocks.
    pub mock: u64,
    /// Tokens that the upstream charged for this request.
    pub billed: u64,
    /// Tokens that it would have charged.
    pub saved: u64,
}

impl Tally {
    /// The tally of a full hit from memory.
    pub fn of_hit(inputs: u64, tokens: u64) -> Self {
        Self { memory: inputs, saved: tokens, ..Self::default() }
    }

    /// The answer in one word: the least trustworthy source decides.
    pub const fn outcome(&self) -> metrics::Outcome {
        let stored = self.memory;
        match self {
            Self { mock: 1.., .. } => metrics::Outcome::Mock,
            Self { stale: 1.., .. } => metrics::Outcome::Stale,
            Self { joined: 0, upstream: 0, .. } => metrics::Outcome::Hit,
            _ if stored > 0 => metrics::Outcome::Partial,
            _ => metrics::Outcome::Miss,
        }
    }

    /// Counts it.
    pub fn count(&self, metrics: &Metrics) {
        for (label, inputs) in self.by_source() {
            if inputs > 0 {
                metrics.inputs(label, inputs);
            }
        }
        metrics.tokens_billed(self.billed);
        metrics.tokens_saved(self.saved);
    }

    /// `x-vecho-sources`: the sources that took part, and how many inputs each gave.
    pub fn sources(&self) -> String {
        let parts = self.by_source().into_iter().filter(|(_, inputs)| *inputs > 0);
        parts.map(|(label, inputs)| format!("{}={inputs}", label.label())).collect::<Vec<_>>().join(", ")
    }

    const fn by_source(&self) -> [(SourceLabel, u64); 5] {
        [
            (SourceLabel::Memory, self.memory),
            (SourceLabel::Joined, self.joined),
            (SourceLabel::Upstream, self.upstream),
            (SourceLabel::Stale, self.stale),
            (SourceLabel::Mock, self.mock),
        ]
    }

    fn add(&mut self, source: Source, inputs: u32) {
        let count = match source {
            Source::Tier(Tier::Memory) => &mut self.memory,
            Source::Joined => &mut self.joined,
            Source::Upstream => &mut self.upstream,
            Source::Stale => &mut self.stale,
            Source::Mock => &mut self.mock,
        };
        *count += u64::from(inputs);
    }
}

/// `x-vecho-tokens`
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "billed={}, saved={}", self.billed, self.saved)
    }
}

/// A distinct key's vector with how often it is asked for.
struct Part<'a> {
    served: &'a Served,
    input: &'a Input<'a>,
    times_asked: u32,
    /// Its tokens as known when this answer began. Another request that waited for the same fetch may count them any
    /// moment, and then they must not be added to a sum that already holds them.
    known_tokens: Option<u32>,
}

impl Request<'_> {
    /// The answer; every key must be served.
    pub(super) fn assemble(&self, progress: &Progress) -> Outcome {
        let multiplicities = self.plan.multiplicities();
        let parts: Vec<Part<'_>> = progress
            .served()
            .zip(&self.plan.firsts)
            .zip(multiplicities)
            .map(|((served, first), times_asked)| {
                let (input, known_tokens) = (&self.ask.request.inputs[*first], served.record.tokens());
                Part { served, input, times_asked, known_tokens }
            })
            .collect();
        debug_assert_eq!(parts.len(), self.plan.keys.len(), "assembling needs every key served");
        let mut tally = Tally::default();
        for part in &parts {
            tally.add(part.served.source, part.times_asked);
        }
        let prompt_tokens = count_tokens(&parts, &mut tally);
        let answer = Answer {
            rendering: self.rendering(&parts, prompt_tokens),
            call_headers: call_headers(&parts),
            keep: (tally.outcome() == metrics::Outcome::Hit).then(|| self.keep(&parts)).flatten(),
            tally,
        };
        Outcome::Answer(Box::new(answer))
    }

    fn rendering(&self, parts: &[Part<'_>], prompt_tokens: u64) -> Rendering {
        let is_mock = |slot: &u32| parts[*slot as usize].served.source == Source::Mock;
        let mocks = self.plan.slots.iter().enumerate().filter(|(_, slot)| is_mock(slot));
        let real = parts.iter().find(|part| part.served.source != Source::Mock).or(parts.first());
        Rendering {
            vectors: parts.iter().map(|part| part.served.record.vector.clone()).collect::<Vec<Vector>>().into(),
            slots: self.plan.slots.clone().into(),
            encoding: self.ask.request.encoding,
            model: real.map_or_else(String::new, |part| part.served.record.identity.model.to_string()),
            prompt_tokens,
            mocks: mocks.map(|(input, _)| u32::try_from(input).unwrap_or(u32::MAX)).collect(),
        }
    }

    fn keep(&self, parts: &[Part<'_>]) -> Option<Keep> {
        let fresh_until_ms = parts.iter().map(|part| part.served.record.times.fresh_until_ms).min()?;
        Some(Keep {
            fresh_until_ms,
            identity: parts.first()?.served.record.identity.clone(),
            lessons: Arc::clone(&self.lessons),
            generation: self.generation,
        })
    }
}

/// The headers of the first call that was made for this request.
fn call_headers(parts: &[Part<'_>]) -> Option<HeaderMap> {
    let own = parts.iter().find(|part| part.served.source == Source::Upstream)?;
    own.served.call_headers().map(shown_on_misses)
}

/// `usage.prompt_tokens`, and in the tally what of it was billed and what saved.
///
/// A call's sum is taken where the whole call was for this request; else each input is counted, once in its life.
fn count_tokens(parts: &[Part<'_>], tally: &mut Tally) -> u64 {
    let sums = sums_of_own_calls(parts);
    let mut total = 0;
    for part in parts {
        let tokens = match part.known_tokens {
            Some(tokens) => u64::from(tokens),
            None if part.served.call.as_ref().is_some_and(|call| sums.contains_key(&Arc::as_ptr(call))) => 0,
            None => count_now(part),
        };
        note(part, tokens, tally);
        total += tokens * u64::from(part.times_asked);
    }
    for sum in sums.values() {
        tally.billed += sum;
        total += sum;
    }
    total
}

fn count_now(part: &Part<'_>) -> u64 {
    let tokens = part.input.counted_tokens();
    part.served.record.set_tokens(tokens);
    u64::from(tokens)
}

/// The first of several equal inputs is billed where a fetch was made for it; its repetitions are always saved.
fn note(part: &Part<'_>, tokens: u64, tally: &mut Tally) {
    let asked = u64::from(part.times_asked);
    match part.served.source {
        Source::Upstream => {
            tally.billed += tokens;
            tally.saved += tokens * (asked - 1);
        }
        Source::Mock => {}
        Source::Tier(_) | Source::Joined | Source::Stale => tally.saved += tokens * asked,
    }
}

/// The token sums of calls whose every input is in this request, once, and not counted yet.
fn sums_of_own_calls(parts: &[Part<'_>]) -> HashMap<*const CallInfo, u64> {
    let mut seen: HashMap<*const CallInfo, (usize, &CallInfo)> = HashMap::new();
    let uncounted = parts
        .iter()
        .filter(|part| part.times_asked == 1 && part.served.source == Source::Upstream && part.known_tokens.is_none());
    for call in uncounted.filter_map(|part| part.served.call.as_ref()) {
        seen.entry(Arc::as_ptr(call)).or_insert((0, call)).0 += 1;
    }
    let whole = seen.into_iter().filter(|(_, (count, call))| *count == call.inputs);
    whole.filter_map(|(pointer, (_, call))| Some((pointer, call.prompt_tokens?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::{Record, Times};

    #[test]
    fn what_another_request_counts_meanwhile_is_not_added_to_a_sum_that_holds_it() {
        let info = CallInfo { headers: HeaderMap::new(), model: None, prompt_tokens: Some(10), inputs: 2 };
        let call = Arc::new(info);
        let served = || {
            let vector = Vector::from_components(&[1.0]).expect("it is a vector");
            let identity = Identity { model: Arc::from("m"), dimension: 1 };
            let times = Times { created_ms: 0, fresh_until_ms: 1, stale_until_ms: 1 };
            let record = Arc::new(Record::new(vector, identity, times, None));
            Served { record, source: Source::Upstream, call: Some(Arc::clone(&call)) }
        };
        let (first, second) = (served(), served());
        let input = Input::Text("two words".into());
        let part = |served| Part { served, input: &input, times_asked: 1, known_tokens: None };
        let parts = [part(&first), part(&second)];
        first.record.set_tokens(4);
        let mut tally = Tally::default();
        assert_eq!(count_tokens(&parts, &mut tally), 10);
        assert_eq!((tally.billed, tally.saved), (10, 0));
    }
}

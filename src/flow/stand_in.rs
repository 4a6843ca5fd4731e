//! What is answered while the upstream is unavailable: a record past its time, then a mock, as far as allowed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Source;
use super::outcome::{Failed, Progress, Served, Slot};
use super::request::Request;
use crate::clock::Spell;
use crate::config::FallbackMode;
use crate::mock;
use crate::spaces::Identity;
use crate::tiers::{Record, Times};
use crate::wire::Input;

/// How long after the last mock or stale entry health still shows them.
const SHOWN_FOR_MS: u64 = 60_000;

/// An upstream that comes and goes is warned of no more often than this.
const QUIET_MS: u64 = 10_000;

/// Whether the upstream is unavailable, as requests have met it, so that an outage is warned of once and not per request.
#[derive(Debug, Default)]
pub struct Outage {
    /// Looked at for each fetch that lands; the lock is not.
    is_on: AtomicBool,
    course: Mutex<Course>,
}

/// What is answered during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Errors,
    Stale,
    Mocks,
}

#[derive(Debug, Default)]
struct Course {
    since_ms: Option<u64>,
    mocks: Shown,
    stale: Shown,
    /// What the log says of the present outage, if anything.
    told: Option<Instead>,
    told_at_ms: Option<u64>,
}

/// When something was answered in place of the upstream's vectors.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// The first time in the present outage.
    since_ms: Option<u64>,
    last_ms: Option<u64>,
}

impl Shown {
    fn note(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
        self.last_ms = Some(now_ms);
    }

    /// Told for a while after the last time, since few requests may come.
    fn spell(&self, now_ms: u64) -> Option<Spell> {
        let last_ms = self.last_ms.filter(|last| now_ms.saturating_sub(*last) < SHOWN_FOR_MS)?;
        Some(self.since_ms.map_or(Spell::Until(last_ms), Spell::Since))
    }
}

impl Outage {
    /// A request met an unavailable upstream.
    fn note(&self, now_ms: u64, cause: &str, instead: Instead) {
        let mut course = self.course();
        self.is_on.store(true, Ordering::Relaxed);
        course.since_ms.get_or_insert(now_ms);
        match instead {
            Instead::Mocks => course.mocks.note(now_ms),
            Instead::Stale => course.stale.note(now_ms),
            Instead::Errors => {}
        }
        let is_news = match course.told {
            None => course.told_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= QUIET_MS),
            // The one thing that has to be said whatever was said before.
            Some(told) => instead == Instead::Mocks && told != Instead::Mocks,
        };
        if is_news {
            (course.told, course.told_at_ms) = (Some(instead), Some(now_ms));
            tracing::warn!(cause, "the upstream is unavailable: {}", instead.in_words());
        }
    }

    /// The upstream answered.
    pub(super) fn end(&self, now_ms: u64) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut course = self.course();
        self.is_on.store(false, Ordering::Relaxed);
        (course.mocks.since_ms, course.stale.since_ms) = (None, None);
        let lasted_ms = course.since_ms.take().map_or(0, |since| now_ms.saturating_sub(since));
        if let Some(told) = course.told.take() {
            let mocks = if told == Instead::Mocks { ": no more mock vectors" } else { "" };
            tracing::info!(lasted_ms, "the upstream answers again{mocks}");
        }
    }

    /// When mocks were served, if one was within the last minute.
    pub fn mocks(&self, now_ms: u64) -> Option<Spell> {
        self.course().mocks.spell(now_ms)
    }

    /// When stale entries were served, if one was within the last minute.
    pub fn stale(&self, now_ms: u64) -> Option<Spell> {
        self.course().stale.spell(now_ms)
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instead {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Errors => "requests fail",
            Self::Stale => "stale entries are being served",
            Self::Mocks => "mock vectors are being served",
        }
    }
}

impl Request<'_> {
    /// Puts something in the place of what could not be fetched, or says which failure is the answer.
    pub(super) async fn stand_in(&self, progress: &mut Progress) -> Result<(), Arc<Failed>> {
        let configured = self.config.fallback.mode;
        let mode = self.ask.controls.fallback.map_or(configured, |asked| asked.min(configured));
        let model = self.stand_in_identity(progress);
        let mut to_mock = Vec::new();
        for place in 0..progress.slots.len() {
            let Slot::Failed(failed) = &progress.slots[place] else {
                continue;
            };
            let stale = progress.stand_ins[place]
                .take()
                .filter(|record| mode >= FallbackMode::Stale && model.as_ref() == Some(&record.identity));
            let may_mock = mode >= FallbackMode::Mock && failed.failure.outage.is_some();
            let instead = match stale {
                Some(_) => Instead::Stale,
                None if may_mock => Instead::Mocks,
                None => Instead::Errors,
            };
            if failed.failure.outage.is_some() {
                self.flow.outage.note(self.now_ms, &failed.failure.detail, instead);
            }
            progress.fallback.get_or_insert_with(|| failed.failure.measure());
            match stale {
                Some(record) => {
                    progress.slots[place] = Slot::Served(Served { record, source: Source::Stale, call: None });
                }
                None if may_mock => to_mock.push(place),
                None => return Err(Arc::clone(failed)),
            }
        }
        self.mock(progress, &to_mock, model).await;
        Ok(())
    }

    /// Whose records may stand in: those of the model that made the vectors at hand, else of the one that would be
    /// asked, else of the first record there is. One answer never mixes two.
    fn stand_in_identity(&self, progress: &Progress) -> Option<Identity> {
        let candidates: Vec<&Identity> = progress.stand_ins.iter().flatten().map(|record| &record.identity).collect();
        let at_hand = progress.served().next().map(|served| served.record.identity.clone());
        let current = || self.lessons.identity().filter(|identity| candidates.contains(&identity));
        at_hand.or_else(current).or_else(|| candidates.first().map(|identity| (*identity).clone()))
    }

    /// Fills these places with mocks. A large request is a second of work: not for the runtime's own threads.
    async fn mock(&self, progress: &mut Progress, places: &[usize], at_hand: Option<Identity>) {
        if places.is_empty() {
            return;
        }
        let model: Arc<str> = Arc::from(self.ask.request.space.model_name());
        let identity = Identity { model: Arc::clone(&model), dimension: self.mock_dimension(at_hand) };
        let input = |place: &usize| self.ask.request.inputs[self.plan.firsts[*place]].to_owned_input();
        let inputs: Vec<Input<'static>> = places.iter().map(input).collect();
        let dimension = identity.dimension;
        let embed =
            move || inputs.iter().map(|input| (mock::vector(&model, dimension, input), tokens(input))).collect();
        let mocks: Vec<_> = tokio::task::spawn_blocking(embed).await.expect("the mock embedder must not panic");
        let times = Times { created_ms: self.now_ms, fresh_until_ms: 0, stale_until_ms: 0 };
        for (place, (vector, tokens)) in places.iter().zip(mocks) {
            let record = Arc::new(Record::new(vector, identity.clone(), times, tokens));
            progress.slots[*place] = Slot::Served(Served { record, source: Source::Mock, call: None });
        }
    }

    /// As long as the real vectors are, as far as that is known.
    fn mock_dimension(&self, at_hand: Option<Identity>) -> usize {
        let space = &self.ask.request.space;
        at_hand
            .or_else(|| self.lessons.identity())
            .map(|identity| identity.dimension)
            .or(space.dimensions.map(|dimensions| dimensions as usize))
            .or_else(|| mock::usual_dimension(space.model_name()))
            .unwrap_or(self.config.fallback.mock_dimensions)
    }
}

/// A guess: nobody is billed for a mock.
fn tokens(input: &Input<'_>) -> Option<u32> {
    u32::try_from(input.estimated_tokens()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_shows_from_the_first_mock_until_a_minute_after_the_last() {
        let outage = Outage::default();
        assert_eq!(outage.mocks(5), None);
        outage.note(900, "down", Instead::Errors);
        assert_eq!(outage.mocks(950), None);
        outage.note(1_000, "down", Instead::Mocks);
        outage.note(50_000, "down", Instead::Mocks);
        assert_eq!(outage.mocks(50_001), Some(Spell::Since(1_000)));
        outage.end(51_000);
        assert_eq!(outage.mocks(60_000), Some(Spell::Until(50_000)));
        assert_eq!(outage.mocks(110_000), None);
        assert_eq!(outage.stale(60_000), None);
        outage.note(120_000, "down", Instead::Stale);
        assert_eq!((outage.stale(120_001), outage.mocks(120_001)), (Some(Spell::Since(120_000)), None));
    }
}

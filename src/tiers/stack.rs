//! The tiers in the order they are asked.

use std::sync::Arc;

use super::{Age, MemoryTier, Record};
use crate::generation::{Generation, Generations};
use crate::key::Key;
use crate::spaces::Lessons;

/// Where a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// This process.
    Memory,
}

impl Tier {
    /// The word for headers, metrics and routes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
        }
    }
}

/// What a look-up of one key found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A record that may be served.
    Fresh(Arc<Record>, Tier),
    /// A record that may only stand in for an upstream that is down.
    StandIn(Arc<Record>),
    /// Nothing of use.
    Missing,
}

/// The terms of a look-up.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// The moment that decides what is fresh.
    pub now_ms: u64,
    /// The oldest record that the caller accepts.
    pub max_age_ms: Option<u64>,
    /// What is known of the space: records of another model than the newest are misses.
    pub lessons: &'a Lessons,
}

/// All tiers.
pub struct Stack {
    memory: MemoryTier,
    generations: Generations,
}

impl Stack {
    /// A stack with the memory tier alone.
    pub fn new(memory: MemoryTier) -> Self {
        Self { memory, generations: Generations::default() }
    }

    /// Looks one key up.
    pub fn look_up(&self, key: &Key, terms: &Lookup<'_>) -> Found {
        self.judge(key, self.memory.get(key), terms)
    }

    /// Looks once more, or out of curiosity: not counted.
    pub fn peek(&self, key: &Key, terms: &Lookup<'_>) -> Found {
        self.judge(key, self.memory.peek(key), terms)
    }

    fn judge(&self, key: &Key, record: Option<Arc<Record>>, terms: &Lookup<'_>) -> Found {
        let Some(record) = record else {
            return Found::Missing;
        };
        match record.times.age(terms.now_ms, terms.max_age_ms) {
            Age::Over => {
                self.memory.records().remove(key);
                Found::Missing
            }
            Age::Fresh if terms.lessons.accepts(&record.identity) => Found::Fresh(record, Tier::Memory),
            Age::Fresh | Age::Stale => Found::StandIn(record),
        }
    }

    /// Keeps a record in every tier, unless a purge since `begun` took its like: what was purged must not come back.
    pub fn fill(&self, key: Key, record: &Arc<Record>, begun: Generation) {
        let is_purged = || self.generations.took(&record.models(), begun);
        if !is_purged() {
            self.memory.put(key, Arc::clone(record));
            // A purge may have passed between the check and the insert; then the record must go again.
            if is_purged() {
                self.memory.records().remove(&key);
            }
        }
    }

    /// The generation that a fill beginning now belongs to.
    pub fn generation(&self) -> Generation {
        self.generations.current()
    }

    /// Forgets everything, or the records of one model, by the upstream's name for it or the askers'; says how many
    /// records went.
    pub fn purge(&self, model: Option<&str>) -> u64 {
        self.generations.next(model);
        let records = self.memory.records();
        if let Some(model) = model {
            return records.remove_where(|record| record.models().contains(&model));
        }
        records.settle();
        let before = records.len();
        records.clear();
        before
    }

    /// The memory tier.
    pub const fn memory(&self) -> &MemoryTier {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::Bounds;
    use crate::key::KeyBuilder;
    use crate::spaces::Identity;
    use crate::tiers::Times;
    use crate::vector::Vector;

    fn stack() -> Stack {
        Stack::new(MemoryTier::new(Bounds { max_bytes: 1 << 20, max_entries: None }))
    }

    fn record(model: &str) -> Arc<Record> {
        let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
        let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
        Arc::new(Record::new(vector, Identity { model: model.into(), dimension: 2 }, times, None))
    }

    fn at(now_ms: u64, lessons: &Lessons) -> Lookup<'_> {
        Lookup { now_ms, max_age_ms: None, lessons }
    }

    #[test]
    fn a_record_of_a_model_that_no_longer_answers_is_a_miss() {
        let (stack, lessons, key) = (stack(), Lessons::default(), KeyBuilder::new(None).finish());
        stack.fill(key, &record("a"), stack.generation());
        assert!(matches!(stack.look_up(&key, &at(1, &lessons)), Found::Fresh(_, Tier::Memory)));
        lessons.learn("b", 2);
        assert!(matches!(stack.look_up(&key, &at(1, &lessons)), Found::StandIn(_)));
    }

    #[test]
    fn an_entry_past_its_stale_time_is_gone() {
        let (stack, lessons, key) = (stack(), Lessons::default(), KeyBuilder::new(None).finish());
        stack.fill(key, &record("a"), stack.generation());
        assert!(matches!(stack.look_up(&key, &at(100, &lessons)), Found::StandIn(_)));
        assert!(matches!(stack.look_up(&key, &at(200, &lessons)), Found::Missing));
        assert!(matches!(stack.look_up(&key, &at(1, &lessons)), Found::Missing), "it was dropped for good");
    }

    #[test]
    fn what_was_fetched_before_a_purge_is_not_kept_after_it() {
        let (stack, lessons, key) = (stack(), Lessons::default(), KeyBuilder::new(None).finish());
        let begun = stack.generation();
        stack.purge(None);
        stack.fill(key, &record("a"), begun);
        assert!(matches!(stack.look_up(&key, &at(1, &lessons)), Found::Missing));
    }

    #[test]
    fn a_purge_of_one_model_lets_the_fetches_of_others_land() {
        let (stack, lessons, root) = (stack(), Lessons::default(), KeyBuilder::new(None).finish());
        let keys: Vec<Key> = (0..3_u8).map(|n| root.extend(crate::key::Tag::Text, &[n])).collect();
        let begun = stack.generation();
        let asked = |model: &str| {
            let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
            let identity = Identity { model: "answering".into(), dimension: 1 };
            let vector = Vector::from_components(&[1.0]).expect("it is a vector");
            Arc::new(Record::new(vector, identity, times, None).asked_as(&model.into()))
        };
        stack.purge(Some("a"));
        for (key, model) in keys.iter().zip(["a", "b", "b"]) {
            stack.fill(*key, &asked(model), begun);
        }
        assert!(matches!(stack.look_up(&keys[0], &at(1, &lessons)), Found::Missing));
        assert!(matches!(stack.look_up(&keys[1], &at(1, &lessons)), Found::Fresh(..)));
        assert_eq!((stack.purge(Some("b")), stack.purge(Some("answering"))), (2, 0));
    }

    #[test]
    fn a_purge_by_model_leaves_the_others() {
        let (stack, lessons, root) = (stack(), Lessons::default(), KeyBuilder::new(None).finish());
        let keys: Vec<Key> = (0..4_u8).map(|n| root.extend(crate::key::Tag::Text, &[n])).collect();
        for (place, key) in keys.iter().enumerate() {
            stack.fill(*key, &record(if place == 3 { "b" } else { "a" }), stack.generation());
        }
        assert_eq!(stack.purge(Some("a")), 3);
        assert!(matches!(stack.look_up(&keys[0], &at(1, &lessons)), Found::Missing));
        assert!(matches!(stack.look_up(&keys[3], &at(1, &lessons)), Found::Fresh(..)));
    }
}

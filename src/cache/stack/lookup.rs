//! Look-ups: memory first, then the tiers below it in order. Found records are promoted to the tiers above.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::tiers::Stack;
use crate::cache::at_rest;
use crate::cache::purges::{Generation, PurgeStamp};
use crate::cache::{Age, AtRest, Leases, LowerTier, Record, Tier};
use crate::key::{Key, Tag};
use crate::learned::SpaceState;
use crate::observe::traces::{TraceContext, attribute};
use crate::process::pace::Pace;
use crate::vector::Vector;
use crate::vector::packed::Codec;

/// Result of the look-up of one key.
#[derive(Clone, Debug)]
pub enum Found {
    /// A record that may be served as fresh.
    Fresh(Arc<Record>, Tier),
    /// A record that may be served stale while the upstream is down.
    Stale(Arc<Record>),
    /// No usable record.
    Missing,
}

impl Found {
    /// Returns true if the record may be served as fresh.
    pub const fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(..))
    }
}

/// Record decoded from a tier below memory.
struct Decoded {
    record: Arc<Record>,
    /// Purge counts that it was stored under.
    counts: PurgeStamp,
    bytes: Bytes,
}

/// Conditions of a look-up.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// Time that decides which records are fresh.
    pub now_ms: u64,
    /// Largest age that the caller accepts.
    pub max_age_ms: Option<u64>,
    /// State of the space. Records of another model than the newest are not served as fresh.
    pub space_state: &'a SpaceState,
    /// Key of the space.
    pub space: Key,
    /// Configured codec. Records that lost more precision than it allows are misses.
    pub codec: Codec,
    /// Trace of the request.
    pub trace: &'a TraceContext,
    /// Leases that the look-up takes of keys that no tier below memory has.
    pub leases: Option<LeaseLookup<'a>>,
}

/// Leases that a look-up takes for the fetch that follows it.
#[derive(Clone, Copy)]
pub struct LeaseLookup<'a> {
    /// The tier that keeps them.
    pub store: &'a dyn Leases,
    /// Usual duration of a call.
    pub call_time: Option<Duration>,
    /// Set if the tier left values unread, because together they exceed memory.
    pub has_unread: &'a AtomicBool,
}

impl Stack {
    /// Looks up one key in memory.
    pub fn look_up(&self, key: &Key, lookup: &Lookup<'_>) -> Found {
        self.judge_remembered(key, self.memory.get(key), lookup)
    }

    /// Looks up one key in memory without counting a hit or a miss.
    pub fn peek(&self, key: &Key, lookup: &Lookup<'_>) -> Found {
        self.judge_remembered(key, self.memory.peek(key), lookup)
    }

    fn judge_remembered(&self, key: &Key, record: Option<Arc<Record>>, lookup: &Lookup<'_>) -> Found {
        let Some(record) = record else {
            return Found::Missing;
        };
        if record.times.age(lookup.now_ms, lookup.max_age_ms) == Age::Over {
            // The map knows no expiry times, so an expired record leaves it when it is found.
            self.memory.records().remove(key);
        }
        judge(record, Tier::Memory, lookup)
    }

    /// Looks up keys in the tiers below memory, in order. Found records are promoted to the tiers above, unless a purge
    /// since `begun` covers them.
    pub async fn look_below(&self, keys: &[Key], lookup: &Lookup<'_>, begun: Generation) -> Vec<Found> {
        self.search(vec![Found::Missing; keys.len()], keys, lookup, Some(begun)).await
    }

    /// Looks up keys in all tiers without promoting records, for inspection.
    pub async fn examine(&self, keys: &[Key], lookup: &Lookup<'_>) -> Vec<Found> {
        let remembered = keys.iter().map(|key| self.peek(key, lookup)).collect();
        self.search(remembered, keys, lookup, None).await
    }

    async fn search(
        &self,
        mut found: Vec<Found>,
        keys: &[Key],
        lookup: &Lookup<'_>,
        move_up_since: Option<Generation>,
    ) -> Vec<Found> {
        // While the model of a space is unknown, all tiers are queried at once: any of them may name the newest.
        let is_new = !self.lower.is_empty() && lookup.space_state.needs_identity_lookup(lookup.now_ms);
        let mut at_once = if is_new { self.query_all(keys, lookup).await } else { Vec::new() };
        let mut pace = Pace::default();
        for (depth, tier) in self.lower.iter().enumerate() {
            // Stale records stay open, because a lower tier may hold a fresh one.
            let open: Vec<usize> = (0..keys.len()).filter(|place| !found[*place].is_fresh()).collect();
            if open.is_empty() {
                break;
            }
            // `query_all` has already queried this tier if the space is new.
            let answers = match at_once.get_mut(depth) {
                Some(answers) => open.iter().map(|place| answers.get_mut(*place)?.take()).collect(),
                None => query(&**tier, (&open.iter().map(|place| keys[*place]).collect::<Vec<Key>>(), 0), lookup).await,
            };
            for (place, bytes) in open.into_iter().zip(answers) {
                let Some(bytes) = bytes else { continue };
                // Decoding checks every number, so that of many records is long work.
                pace.after(bytes.len()).await;
                let Some(decoded) = self.decode(&keys[place], bytes, tier.tier(), lookup) else { continue };
                match judge(Arc::clone(&decoded.record), tier.tier(), lookup) {
                    Found::Missing => continue,
                    // A stale record from a tier further up is kept, because this one is no better.
                    Found::Stale(_) if !matches!(found[place], Found::Missing) => continue,
                    better => found[place] = better,
                }
                if let Some(begun) = move_up_since {
                    self.move_up(keys[place], &decoded, depth, (begun, lookup));
                }
            }
        }
        found
    }

    /// Accepts a value that was read from `tier` along with a lease, and promotes it like one found by a look-up.
    pub fn take_in(&self, tier: Tier, key: Key, bytes: &Bytes, lookup: &Lookup<'_>, begun: Generation) -> Found {
        let Some(decoded) = self.decode(&key, bytes.clone(), tier, lookup) else { return Found::Missing };
        let found = judge(Arc::clone(&decoded.record), tier, lookup);
        let depth = self.lower.iter().position(|lower| lower.tier() == tier);
        if let Some(depth) = depth.filter(|_| !matches!(found, Found::Missing)) {
            self.move_up(key, &decoded, depth, (begun, lookup));
        }
        found
    }

    /// Decodes a record, if it is intact, belongs to `key`, and is not purged.
    fn decode(&self, key: &Key, bytes: Bytes, tier: Tier, lookup: &Lookup<'_>) -> Option<Decoded> {
        let tell = |damage: &_| self.damage.tell(tier, *damage, lookup.now_ms);
        let (record, counts) = self.unpurged(key, &bytes).inspect_err(tell).ok()??;
        Some(Decoded { record: Arc::new(record.known_as(lookup.space_state.identity())), counts, bytes })
    }

    /// Promotes a record found at `depth` to the tiers above, unchanged. Does nothing if memory holds a record that is
    /// as new, which may have been fetched while that tier was queried.
    fn move_up(&self, key: Key, decoded: &Decoded, depth: usize, (begun, lookup): (Generation, &Lookup<'_>)) {
        let Decoded { record, counts, bytes } = decoded;
        let kept = self.memory.peek(&key);
        if kept.as_ref().is_some_and(|kept| kept.times.created_ms >= record.times.created_ms) {
            return;
        }
        // Another replica wrote it after a purge that this process has not learned of yet. It must not be stored on
        // tiers of this process: after its own next purge, a count as high must not be found there.
        let is_ahead = self.purges.stamp(&key, &record.models()).is_behind(counts.at(lookup.now_ms));
        // A purge since the look-up began covers the record, so no tier may keep it.
        if !self.remember(key, record, begun) {
            return;
        }
        // Cached replies of this space may hold the vector that was just replaced.
        if kept.is_some_and(|kept| kept.vector != record.vector) {
            lookup.space_state.note_replacement();
        }
        if !is_ahead {
            let until_ms = record.times.stale_until_ms.max(record.times.fresh_until_ms);
            // The tier that held the record is left out; otherwise each read would cause a write.
            for tier in &self.lower[..depth] {
                tier.put(key, AtRest { bytes: bytes.clone(), until_ms });
            }
        }
    }

    /// Queries all tiers below memory at once, also for the record that names the newest model of the space. The newest
    /// of these records counts, because another replica may have seen a newer model than the local disk.
    async fn query_all(&self, keys: &[Key], lookup: &Lookup<'_>) -> Vec<Vec<Option<Bytes>>> {
        let newest = newest_of(&lookup.space);
        let keys = [keys, &[newest]].concat();
        let are_up = || self.lower.iter().all(|tier| tier.stats().up);
        let were_up = are_up();
        // All tiers are queried concurrently, so this takes as long as the slowest one.
        let mut answers = join_all(self.lower.iter().map(|tier| query(&**tier, (&keys, 1), lookup))).await;
        // The last answer of each tier is its record of the newest model. It does not belong to the keys of the caller.
        let noted = answers.iter_mut().filter_map(|answer| answer.get_mut(keys.len() - 1)?.take());
        let checksum_key = self.checksum_keys.of(&newest);
        let noted = noted.filter_map(|bytes| at_rest::from_bytes(&bytes, &checksum_key).ok());
        if let Some((newest, _)) = noted.max_by_key(|(record, _)| record.times.created_ms) {
            lookup.space_state.recall(&newest.identity);
        }
        // If a tier went down meanwhile, its result is missing, so the space must be queried again later.
        if were_up && are_up() {
            lookup.space_state.note_identity_lookup(lookup.now_ms);
        }
        answers
    }

    /// Returns true if a tier below memory may hold records of another model. A shared tier always may.
    pub fn may_hold_older(&self) -> bool {
        self.lower.iter().any(|tier| tier.is_shared() || tier.stats().entries > 0)
    }

    /// Notes the model of a record below memory as the newest of its space, if another model answered before.
    pub fn note_newest(&self, space: &Key, record: &Arc<Record>, space_state: &SpaceState, begun: Generation) {
        // `must_be_noted` marks the model as noted, so it is called only if a tier takes the note.
        if self.has_lower() && space_state.must_be_noted(&record.identity) {
            self.keep_below(newest_of(space), &Arc::new(note_of(record)), begun);
        }
    }
}

/// Queries a tier within the trace of the request. The `unleased` keys at the end are never fetched.
async fn query(tier: &dyn LowerTier, (keys, unleased): (&[Key], usize), lookup: &Lookup<'_>) -> Vec<Option<Bytes>> {
    let span = lookup.trace.look_up(tier.tier().label(), keys.len());
    let found = match lookup.leases.filter(|leases| leases.store.tier() == tier.tier()) {
        Some(leases) => {
            let looked_up = leases.store.look_up(keys, unleased, leases.call_time).await;
            leases.has_unread.fetch_or(looked_up.has_unread, Ordering::Relaxed);
            looked_up.values
        }
        None => tier.get(keys).await,
    };
    span.count(attribute::FOUND, found.iter().flatten().count());
    found
}

/// Returns a record with the model and the times of `record` and with a constant vector: the vector of a text must not
/// stay here after its input was forgotten.
fn note_of(record: &Record) -> Record {
    let dimension = record.vector.dimension();
    let bytes: Vec<u8> = 1_f32.to_le_bytes().repeat(dimension);
    let vector = Vector::from_le_bytes(&bytes).expect("ones must be a vector");
    let [_, asked_model] = record.models();
    Record::new(vector, record.identity.clone(), record.times, None).asked_as(&Arc::from(asked_model))
}

/// Returns the key of the note of a space's newest model, stored once another model has begun to answer. With it, a
/// process that has just started knows which of the records it finds are from an older model. Older records expire and
/// are evicted first, so this note outlives them.
pub(super) fn newest_of(space: &Key) -> Key {
    space.extend(Tag::Control, b"newest")
}

fn judge(record: Arc<Record>, tier: Tier, lookup: &Lookup<'_>) -> Found {
    // An earlier configuration or another replica may have stored the record in a form that loses more.
    if !lookup.codec.accepts(record.vector.form()) {
        return Found::Missing;
    }
    match record.times.age(lookup.now_ms, lookup.max_age_ms) {
        Age::Over => Found::Missing,
        Age::Fresh if lookup.space_state.accepts(&record.identity) => Found::Fresh(record, tier),
        Age::Fresh => {
            // A record of another model than the newest is no hit, but may serve while the upstream is down.
            lookup.space_state.note_older_record();
            Found::Stale(record)
        }
        Age::Stale => Found::Stale(record),
    }
}

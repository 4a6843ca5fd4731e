//! Tests of the ledger: all replicas learn every purge, whatever the order of events.

use proptest::prelude::*;

use super::*;
use crate::cache::purges::{PurgeStamp, SavedPurges};

/// A process with memory, a ledger, and a disk on which its purges are recorded.
struct Replica {
    purges: Arc<PurgeRegistry>,
    ledger: Ledger,
    noted: SavedPurges,
    /// Times at which the records in its memory were fetched.
    memory: Vec<usize>,
}

/// A record below memory: the time it was fetched, and its count.
struct Stored {
    at: usize,
    counts: PurgeStamp,
}

/// The key of all records.
const KEY: Key = Key::from_bytes([7; 32]);
/// Time of all events.
const NOW_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    Purge(usize),
    /// It forgets the key.
    Forget(usize),
    Fetch(usize),
    /// It reads the shared counts and changes them.
    Agree(usize),
    /// As `Agree`, with a purge by the same process in between.
    AgreeWhilePurging(usize),
    /// It reads the shared counts and changes them, and stops before it gets the response.
    GiveUp(usize),
    /// It may read the counts but not change them.
    LookOnly(usize),
    /// It restarts.
    Restart(usize),
    /// It changes the shared counts, and restarts before it has recorded that.
    AgreeAndRestart(usize),
}

impl Replica {
    fn new() -> Self {
        let purges = Arc::<PurgeRegistry>::default();
        Self { ledger: Ledger::new(Arc::clone(&purges)), purges, noted: SavedPurges::default(), memory: Vec::new() }
    }

    fn purge(&mut self) {
        let name = self.purges.raise(None, 0);
        self.tell(&PurgeSubject::counted_as(&name));
    }

    fn forget(&mut self) {
        self.purges.forgotten().raise(&[KEY], NOW_MS + 100);
        self.tell(&PurgeSubject::of_inputs(&[KEY]));
    }

    fn counts(&self) -> PurgeStamp {
        self.purges.stamp(&KEY, &["m"])
    }

    fn tell(&mut self, subject: &PurgeSubject) {
        self.ledger.add_unsent(subject);
        self.noted = self.purges.to_save();
        self.memory.clear();
    }

    fn restart(&mut self) {
        let noted = std::mem::take(&mut self.noted);
        *self = Self::new();
        self.purges.learn_all(&noted.counts, &noted.forgotten);
        self.purges.add_saved(&noted.unsent);
        self.noted = noted;
    }

    /// Makes a plan and records everything that would be learned from it.
    fn planned(&mut self, hash: &BTreeMap<String, String>) -> PurgePlan {
        let plan = self.ledger.plan(hash, NOW_MS);
        if self.misses(&plan.news()) {
            self.purges.expect(&plan.news().counts);
            self.purges.forgotten().expect(&plan.news().forgotten);
            self.noted = self.purges.to_save();
        }
        plan
    }

    fn misses(&self, news: &PurgeNews) -> bool {
        let keys = self.purges.forgotten().missed(&news.forgotten);
        !keys.is_empty() || !self.purges.missed(&news.counts).is_empty()
    }

    fn give_up(&mut self, hash: &mut BTreeMap<String, String>) {
        let plan = self.planned(hash);
        hash.extend(plan.changes.iter().map(|change| (change.field.clone(), change.to.clone())));
    }

    fn agree(&mut self, hash: &mut BTreeMap<String, String>, may_change: bool, purges_meanwhile: bool) {
        let plan = self.planned(hash);
        if purges_meanwhile {
            self.purge();
        }
        if may_change {
            hash.extend(plan.changes.iter().map(|change| (change.field.clone(), change.to.clone())));
        }
        let is_sent = may_change || plan.changes.is_empty();
        let (news, sent) = self.ledger.end(plan, is_sent);
        if self.misses(&news) {
            self.memory.clear();
        }
        self.purges.learn_all(&news.counts, &news.forgotten);
        self.ledger.mark_sent(&sent);
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..3_usize, 0..9_u8).prop_map(|(who, what)| match what {
        0 => Event::Purge(who),
        1 => Event::Fetch(who),
        2 => Event::Agree(who),
        3 => Event::AgreeWhilePurging(who),
        4 => Event::LookOnly(who),
        5 => Event::Restart(who),
        6 => Event::GiveUp(who),
        7 => Event::Forget(who),
        _ => Event::AgreeAndRestart(who),
    });
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn purged_records_are_gone_once_all_replicas_know_the_purge(events in events()) {
        let mut replicas = [Replica::new(), Replica::new(), Replica::new()];
        let (mut hash, mut stored, mut last_purge) = (BTreeMap::new(), Vec::<Stored>::new(), None);
        for (at, event) in events.into_iter().enumerate() {
            match event {
                Event::Purge(who) => {
                    replicas[who].purge();
                    last_purge = Some(at);
                }
                Event::Forget(who) => {
                    replicas[who].forget();
                    last_purge = Some(at);
                }
                Event::Fetch(who) => {
                    stored.push(Stored { at, counts: replicas[who].counts() });
                    replicas[who].memory.push(at);
                }
                Event::Agree(who) => {
                    replicas[who].agree(&mut hash, true, false);
                    replicas[who].noted = replicas[who].purges.to_save();
                }
                Event::Restart(who) => replicas[who].restart(),
                Event::AgreeAndRestart(who) => {
                    replicas[who].agree(&mut hash, true, false);
                    replicas[who].restart();
                }
                Event::AgreeWhilePurging(who) => {
                    replicas[who].agree(&mut hash, true, true);
                    last_purge = Some(at);
                }
                Event::GiveUp(who) => replicas[who].give_up(&mut hash),
                Event::LookOnly(who) => replicas[who].agree(&mut hash, false, false),
            }
        }
        for _ in 0..2 {
            for replica in &mut replicas {
                replica.agree(&mut hash, true, false);
            }
        }
        for replica in &replicas {
            prop_assert!(replica.ledger.is_settled());
            let now = replica.counts();
            for stored in stored.iter().filter(|stored| last_purge.is_some_and(|purge| stored.at < purge)) {
                prop_assert!(stored.counts.is_behind(now), "stored at {} under {:?}, now {now:?}", stored.at, stored.counts);
            }
            for at in &replica.memory {
                prop_assert!(last_purge.is_none_or(|purge| *at > purge), "in memory since {at}");
            }
        }
    }
}

#[test]
fn one_purge_is_one_change_and_all_replicas_agree_on_the_count() {
    let (mut one, mut other, mut hash) = (Replica::new(), Replica::new(), BTreeMap::new());
    one.agree(&mut hash, true, false);
    other.agree(&mut hash, true, false);
    assert!(hash.is_empty(), "nothing happened");
    one.purge();
    one.agree(&mut hash, true, false);
    other.memory.push(0);
    other.agree(&mut hash, true, false);
    assert_eq!((one.purges.of(&["m"]), other.purges.of(&["m"])), (1, 1));
    assert!(other.memory.is_empty());
    assert_eq!(hash, BTreeMap::from([(ALL_FIELD.to_owned(), "1".to_owned())]));
}

#[test]
fn a_lost_hash_is_restored_without_purging_any_replica() {
    let (mut one, mut other, mut hash) = (Replica::new(), Replica::new(), BTreeMap::new());
    one.agree(&mut hash, true, false);
    one.purge();
    for replica in [&mut one, &mut other] {
        replica.agree(&mut hash, true, false);
        replica.memory.push(1);
    }
    hash.clear();
    for replica in [&mut one, &mut other] {
        replica.agree(&mut hash, true, false);
        assert_eq!(replica.memory, [1]);
    }
    assert_eq!(hash[ALL_FIELD], "1");
}

#[test]
fn unknown_fields_of_the_hash_are_left_unchanged() {
    let ledger = Ledger::new(Arc::default());
    let hash = BTreeMap::from([("of a later version".to_owned(), "7".to_owned())]);
    assert!(ledger.plan(&hash, NOW_MS).changes.is_empty());
    ledger.add_unsent(&PurgeSubject::of_model(Some("m")));
    let hash = BTreeMap::from([("model:m".to_owned(), "rubbish".to_owned())]);
    let change = Change { field: "model:m".to_owned(), from: "rubbish".to_owned(), to: "1".to_owned() };
    assert_eq!(ledger.plan(&hash, NOW_MS).changes, [change]);
}

#[test]
fn a_count_at_the_integer_maximum_is_replaced_by_the_first_purge() {
    let (mut replica, largest) = (Replica::new(), u64::MAX.to_string());
    let mut hash = BTreeMap::from([(ALL_FIELD.to_owned(), largest.clone()), (CLEARED_FIELD.to_owned(), largest)]);
    replica.agree(&mut hash, true, false);
    assert_eq!(replica.purges.of(&["m"]), 0);
    replica.purge();
    replica.agree(&mut hash, true, false);
    assert_eq!((replica.purges.of(&["m"]), hash[ALL_FIELD].as_str()), (1, "1"));
}

#[test]
fn a_model_without_a_name_does_not_hide_a_purge_of_everything() {
    let mut hash = BTreeMap::from([(ALL_FIELD.to_owned(), "5".to_owned()), (MODEL_FIELD.to_owned(), "1".to_owned())]);
    let mut replica = Replica::new();
    replica.agree(&mut hash, true, false);
    assert_eq!(replica.purges.of(&["m"]), 5);
}

#[test]
fn a_forget_is_told_to_all_replicas_and_dropped_once_it_is_over() {
    let (mut one, mut other, mut hash) = (Replica::new(), Replica::new(), BTreeMap::new());
    for replica in [&mut one, &mut other] {
        replica.agree(&mut hash, true, false);
    }
    one.forget();
    one.agree(&mut hash, true, false);
    other.memory.push(0);
    other.agree(&mut hash, true, false);
    assert!(other.memory.is_empty());
    assert_eq!((one.counts(), other.counts()), (PurgeStamp { models: 0, input: NOW_MS + 100 }, one.counts()));
    let field = format!("input:{KEY}");
    assert_eq!(hash, BTreeMap::from([(field.clone(), (NOW_MS + 100).to_string())]));
    for replica in [&one, &other] {
        let over = replica.ledger.plan(&hash, NOW_MS + 100);
        let removal = Change { field: field.clone(), from: hash[&field].clone(), to: String::new() };
        assert_eq!((over.changes, replica.counts().input), (vec![removal], 0));
    }
}

//! The list of purges that replicas share in Redis: any content is processed, and every purge takes effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::{FromRedisValue as _, parse_redis_value};
use vecho::cache::purges::{EVERYTHING, MAX_COUNT, PurgeRegistry, PurgeSubject};
use vecho::cache::redis::{Ledger, PurgePlan};
use vecho::key::Key;

/// Models whose purges are checked. One of them is likely to be in the list.
const MODELS: [&str; 2] = ["m", "text-embedding-3-small"];

/// The fields of the whole tier and of a model in the list.
const FIELDS: [&str; 3] = ["everything", "cleared", "model:m"];

/// A key that is forgotten.
const KEY: Key = Key::from_bytes([7; 32]);

/// Time of all checks.
const NOW_MS: u64 = 1_000;

type List = BTreeMap<String, String>;

/// Checks bytes as the reply to `HGETALL`, or as lines of fields and counts.
pub(crate) fn check(bytes: &[u8]) {
    let mut list = as_reply(bytes).unwrap_or_else(|| as_lines(bytes));
    if list.values().filter_map(|count| count.parse::<u64>().ok()).any(|count| MAX_COUNT.abs_diff(count) < 100) {
        // At the maximum, the counts cannot be raised any further.
        return;
    }
    let purges = Arc::new(PurgeRegistry::default());
    let ledger = Ledger::new(Arc::clone(&purges));
    agree(&ledger, &purges, &mut list);
    for name in MODELS.map(Some).into_iter().chain([None]) {
        let (before, listed) = (purges.of(&MODELS), list.clone());
        ledger.add_unsent(&PurgeSubject::counted_as(&purges.raise(name, 0)));
        agree(&ledger, &purges, &mut list);
        assert!(purges.of(&MODELS) > before, "a purge of {name:?} has no effect");
        assert_ne!(list, listed, "a purge of {name:?} is not told");
        assert!(ledger.is_settled());
        as_heard_by_another(&list, &purges);
    }
    let before = purges.forgotten().of(&KEY);
    purges.forgotten().raise(&[KEY], NOW_MS + 1);
    ledger.add_unsent(&PurgeSubject::of_inputs(&[KEY]));
    agree(&ledger, &purges, &mut list);
    assert!(purges.forgotten().of(&KEY) > before && ledger.is_settled());
    as_heard_by_another(&list, &purges);
}

/// Checks that a process that starts now gets the same purge counts.
fn as_heard_by_another(list: &List, purges: &PurgeRegistry) {
    let others = Arc::new(PurgeRegistry::default());
    agree(&Ledger::new(Arc::clone(&others)), &others, &mut list.clone());
    for names in [&[EVERYTHING][..], &MODELS[..1], &MODELS[1..]] {
        assert_eq!(others.of(names), purges.of(names), "{names:?} in {list:?}");
    }
    assert_eq!(others.forgotten().all(), purges.forgotten().all(), "{list:?}");
}

/// Reads the list once and applies the resulting plan, as a process does.
fn agree(ledger: &Ledger, purges: &PurgeRegistry, list: &mut List) {
    let before = purges.of(&MODELS);
    let plan = ledger.plan(list, NOW_MS);
    changes(&plan, list);
    let (news, told) = ledger.end(plan, true);
    purges.learn_all(&news.counts, &news.forgotten);
    ledger.mark_sent(&told);
    assert!(purges.of(&MODELS) >= before, "a purge came undone");
    assert_eq!(purges.missed(&news.counts), [""; 0]);
    assert_eq!(ledger.plan(list, NOW_MS).changes, [], "one look is enough");
}

/// Applies the changes, which never lower a count.
fn changes(plan: &PurgePlan, list: &mut List) {
    for change in &plan.changes {
        let is_input = change.field.starts_with("input:");
        let is_known = FIELDS.contains(&change.field.as_str()) || change.field.starts_with("model:") || is_input;
        assert!(is_known, "{change:?}");
        assert_eq!(change.from, list.get(&change.field).cloned().unwrap_or_default());
        if is_input && change.to.is_empty() {
            list.remove(&change.field);
            continue;
        }
        assert!(change.to.parse::<u64>().is_ok());
        list.insert(change.field.clone(), change.to.clone());
    }
}

fn as_reply(bytes: &[u8]) -> Option<List> {
    List::from_redis_value(parse_redis_value(bytes).ok()?).ok()
}

fn as_lines(bytes: &[u8]) -> List {
    let text = String::from_utf8_lossy(bytes);
    let fields = text.lines().filter_map(|line| line.split_once('='));
    fields.map(|(field, count)| (field.to_owned(), count.to_owned())).collect()
}

//! Tests of the governor with simulated memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::action::{Action, GovernorAction};
use super::keeper::*;
use crate::process::clock::Clock;
use crate::process::system::Optimized;

const MB: u64 = 1024 * 1024;
const LIMIT: u64 = 100 * MB;

/// Simulated memory in three parts: other use, freed but held by the allocator, and cached.
#[derive(Default)]
struct SimulatedMemory {
    fixed: AtomicU64,
    freed: AtomicU64,
    cached: AtomicU64,
    given_back: AtomicUsize,
    looks: AtomicUsize,
}

impl Meter for SimulatedMemory {
    fn resident_bytes(&self) -> u64 {
        self.looks.fetch_add(1, SeqCst);
        self.fixed.load(SeqCst) + self.freed.load(SeqCst) + self.cached.load(SeqCst)
    }

    fn give_back(&self) {
        self.given_back.fetch_add(1, SeqCst);
        self.freed.store(0, SeqCst);
    }
}

/// A cache that leaves freed bytes with the allocator until they are returned.
struct SimulatedPart {
    name: &'static str,
    bytes: AtomicU64,
    memory: Arc<SimulatedMemory>,
}

impl Shrink for SimulatedPart {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    fn shrink(&self, bytes: u64) -> u64 {
        let freed = bytes.min(self.bytes());
        self.bytes.fetch_sub(freed, SeqCst);
        self.memory.cached.fetch_sub(freed, SeqCst);
        self.memory.freed.fetch_add(freed, SeqCst);
        freed
    }
}

struct Bench {
    memory: Arc<SimulatedMemory>,
    cheap: Arc<SimulatedPart>,
    dear: Arc<SimulatedPart>,
    governor: Arc<Governor>,
}

impl Bench {
    /// Creates the bench. Sizes are in MB.
    fn new(fixed: u64, freed: u64, cheap: u64, dear: u64) -> Self {
        let memory = Arc::new(SimulatedMemory::default());
        memory.fixed.store(fixed * MB, SeqCst);
        memory.freed.store(freed * MB, SeqCst);
        let (cheap, dear) = (part("cheap", cheap, &memory), part("dear", dear, &memory));
        let parts: Vec<Arc<dyn Shrink>> = vec![Arc::<SimulatedPart>::clone(&cheap), Arc::<SimulatedPart>::clone(&dear)];
        let meter: Arc<dyn Meter> = Arc::<SimulatedMemory>::clone(&memory);
        let governor = Arc::new(Governor::new(meter, LIMIT, parts).with_clock(Clock::manual(7)));
        Self { memory, cheap, dear, governor }
    }

    fn kinds(&self) -> Vec<GovernorAction> {
        self.governor.status().actions.iter().map(|action| action.kind).collect()
    }

    fn grow(&self, mb: u64) {
        self.memory.fixed.fetch_add(mb * MB, SeqCst);
    }

    fn refill(&self, part: &SimulatedPart, mb: u64) {
        part.bytes.fetch_add(mb * MB, SeqCst);
        self.memory.cached.fetch_add(mb * MB, SeqCst);
    }
}

fn part(name: &'static str, mb: u64, memory: &Arc<SimulatedMemory>) -> Arc<SimulatedPart> {
    memory.cached.fetch_add(mb * MB, SeqCst);
    Arc::new(SimulatedPart { name, bytes: AtomicU64::new(mb * MB), memory: Arc::clone(memory) })
}

#[test]
fn nothing_is_freed_below_the_mark() {
    let bench = Bench::new(40, 0, 20, 20);
    bench.governor.check();
    bench.governor.check();
    assert_eq!(bench.kinds(), []);
    assert_eq!((bench.cheap.bytes(), bench.dear.bytes()), (20 * MB, 20 * MB));
    assert_eq!(bench.memory.given_back.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn checks_are_four_times_as_frequent_near_the_limit() {
    let looks = async |fixed| {
        let bench = Bench::new(fixed, 0, 0, 0);
        let governing = Arc::clone(&bench.governor).run(Duration::from_secs(1));
        assert!(tokio::time::timeout(Duration::from_millis(9_900), governing).await.is_err());
        bench.memory.looks.load(SeqCst)
    };
    assert_eq!((looks(75).await, looks(76).await), (10, 40));
}

#[tokio::test(start_paused = true)]
async fn a_requested_check_and_its_follow_ups_run_before_the_next_regular_one() {
    let bench = Bench::new(40, 0, 0, 0);
    bench.governor.look_soon();
    let governing = Arc::clone(&bench.governor).run(Duration::from_hours(1));
    assert!(tokio::time::timeout(Duration::from_mins(1), governing).await.is_err());
    assert_eq!(bench.memory.looks.load(SeqCst), 1 + 20);
}

#[tokio::test(start_paused = true)]
async fn requested_checks_never_make_checks_less_frequent() {
    for (fixed, check_every, within, looks) in [(76, 1_000, 990, 20), (40, 10, 95, 10)] {
        let bench = Bench::new(fixed, 0, 0, 0);
        bench.governor.look_soon();
        let governing = Arc::clone(&bench.governor).run(Duration::from_millis(check_every));
        assert!(tokio::time::timeout(Duration::from_millis(within), governing).await.is_err());
        assert_eq!(bench.memory.looks.load(SeqCst), looks, "every {check_every} ms at {fixed} MB");
    }
}

#[test]
fn caches_keep_their_entries_if_trimming_frees_enough() {
    let bench = Bench::new(40, 40, 10, 10);
    bench.governor.check();
    let expected = Action { at_ms: 7, kind: GovernorAction::Trim, resident_before: 100 * MB, resident_after: 60 * MB };
    assert_eq!(bench.governor.status().actions, [expected]);
    assert_eq!(bench.cheap.bytes() + bench.dear.bytes(), 20 * MB);
}

#[test]
fn caches_shrink_in_order_down_to_the_lower_mark() {
    let bench = Bench::new(60, 0, 10, 20);
    bench.governor.check();
    assert_eq!(bench.kinds(), [GovernorAction::Trim, GovernorAction::Shrink]);
    assert_eq!((bench.cheap.bytes(), bench.dear.bytes()), (0, 15 * MB), "the cheap one goes first, the dear one pays");
    assert_eq!(bench.governor.status().resident_bytes, 75 * MB);
}

#[test]
fn freed_memory_counts_only_once_it_is_returned_to_the_system() {
    let bench = Bench::new(60, 0, 30, 0);
    bench.governor.check();
    let last = *bench.governor.status().actions.last().expect("something was done");
    assert_eq!((last.resident_before, last.resident_after), (90 * MB, 75 * MB));
    assert_eq!(bench.memory.freed.load(SeqCst), 0);
}

#[test]
fn trimming_between_the_marks_is_tried_once_until_memory_changes() {
    let bench = Bench::new(82, 0, 0, 0);
    for _ in 0..10 {
        bench.governor.check();
    }
    assert_eq!(bench.kinds(), [GovernorAction::Trim], "no storm");
    bench.grow(3);
    bench.governor.check();
    assert_eq!(bench.kinds().len(), 2, "growth makes another try worth it");
    for mb in [76, 82] {
        bench.memory.fixed.store(mb * MB, SeqCst);
        bench.governor.check();
    }
    assert_eq!(bench.kinds().len(), 2, "the episode is not over above the lower mark");
    bench.memory.fixed.store(70 * MB, SeqCst);
    bench.governor.check();
    bench.memory.fixed.store(82 * MB, SeqCst);
    bench.governor.check();
    assert_eq!(bench.kinds().len(), 3, "a new episode has its own try");
}

#[test]
fn a_cache_that_fills_again_shrinks_again() {
    let bench = Bench::new(60, 0, 30, 0);
    bench.governor.check();
    bench.refill(&bench.cheap, 15);
    bench.governor.check();
    assert_eq!(bench.governor.status().resident_bytes, 75 * MB);
}

#[test]
fn empty_caches_are_reported_once_and_not_shrunk_again() {
    let bench = Bench::new(95, 0, 10, 0);
    for _ in 0..10 {
        bench.governor.check();
    }
    assert_eq!(bench.kinds(), [GovernorAction::Trim, GovernorAction::Shrink]);
    assert_eq!(*lock(&bench.governor.turn), MemoryEpisode::Helpless { left_bytes: 95 * MB, checks: 9 });
    bench.refill(&bench.cheap, 3);
    bench.governor.check();
    assert_eq!(bench.cheap.bytes(), 0, "what fills again still shrinks again");
    bench.memory.fixed.fetch_sub(3 * MB, SeqCst);
    bench.refill(&bench.cheap, 3);
    bench.governor.check();
    assert_eq!(bench.cheap.bytes(), 0, "also where the process has not grown");
}

#[test]
fn memory_freed_by_requests_is_returned_although_caches_are_empty() {
    let bench = Bench::new(95, 0, 0, 0);
    bench.governor.check();
    // Requests end, and the allocator keeps the memory that they freed.
    bench.memory.fixed.store(40 * MB, SeqCst);
    bench.memory.freed.store(55 * MB, SeqCst);
    for _ in 0..=CHECKS_BETWEEN_TRIES {
        bench.governor.check();
    }
    assert_eq!(bench.governor.status().resident_bytes, 40 * MB);
}

#[test]
fn caches_shrink_as_far_as_possible_for_a_large_request() {
    let bench = Bench::new(20, 5, 10, 40);
    bench.governor.relieve_to_limit(25 * MB);
    assert_eq!(bench.memory.resident_bytes(), 75 * MB, "there is room below the limit");
    bench.governor.relieve_to_limit(30 * MB);
    assert_eq!(bench.memory.resident_bytes(), 70 * MB);
    bench.governor.relieve(30 * MB);
    assert_eq!(bench.memory.resident_bytes(), 55 * MB);
    bench.governor.relieve(80 * MB);
    assert_eq!((bench.cheap.bytes(), bench.dear.bytes()), (0, 0), "all there is");
}

#[test]
fn the_status_reports_memory_over_the_limit() {
    let bench = Bench::new(101, 0, 0, 0);
    bench.governor.check();
    let status = bench.governor.status();
    assert_eq!((status.limit_bytes, status.resident_bytes, status.over), (LIMIT, 101 * MB, true));
    bench.memory.fixed.store(50 * MB, SeqCst);
    bench.governor.check();
    assert!(!bench.governor.status().over);
}

#[test]
fn only_the_latest_actions_are_kept() {
    let bench = Bench::new(82, 0, 0, 0);
    for _ in 0..100 {
        bench.memory.fixed.store(82 * MB, SeqCst);
        bench.governor.check();
        bench.memory.fixed.store(50 * MB, SeqCst);
        bench.governor.check();
    }
    assert_eq!(bench.kinds().len(), MAX_ACTIONS);
}

#[test]
fn optimizing_to_a_target_already_met_changes_nothing() {
    let bench = Bench::new(30, 10, 10, 0);
    let done = bench.governor.optimize_now(Some(60));
    let expected = Optimized { target_memory_mb: 60, current_memory_mb: 50.0, ..Optimized::default() };
    assert_eq!(done, expected);
    assert_eq!(bench.memory.given_back.load(SeqCst), 0);
}

#[test]
fn optimizing_trims_first_and_shrinks_caches_only_if_needed() {
    let bench = Bench::new(30, 10, 10, 10);
    let enough = bench.governor.optimize_now(Some(50));
    assert_eq!(enough.actions_taken, ["gave back 10.0 MB of freed memory"]);
    assert_eq!((enough.current_memory_mb, enough.memory_saved_mb), (60.0, 10.0));

    let shrunk = bench.governor.optimize_now(Some(35));
    assert!(shrunk.optimization_needed);
    assert_eq!(
        shrunk.actions_taken,
        ["gave back 0.0 MB of freed memory", "cheap released 10.0 MB", "dear released 5.0 MB"]
    );
    assert_eq!((shrunk.current_memory_mb, shrunk.memory_saved_mb), (50.0, 15.0));
}

#[test]
fn an_unreachable_target_is_reported_with_the_measured_memory() {
    let bench = Bench::new(30, 0, 10, 0);
    let done = bench.governor.optimize_now(Some(1));
    assert_eq!(done.actions_taken.last().map(String::as_str), Some("nothing more can be released at once"));
    assert!((done.memory_saved_mb - 10.0).abs() < 1e-9, "{done:?}");
}

#[test]
fn savings_are_never_negative_if_memory_grew() {
    struct GrowingMemory(AtomicU64);
    impl Meter for GrowingMemory {
        fn resident_bytes(&self) -> u64 {
            self.0.fetch_add(MB, SeqCst)
        }
        fn give_back(&self) {}
    }
    let governor = Governor::new(Arc::new(GrowingMemory(AtomicU64::new(90 * MB))), LIMIT, Vec::new());
    let done = governor.optimize_now(None);
    assert!(done.memory_saved_mb.abs() < 1e-9, "{done:?}");
}

#[tokio::test]
async fn optimizing_without_a_target_aims_at_the_lower_mark() {
    let bench = Bench::new(60, 0, 30, 0);
    let done = bench.governor.optimize(None).await;
    assert_eq!((done.target_memory_mb, done.memory_saved_mb), (75, 15.0));
}

#[test]
fn a_request_to_reduce_memory_is_reported_with_the_actions_that_it_needs() {
    #[derive(Default)]
    struct Reported(std::sync::Mutex<Vec<GovernorAction>>);
    impl GovernorHooks for Reported {
        fn acted(&self, kind: GovernorAction) {
            self.0.lock().expect("the lock must hold").push(kind);
        }
    }
    let (reported, meter) = (Arc::new(Reported::default()), Arc::new(SimulatedMemory::default()));
    meter.fixed.store(90 * MB, SeqCst);
    let governor = Governor::new(meter, LIMIT, Vec::new()).with_hooks(Arc::<Reported>::clone(&reported));
    governor.optimize_now(Some(95));
    governor.optimize_now(Some(80));
    let expected = [GovernorAction::Optimize, GovernorAction::Optimize, GovernorAction::Trim, GovernorAction::Shrink];
    assert_eq!(*reported.0.lock().expect("the lock must hold"), expected);
}

#[test]
fn a_lower_container_limit_takes_precedence() {
    assert_eq!(effective_limit(500, None), 500);
    assert_eq!(effective_limit(500, Some(1000)), 500);
    assert_eq!(effective_limit(500, Some(300)), 270);
}

#[test]
fn memory_is_freed_for_a_request_or_refused_without_eviction() {
    let bench = Bench::new(20, 5, 10, 40);
    assert!(bench.governor.make_room(10 * MB), "there is room");
    assert_eq!((bench.memory.given_back.load(SeqCst), bench.cheap.bytes(), bench.dear.bytes()), (0, 10 * MB, 40 * MB));
    assert!(bench.governor.make_room(30 * MB));
    assert_eq!(bench.memory.resident_bytes(), 55 * MB);
    assert_eq!((bench.cheap.bytes(), bench.dear.bytes()), (0, 35 * MB), "what costs least went first");
    assert!(!bench.governor.make_room(66 * MB));
    assert_eq!(bench.dear.bytes(), 35 * MB, "what would not help is not done");
}

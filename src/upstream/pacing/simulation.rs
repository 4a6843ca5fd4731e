//! Simulation of many replicas that share one limit: how much of it they use, how fairly, and what it costs Redis.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::SetLimits;
use super::replicas::field;
use super::state::PaceState;
use super::turn_order::{TurnOrder, TurnWish};
use crate::key::Key;
use crate::process::shared_fields::ReplicaFields;

const REPLICAS: usize = 100;
/// The limit of all together, in calls a second.
const LIMIT: usize = 1_000;
const STEP: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// One replica: its pacer, and the calls that it would make.
struct Replica {
    name: String,
    state: PaceState,
    waiting: usize,
    made: usize,
    exchanges_at: Instant,
}

/// All replicas with the store between them.
struct World {
    now: Instant,
    replicas: Vec<Replica>,
    store: ReplicaFields,
    exchanges: usize,
    is_redis_gone: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let limits = SetLimits { requests_per_minute: Some(LIMIT as u64 * 60), ..SetLimits::default() };
        let replica = |number: u32| Replica {
            name: format!("{number:03}"),
            state: PaceState::new(&limits, false, now),
            waiting: 0,
            made: 0,
            // Replicas do not begin together.
            exchanges_at: now + number * SECOND / 100,
        };
        let replicas = (0..).take(REPLICAS).map(replica).collect();
        Self { now, replicas, store: ReplicaFields::new(), exchanges: 0, is_redis_gone: false }
    }

    /// Runs for some seconds. `arriving` is the number of new calls of each replica in each step; a replica has at most
    /// fifty that wait. Returns the calls that each has made.
    fn run(&mut self, seconds: u32, arriving: impl Fn(usize) -> usize) -> Vec<usize> {
        self.replicas.iter_mut().for_each(|replica| replica.made = 0);
        let end = self.now + seconds * SECOND;
        while self.now < end {
            for (number, replica) in self.replicas.iter_mut().enumerate() {
                replica.arrive(arriving(number), self.now);
                replica.make_calls(self.now);
            }
            self.exchange();
            self.now += STEP;
        }
        self.replicas.iter().map(|replica| replica.made).collect()
    }

    fn exchange(&mut self) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.exchanges_at <= self.now) {
            replica.exchanges_at += SECOND;
            if !replica.state.demand.is_active(10 * SECOND, self.now) {
                continue;
            }
            let (sequence, wanted) = replica.state.next_exchange(self.now);
            if self.is_redis_gone {
                let share = replica.state.replicas.equal_share();
                replica.state.set_share(share, self.now);
                continue;
            }
            self.exchanges += 1;
            self.store.insert(replica.name.clone(), field(sequence, wanted));
            replica.state.replicas.learn(&replica.name, &self.store, self.now);
            let share = replica.state.replicas.share(wanted, self.now);
            replica.state.set_share(share, self.now);
        }
    }
}

const WISH: TurnWish = TurnWish { order: TurnOrder::Bulk, caller: Key::from_bytes([0; 32]), tokens: 0 };

impl Replica {
    fn arrive(&mut self, calls: usize, now: Instant) {
        for _ in 0..calls.min(50_usize.saturating_sub(self.waiting)) {
            self.state.queue(&WISH, now);
            self.waiting += 1;
        }
    }

    fn make_calls(&mut self, now: Instant) {
        while self.waiting > 0 && self.state.wait(TurnOrder::Bulk, 0, true, now).is_zero() {
            self.state.unqueue(TurnOrder::Bulk);
            self.state.enter(TurnOrder::Interactive, 0, now);
            self.state.leave(now, 0);
            (self.waiting, self.made) = (self.waiting - 1, self.made + 1);
        }
    }
}

fn used(made: &[usize], seconds: usize) -> f64 {
    ratio(made.iter().sum(), LIMIT * seconds)
}

/// Returns Jain's index of fairness: 1 if all are equal.
fn fairness(made: &[usize]) -> f64 {
    let (sum, squares): (usize, usize) = (made.iter().sum(), made.iter().map(|made| made * made).sum());
    ratio(sum * sum, made.len() * squares)
}

#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[test]
fn a_hundred_replicas_use_one_limit_fairly() {
    let mut world = World::new();
    // Ten replicas want all that they can get, the others nothing.
    let some = |replica: usize| if replica < 10 { 50 } else { 0 };
    world.run(10, some);
    let made = world.run(60, some);
    assert!((0.95..=1.01).contains(&used(&made, 60)), "{}", used(&made, 60));
    assert!(fairness(&made[..10]) > 0.99, "{:?}", &made[..10]);
    // All of them begin within the same moment.
    world.run(5, |_| 50);
    let made = world.run(60, |_| 50);
    assert!((0.95..=1.01).contains(&used(&made, 60)), "{}", used(&made, 60));
    assert!(fairness(&made) > 0.99, "five seconds after a hundred replicas have begun: {}", fairness(&made));
    world.exchanges = 0;
    world.run(10, |_| 50);
    assert!(world.exchanges <= 10 * REPLICAS, "{} exchanges in ten seconds", world.exchanges);
}

#[test]
fn a_replica_that_begins_late_has_its_part_within_seconds() {
    let mut world = World::new();
    world.run(30, |replica| if replica == 0 { 0 } else { 50 });
    world.run(5, |_| 50);
    let made = world.run(10, |_| 50);
    let equal = ratio(made.iter().sum(), REPLICAS);
    assert!(ratio(made[0], 1) > 0.8 * equal, "{} of {equal}", made[0]);
}

#[test]
fn a_replica_with_few_calls_hardly_waits() {
    let mut world = World::new();
    // Five calls a second at the first replica, which has a right to ten, while the others want more than there is.
    let step = std::cell::Cell::new(0_usize);
    let some = |replica: usize| {
        if replica > 0 {
            return 50;
        }
        step.set(step.get() + 1);
        usize::from(step.get().is_multiple_of(20))
    };
    world.run(20, some);
    let made = world.run(20, some);
    assert!((98..=102).contains(&made[0]), "{}", made[0]);
    assert!(world.replicas[0].waiting <= 2, "{}", world.replicas[0].waiting);
}

#[test]
fn without_redis_each_replica_has_an_equal_part() {
    let mut world = World::new();
    let first_half = |replica: usize| if replica < 50 { 50 } else { 0 };
    world.run(20, first_half);
    world.is_redis_gone = true;
    let made = world.run(30, first_half);
    assert!((0.95..=1.01).contains(&used(&made, 30)), "{}", used(&made, 30));
    assert!(fairness(&made[..50]) > 0.99, "{:?}", &made[..50]);
    world.is_redis_gone = false;
    let made = world.run(30, |replica| if replica < 5 { 50 } else { 0 });
    assert!(used(&made, 30) > 0.7, "the five that are left have the others' parts soon: {}", used(&made, 30));
}

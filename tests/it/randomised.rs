//! A randomised test with many callers, an upstream that fails and gives wrong answers at random, clock jumps, and
//! purges. Every answer must be right or name its degradation. All randomness follows from a seed.
//!
//! `VECHO_TEST_SEED` runs one seed instead of the fixed ones, `VECHO_TEST_STEPS` sets the number of steps, and
//! `VECHO_TEST_SEEDS` sets the number of consecutive seeds from the first one on.

pub(crate) mod dice;
mod ledger;
mod newest;
mod verdict;
mod weather;
mod wish;
mod world;

use dice::Dice;
use world::World;

/// Seeds of every run.
const SEEDS: &[u64] = &[1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597];
const STEPS: usize = 30;

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let said = std::env::var(name).ok()?;
    Some(said.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

fn seeds() -> Vec<u64> {
    match (number("VECHO_TEST_SEED"), number("VECHO_TEST_SEEDS")) {
        (None, None) => SEEDS.to_vec(),
        (first, count) => (first.unwrap_or(1)..).take(count.unwrap_or(1)).collect(),
    }
}

/// Prints seed and step if the test panics.
struct Position {
    seed: u64,
    step: usize,
}

impl Drop for Position {
    #[expect(clippy::print_stderr, reason = "whoever sees the failure needs the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("VECHO_TEST_SEED={} VECHO_TEST_STEPS={} shows this again", self.seed, self.step + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_is_correct_under_random_upstream_faults() {
    let steps = number("VECHO_TEST_STEPS").unwrap_or(STEPS);
    for seed in seeds() {
        let mut position = Position { seed, step: 0 };
        let mut dice = Dice::new(seed);
        let mut world = World::start(&mut dice).await;
        for step in 0..steps {
            position.step = step;
            if let Err(complaint) = world.step(&mut dice).await {
                panic!("seed {seed}, step {step}: {complaint}\n{world:?}");
            }
        }
        world.stop().await;
    }
}

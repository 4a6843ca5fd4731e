//! Measures if a hit becomes slower as the cache grows: a million and ten million entries against a thousand. More
//! entries mean more lookups that miss the processor's caches.

use super::{CONNECTIONS, Stage, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::report::Row;
use crate::shape::Shape;
use crate::vectors::Random;

/// Maximum number of inputs per request.
const BATCH: usize = 2048;
const FEW: u64 = 1000;
const MANY: [u64; 2] = [1_000_000, 10_000_000];
const MEMORY: [&str; 2] = ["--set", "memory.limit_mb=6000"];

/// Runs the comparison for each number of entries.
pub(super) async fn many_against_few(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for many in MANY {
        rows.push(against_few(bench, bench.scaled(many)).await?);
    }
    Ok(rows)
}

/// Compares two processes of the same program, one with few entries and one with many, in turn.
async fn against_few(bench: &Bench, many: u64) -> Outcome<Row> {
    let shape = Shape { text_bytes: 24, dimension: 8, ..Shape::default() };
    let (full, small) = (Stage::start(bench, 0, &MEMORY).await?, Stage::start(bench, 0, &MEMORY).await?);
    // The cache is filled twice because the first hit of a text counts its tokens. This happens once in the life of an
    // entry; without the second pass nearly every hit here would be a first one.
    for _ in 0..2 {
        full.fill(&shape, 0..many, BATCH).await?;
        small.fill(&shape, 0..FEW, BATCH).await?;
    }
    full.reset().await?;
    small.reset().await?;
    let mut ours = Side::open(&full.vecho, CONNECTIONS, anyone(&shape, many)).await?;
    let mut theirs = Side::open(&small.vecho, CONNECTIONS, anyone(&shape, FEW)).await?;
    let comparison = measure::compare(bench, [&mut ours, &mut theirs], None, bench.scaled(10_000)).await?;
    full.expect_inputs(0).await?;
    small.expect_inputs(0).await?;
    let what = format!("a hit at {many} entries against {FEW} (of 8 dimensions)");
    let row = Row::limited(&what, (1.3, comparison.cpu_ratio()), times);
    Ok(row.against(comparison.reference("with few entries"), comparison.json()))
}

/// Draws from the first `count` texts. No two bodies are equal, so each request is looked up input by input.
fn anyone(shape: &Shape, count: u64) -> Workload {
    let mut random = Random(3);
    let shape = Shape { fresh_user: true, ..shape.clone() };
    Workload::new(shape, 500, move |ids| ids.push(random.below(count))).awake()
}

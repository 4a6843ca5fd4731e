//! What a hit costs by the tier that it comes from.

use super::{CONNECTIONS, Stage};
use crate::Outcome;
use crate::bench::Bench;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::redis::Redis;
use crate::report::Row;
use crate::shape::Shape;
use crate::vectors::Random;

/// Many more than the memory tier of a process holds that is to find them elsewhere.
const TEXTS: u64 = 20_000;
const BATCH: usize = 64;
/// A memory tier of a few hundred entries.
const SMALL_MEMORY: [&str; 4] = ["--set", "memory.limit_mb=100", "--set", "cache.memory_percent=1"];

/// One process that has everything in memory, against one that has it on disk and one that has it in Redis.
pub(super) async fn by_tier(bench: &Bench) -> Outcome<Vec<Row>> {
    let memory = Stage::start(bench, 0, &[])?;
    memory.fill(&Shape::default(), 0..TEXTS, BATCH).await?;
    let folder = format!("disk.path={}", bench.out.join("disk").display());
    let disk = small_memory(&["--set", "disk.enabled=true", "--set", &folder]);
    let redis = Redis::start(bench)?;
    let url = format!("redis.url=redis://127.0.0.1:{}", redis.port);
    let redis_keys = small_memory(&["--set", &url, "--set", "redis.timeout=1s"]);
    let rows = [
        against_memory(bench, &memory, ("on disk", &disk)).await?,
        against_memory(bench, &memory, ("in Redis", &redis_keys)).await?,
    ];
    Ok(rows.into())
}

fn small_memory<'a>(further: &[&'a str]) -> Vec<&'a str> {
    SMALL_MEMORY.iter().chain(further).copied().collect()
}

async fn against_memory(bench: &Bench, memory: &Stage, (place, keys): (&str, &[&str])) -> Outcome<Row> {
    let stage = Stage::start(bench, 0, keys)?;
    stage.fill(&Shape::default(), 0..TEXTS, BATCH).await?;
    stage.reset().await?;
    let mut ours = Side::open(&stage.vecho, CONNECTIONS, anyone()).await?;
    let mut theirs = Side::open(&memory.vecho, CONNECTIONS, anyone()).await?;
    let comparison = measure::compare(bench, [&mut ours, &mut theirs], None, bench.scaled(5_000)).await?;
    // A few may have been dropped on the way: more waited to be written than may.
    let fetched = stage.counts().await?.inputs;
    if fetched > TEXTS / 20 {
        return Err(format!("{fetched} of {TEXTS} texts were not {place}").into());
    }
    let ratio = comparison.cpu_ratio();
    let what = format!("a hit {place}, 1 input, body never seen before");
    let row = Row::told(&what, format!("{ratio:.2} × one in memory"));
    Ok(row.against(comparison.reference("in memory"), comparison.json()))
}

/// Any of the texts; no two bodies are equal, so that every request is looked up input by input.
fn anyone() -> Workload {
    let mut random = Random(5);
    Workload::new(Shape { fresh_user: true, ..Shape::default() }, 500, move |ids| ids.push(random.below(TEXTS)))
}

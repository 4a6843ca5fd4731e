//! Cost of a hit per tier.

use super::{CONNECTIONS, Stage};
use crate::Outcome;
use crate::bench::Bench;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::redis::Redis;
use crate::report::Row;
use crate::shape::Shape;
use crate::vectors::Random;

/// Far more than the small memory tier holds, so that most hits come from the lower tier.
const TEXTS: u64 = 20_000;
const BATCH: usize = 64;
/// Settings for a memory tier of a few hundred entries.
const SMALL_MEMORY: [&str; 4] = ["--set", "memory.limit_mb=100", "--set", "cache.memory_percent=1"];

/// Compares a process that has all texts in memory with one that has them on disk and one that has them in Redis.
pub(super) async fn by_tier(bench: &Bench) -> Outcome<Vec<Row>> {
    let memory = Stage::start(bench, 0, &[]).await?;
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
    let stage = Stage::start(bench, 0, keys).await?;
    stage.fill(&Shape::default(), 0..TEXTS, BATCH).await?;
    stage.reset().await?;
    let mut ours = Side::open(&stage.vecho, CONNECTIONS, anyone()).await?;
    let mut theirs = Side::open(&memory.vecho, CONNECTIONS, anyone()).await?;
    let comparison = measure::compare(bench, [&mut ours, &mut theirs], None, bench.scaled(5_000)).await?;
    // A few writes may have been dropped because the write queue was full.
    let fetched = stage.counts().await?.inputs;
    if fetched > TEXTS / 20 {
        return Err(format!("{fetched} of {TEXTS} texts were not {place}").into());
    }
    let ratio = comparison.cpu_ratio();
    let what = format!("a hit {place}, 1 input, body never seen before");
    let row = Row::told(&what, format!("{ratio:.2} × one in memory"));
    Ok(row.against(comparison.reference("in memory"), comparison.json()))
}

/// Draws from all texts. No two bodies are equal, so each request is looked up input by input.
fn anyone() -> Workload {
    let mut random = Random(5);
    Workload::new(Shape { fresh_user: true, ..Shape::default() }, 500, move |ids| ids.push(random.below(TEXTS)))
}

//! Misses: vecho against a proxy that only forwards, and against direct calls.

use std::time::Duration;

use serde_json::json;

use super::defaults::{DefaultCase, DefaultStage};
use super::{CONNECTIONS, FreshIds, Stage, ask, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::drive::{self, Workload};
use crate::measure::{self, Comparison, Sample, Side, median};
use crate::report::Row;
use crate::shape::Shape;

/// First number of the texts that have never been requested.
const FRESH: u64 = 1 << 32;
/// Number of known texts in a mixed batch, and number of unknown ones.
const HALF: u64 = 16;
/// Requests a second at the constant rate.
const RATE: u64 = 1000;

/// Measures requests with one new text each, with memory alone.
pub(super) async fn one(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 0, &[]).await?;
    let comparison = new_texts(bench, &stage, &Shape::default()).await?;
    Ok(vec![row("miss, 1 input, upstream without delay", 1.8, &comparison)])
}

/// Measures requests with one new text each, in the default configuration.
pub(super) async fn one_by_default(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for default in DefaultCase::each() {
        let stage = DefaultStage::start(bench).await?;
        let comparison = new_texts(bench, &stage, &default.shape).await?;
        let what = default.named("miss, 1 input, upstream without delay");
        rows.push(row(&what, 2.0, &comparison));
    }
    Ok(rows)
}

async fn new_texts(bench: &Bench, stage: &Stage, shape: &Shape) -> Outcome<Comparison> {
    let fresh = FreshIds::from(FRESH);
    let new_texts = || {
        let fresh = fresh.clone();
        Workload::new(shape.clone(), 200, move |ids| ids.push(fresh.next())).awake()
    };
    let comparison = against_thin(bench, stage, new_texts, 4_000).await?;
    stage.expect_inputs(fresh.next() - FRESH).await?;
    Ok(comparison)
}

/// Measures requests in which known and new texts alternate, with memory alone.
pub(super) async fn half_known(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 0, &[]).await?;
    let comparison = half_new(bench, &stage, &Shape::default()).await?;
    Ok(vec![row("32 inputs, 16 of them known", 2.0, &comparison)])
}

/// Measures requests in which known and new texts alternate, in the default configuration.
pub(super) async fn half_known_by_default(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for default in DefaultCase::each() {
        let stage = DefaultStage::start(bench).await?;
        let comparison = half_new(bench, &stage, &default.shape).await?;
        rows.push(row(&default.named("32 inputs, 16 of them known"), 2.0, &comparison));
    }
    Ok(rows)
}

async fn half_new(bench: &Bench, stage: &Stage, shape: &Shape) -> Outcome<Comparison> {
    stage.fill(shape, 0..HALF, 16).await?;
    let fresh = FreshIds::from(FRESH);
    let mixed = || {
        let fresh = fresh.clone();
        let pick = move |ids: &mut Vec<u64>| ids.extend((0..HALF).flat_map(|known| [known, fresh.next()]));
        Workload::new(shape.clone(), 50, pick).awake()
    };
    let count = bench.scaled(400);
    let comparison = against_thin(bench, stage, mixed, 400).await?;
    let requests = count * (bench.rounds() as u64 + 1);
    // vecho and `least` send the unknown half upstream, `thin` sends everything.
    stage.expect_inputs(2 * requests * HALF + requests * 2 * HALF).await?;
    Ok(comparison)
}

fn row(what: &str, limit: f64, comparison: &Comparison) -> Row {
    let row = Row::limited(what, (limit, comparison.cpu_ratio()), |ratio| times(ratio) + " thin");
    row.saying(comparison.shown("thin")).against(comparison.reference("thin"), comparison.json())
}

async fn against_thin(
    bench: &Bench,
    stage: &Stage,
    workload: impl Fn() -> Workload,
    requests: u64,
) -> Outcome<Comparison> {
    let upstream = stage.upstream.public.to_string();
    let thin = Server::reference(bench, &["thin", &upstream])?;
    let least = Server::reference(bench, &["least", &upstream])?;
    // The first fetch of a space proves its dimension and is slower than the others.
    stage.ask(&workload().shape, &[FRESH - 1]).await?;
    ask(&least, &workload().shape, &(0..HALF).collect::<Vec<_>>()).await?;
    stage.reset().await?;
    let mut ours = Side::open(&stage.vecho, CONNECTIONS, workload()).await?;
    let mut theirs = Side::open(&thin, CONNECTIONS, workload()).await?;
    let mut least = Side::open(&least, CONNECTIONS, workload()).await?;
    measure::compare(bench, [&mut ours, &mut theirs], Some(&mut least), bench.scaled(requests)).await
}

/// Measures new texts at a constant rate: through vecho, through the thin proxy, and directly against the upstream.
pub(super) async fn constant_rate(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 20, &["--set", "upstream.max_concurrent=200"]).await?;
    stage.ask(&Shape::default(), &[FRESH - 1]).await?;
    let fresh = FreshIds::from(FRESH);
    let thin = Server::reference(bench, &["thin", &stage.upstream.public.to_string()])?;
    let workload = || {
        let fresh = fresh.clone();
        Workload::new(Shape::default(), 100, move |ids| ids.push(fresh.next()))
    };
    let mut sides = Vec::new();
    for server in [&stage.vecho, &thin] {
        sides.push(Side::open(server, 100, workload()).await?);
    }
    sides.push(Side::direct(stage.upstream.public, 100, workload()).await?);
    let mut comparison = Comparison::default();
    // The first turn opens connections and does not count.
    for turn in 0..bench.rounds().min(5) {
        let ours = rate_round(bench, &mut sides[0]).await?;
        let thin = rate_round(bench, &mut sides[1]).await?;
        let direct = rate_round(bench, &mut sides[2]).await?;
        if turn > 0 {
            comparison.ours.push(ours);
            comparison.theirs.push(thin);
            comparison.floor.push(direct);
        }
    }
    Ok(vec![rate_row(&comparison)])
}

async fn rate_round(bench: &Bench, side: &mut Side<'_>) -> Outcome<Sample> {
    let before_ns = side.cpu_ns()?;
    let (count, interval) = (bench.scaled(3 * RATE), Duration::from_secs(1) / u32::try_from(RATE)?);
    let load = drive::constant_rate(&mut side.connections, &mut side.workload, count, interval).await?;
    Ok(Sample::new(side.cpu_ns()? - before_ns, &load))
}

fn rate_row(comparison: &Comparison) -> Row {
    let p50_ms = |side: &[Sample]| median(side, |sample| sample.p50_us) / 1e3;
    let p99_ms = |side: &[Sample]| median(side, |sample| sample.p99_us) / 1e3;
    let (ours, thin, direct) = (&comparison.ours, &comparison.theirs, &comparison.floor);
    let (over_thin_ms, added_ms) = (p50_ms(ours) - p50_ms(thin), p50_ms(ours) - p50_ms(direct));
    let reference = format!(
        "p50 {:.2} ms and p99 {:.2} ms through vecho, {:.2} ms and {:.2} ms through thin, {:.2} ms and {:.2} ms without",
        p50_ms(ours),
        p99_ms(ours),
        p50_ms(thin),
        p99_ms(thin),
        p50_ms(direct),
        p99_ms(direct)
    );
    let what = "miss, upstream 20 ms, constant 1000/s: added median";
    let row = Row::limited(what, (0.1, over_thin_ms), |ms| format!("{ms:.2} ms more than thin"));
    let row = row.saying(format!(
        "{over_thin_ms:.2} ms more than thin, {added_ms:.2} ms more than none; CPU {} thin",
        times(comparison.cpu_ratio())
    ));
    row.against(reference, json!(comparison.json()))
}

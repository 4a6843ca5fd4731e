//! A long-tailed distribution, as in search queries: a few texts are frequent, most are rare.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::rc::Rc;

use serde_json::json;

use super::{CONNECTIONS, Stage, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::drive::Workload;
use crate::measure::{Comparison, Sample, Side};
use crate::report::Row;
use crate::roles::upstream::Upstream;
use crate::shape::Shape;
use crate::vectors::Random;

/// Number of distinct texts.
const TEXTS: usize = 1_000_000;
/// Number of stretches in which vecho and the references take turns.
const STRETCHES: u64 = 10;

/// Runs a first pass with an empty cache, and a second pass with the same requests.
pub(super) async fn hundred_thousand(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 0, &[]).await?;
    let shape = Shape { dimension: 64, ..Shape::default() };
    let body = bench.out.join("static.body");
    fs::write(&body, stage.ask(&shape, &[u64::MAX]).await?)?;
    let fixed = Server::fixed(bench, &body, 1)?;
    stage.reset().await?;

    let seen = Rc::new(RefCell::new(HashSet::new()));
    let requests = bench.scaled(100_000);
    let workload = || zipf(&shape, &seen).awake();
    // This server has its own upstream, since vecho's upstream counts its calls.
    let upstream = Upstream::start(0).await?;
    let least = Server::reference(bench, &["least", &upstream.public.to_string()])?;
    let cold = pass(&stage, [&fixed, &least], requests, workload).await?;
    let distinct = seen.borrow().len() as u64;
    let fetched = stage.counts().await?.inputs;
    stage.reset().await?;
    let warm = pass(&stage, [&fixed, &least], requests, workload).await?;
    stage.expect_inputs(0).await?;
    Ok(vec![hit_ratio(requests, distinct, fetched), cold_row(&cold), warm_row(&warm)])
}

/// Sends the same sequence to all servers, in turns. The seed is fixed, so every pass has the same sequence.
async fn pass(
    stage: &Stage,
    [fixed, least]: [&Server; 2],
    requests: u64,
    workload: impl Fn() -> Workload,
) -> Outcome<Comparison> {
    let mut ours = Side::open(&stage.vecho, CONNECTIONS, workload()).await?;
    let mut theirs = Side::open(fixed, CONNECTIONS, workload().unchecked()).await?;
    let mut floor = Side::open(least, CONNECTIONS, workload()).await?;
    let mut comparison = Comparison::default();
    for _ in 0..STRETCHES {
        comparison.ours.push(ours.round(requests / STRETCHES).await?);
        comparison.theirs.push(theirs.round(requests / STRETCHES).await?);
        comparison.floor.push(floor.round(requests / STRETCHES).await?);
    }
    Ok(comparison)
}

fn zipf(shape: &Shape, seen: &Rc<RefCell<HashSet<u64>>>) -> Workload {
    let (ranks, seen, mut random) = (Ranks::new(), seen.clone(), Random(11));
    Workload::new(shape.clone(), 500, move |ids| {
        let id = ranks.draw(&mut random);
        seen.borrow_mut().insert(id);
        ids.push(id);
    })
}

/// Draws rank r with a probability proportional to 1/r.
struct Ranks(Vec<f64>);

impl Ranks {
    #[expect(clippy::cast_precision_loss, reason = "a million fits an f64")]
    fn new() -> Self {
        let weights = (1..=TEXTS).map(|rank| 1.0 / rank as f64);
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let whole = self.0.last().copied().unwrap_or_default();
        let point = random.unit() * whole;
        self.0.partition_point(|sum| *sum <= point) as u64
    }
}

#[expect(clippy::cast_precision_loss, reason = "request counts fit an f64")]
fn hit_ratio(requests: u64, distinct: u64, fetched: u64) -> Row {
    let ratio = |fetched: u64| 1.0 - fetched as f64 / requests as f64;
    Row {
        what: "Zipf(1.0) over 1 M texts, 100,000 requests: hit ratio".to_owned(),
        target: "the ceiling".to_owned(),
        measured: format!("{:.2} %", ratio(fetched) * 100.0),
        reference: format!("ceiling {:.2} %: every text fetched once", ratio(distinct) * 100.0),
        missed: Some(fetched != distinct),
        raw: json!({ "requests": requests, "distinct": distinct, "fetched": fetched }),
    }
}

fn cold_row(comparison: &Comparison) -> Row {
    let [ours, fixed, least] = means_us(comparison);
    let what = "Zipf(1.0) over 1 M texts, 100,000 requests, cache empty at first: CPU";
    let row = Row::limited(what, (1.5, ours / least), |ratio| times(ratio) + " the least");
    told(row, comparison, [ours, fixed, least])
}

fn warm_row(comparison: &Comparison) -> Row {
    let [ours, fixed, least] = means_us(comparison);
    let what = "the same requests again, all known: CPU";
    let row = Row::limited(what, (1.5, ours / fixed), |ratio| times(ratio) + " static");
    told(row, comparison, [ours, fixed, least])
}

fn told(row: Row, comparison: &Comparison, [ours, fixed, least]: [f64; 3]) -> Row {
    let (ratio, over_least, floor) = (ours / fixed, ours / least, least / fixed);
    row.saying(format!("{ratio:.2} × static, {over_least:.2} × the least, which is {floor:.2} × static")).against(
        format!("vecho {ours:.1} µs CPU; static {fixed:.1} µs CPU; least {least:.1} µs CPU"),
        comparison.json(),
    )
}

/// Returns the mean processor time per request of vecho, `static` and `least`. It is a mean over all stretches and not
/// a median because the first stretches hold most of the misses.
#[expect(clippy::cast_precision_loss, reason = "a handful of stretches")]
fn means_us(comparison: &Comparison) -> [f64; 3] {
    let mean = |side: &[Sample]| side.iter().map(|sample| sample.cpu_us).sum::<f64>() / side.len() as f64;
    [mean(&comparison.ours), mean(&comparison.theirs), mean(&comparison.floor)]
}

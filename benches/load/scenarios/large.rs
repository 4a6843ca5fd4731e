//! The largest answer that the service allows: throughput and memory while it is sent.

use std::fs;

use super::{Stage, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::report::Row;
use crate::shape::{Encoding, Shape};

/// Maximum number of inputs of one request to the service.
const INPUTS: u64 = 2_048;
/// Dimension of the service's largest vectors.
const DIMENSION: usize = 3_072;
/// Smallest accepted share of the throughput of a server that sends the same bytes.
const LEAST_SHARE: f64 = 0.5;
/// Answers of a round.
const REQUESTS: u64 = 4;

/// A full hit of 2,048 inputs with 3,072 floats each, one request after the other.
pub(super) async fn streamed(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 0, &[]).await?;
    let shape = Shape { text_bytes: 40, dimension: DIMENSION, encoding: Encoding::Float, ..Shape::default() };
    stage.fill(&shape, 0..INPUTS, 64).await?;
    let ids: Vec<u64> = (0..INPUTS).collect();
    let answer = stage.ask(&shape, &ids).await?;
    let megabytes = answer.len() / 1_000_000;
    let body = bench.out.join("static.body");
    fs::write(&body, answer)?;
    let fixed = Server::fixed(bench, &body, 1)?;
    stage.reset().await?;
    let before_bytes = stage.vecho.resident_bytes()?;
    let workload = |check_every| {
        let ids = ids.clone();
        Workload::new(shape.clone(), check_every, move |picked| picked.extend_from_slice(&ids)).awake()
    };
    let mut ours = Side::open(&stage.vecho, 1, workload(REQUESTS)).await?;
    let mut theirs = Side::open(&fixed, 1, workload(0)).await?;
    let comparison =
        measure::compare(bench, [&mut ours, &mut theirs], None, bench.scaled(REQUESTS).min(REQUESTS)).await?;
    stage.expect_inputs(0).await?;
    let grown_mb = stage.vecho.peak_bytes()?.saturating_sub(before_bytes) / 1_000_000;
    let what = format!("full hit, {INPUTS} inputs of {DIMENSION} floats ({megabytes} MB): time");
    let row = Row::limited(&what, (1.0 / LEAST_SHARE, 1.0 / comparison.rate_ratio()), |ratio| times(ratio) + " static");
    let [time, cpu] = [1.0 / comparison.rate_ratio(), comparison.cpu_ratio()].map(times);
    let row = row.saying(format!("{time} static, CPU {cpu}, at most {grown_mb} MB more than before"));
    Ok(vec![row.against(comparison.reference("static"), comparison.json())])
}

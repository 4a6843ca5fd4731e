//! Full hits over many connections: the slowest requests of vecho against those of a server that sends the same bytes.

use std::fs;

use super::{Stage, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::report::Row;
use crate::shape::Shape;

/// Largest accepted ratio of the 99th percentiles.
const LIMIT: f64 = 1.5;

/// Numbers of connections.
const CROWDS: [usize; 3] = [16, 128, 1_024];

/// Requests of a round for each connection, and at least this many in all.
const REQUESTS_EACH: u64 = 30;
const MIN_REQUESTS: u64 = 15_000;

/// One input, base64, over each number of connections, with `workers` threads in both servers.
pub(super) async fn by_size(bench: &Bench, workers: usize) -> Outcome<Vec<Row>> {
    let (stage, shape, ids) = (Stage::with_workers(bench, workers, 0, &[]).await?, Shape::default(), vec![0]);
    stage.ask(&shape, &ids).await?;
    let body = bench.out.join("static.body");
    fs::write(&body, stage.ask(&shape, &ids).await?)?;
    let fixed = Server::fixed(bench, &body, workers)?;
    let mut rows = Vec::new();
    for connections in CROWDS {
        let requests = (REQUESTS_EACH * connections as u64).max(MIN_REQUESTS);
        let mut ours = Side::open(&stage.vecho, connections, workload(&shape, workers, requests / 20)).await?;
        let mut theirs = Side::open(&fixed, connections, workload(&shape, workers, 0)).await?;
        let sides = [&mut ours, &mut theirs];
        let comparison = measure::compare(bench, sides, None, bench.scaled(requests)).await?;
        let of_two = if workers == 1 { "" } else { ", two workers" };
        let what = format!("full hit, 1 input, base64, {connections} connections{of_two}: p99");
        let row = Row::limited(&what, (LIMIT, comparison.p99_ratio()), |ratio| times(ratio) + " static");
        let [p99, cpu, rate] = [comparison.p99_ratio(), comparison.cpu_ratio(), comparison.rate_ratio()].map(times);
        let row = row.saying(format!("{p99} static, CPU {cpu}, throughput {rate}"));
        rows.push(row.against(comparison.reference_with_tail("static"), comparison.json()));
    }
    Ok(rows)
}

fn workload(shape: &Shape, workers: usize, check_every: u64) -> Workload {
    let workload = Workload::new(shape.clone(), check_every, |picked| picked.push(0));
    // Two workers need both cores, so there the load generator must not poll.
    if workers == 1 { workload.awake() } else { workload }
}

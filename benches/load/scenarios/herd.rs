//! Many callers request the same new text at the same moment.

use std::net::SocketAddr;

use serde_json::json;

use super::{Counts, Stage};
use crate::Outcome;
use crate::bench::Bench;
use crate::client::Connection;
use crate::drive::{self, Load};
use crate::report::Row;
use crate::shape::Shape;

/// Number of concurrent callers.
const CALLERS: usize = 500;

/// A text that is cached before the callers start.
const KNOWN: u64 = 1 << 32;

/// Sends a new text from all callers at once in each round. One upstream call must serve them all.
pub(super) async fn five_hundred(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 20, &[]).await?;
    stage.ask(&Shape::default(), &[KNOWN]).await?;
    let (mut ours_ms, mut direct_ms) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds() as u64 {
        let through = at_once(&stage, stage.vecho.public, 2 * round).await?;
        one_call(stage.counts().await?)?;
        let without = at_once(&stage, stage.upstream.public, 2 * round + 1).await?;
        // The first round warms up buffers.
        if round > 0 {
            ours_ms.push(p50_ms(&through));
            direct_ms.push(p50_ms(&without));
        }
    }
    Ok(vec![row(ours_ms, direct_ms)])
}

/// Opens connections for one round only: the connections of both servers together would come close to the usual limit
/// of 1024 open files. A request for the known text on each connection ensures that all are accepted before the
/// measurement.
async fn at_once(stage: &Stage, address: SocketAddr, id: u64) -> Outcome<Load> {
    let shape = Shape::default();
    let mut connections = Connection::open_many(address, CALLERS).await?;
    drive::all_at_once(&mut connections, &shape, KNOWN).await?;
    stage.reset().await?;
    drive::all_at_once(&mut connections, &shape, id).await
}

fn one_call(counts: Counts) -> Outcome<()> {
    if counts.calls == 1 && counts.inputs == 1 {
        return Ok(());
    }
    Err(format!("{} calls with {} inputs for one text", counts.calls, counts.inputs).into())
}

#[expect(clippy::cast_precision_loss, reason = "a latency in nanoseconds is far below 2^52")]
fn p50_ms(load: &Load) -> f64 {
    load.latencies_ns.value_at_quantile(0.5) as f64 / 1e6
}

fn row(mut ours_ms: Vec<f64>, mut direct_ms: Vec<f64>) -> Row {
    let raw = json!({ "vecho_p50_ms": ours_ms, "direct_p50_ms": direct_ms });
    ours_ms.sort_by(f64::total_cmp);
    direct_ms.sort_by(f64::total_cmp);
    let (ours, direct) = (ours_ms[ours_ms.len() / 2], direct_ms[direct_ms.len() / 2]);
    let what = "500 identical requests at once, upstream 20 ms: median, from when the first was sent";
    let row = Row::limited(what, (28.0, ours), |ms| format!("{ms:.1} ms, 1 call"));
    row.against(format!("{direct:.1} ms and 500 calls straight to the upstream"), raw)
}

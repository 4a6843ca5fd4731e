//! Full hits in memory: vecho against a server that sends the same bytes without a lookup.

use std::fs;

use super::defaults::{DefaultCase, DefaultStage};
use super::{CONNECTIONS, Stage, ask, times};
use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::drive::Workload;
use crate::measure::{self, Side};
use crate::report::Row;
use crate::shape::{Encoding, Shape};
use crate::vectors::Random;

/// Inputs of a large request.
const MANY: u64 = 256;

/// One scenario of this file.
struct Case {
    what: String,
    target: Target,
    shape: Shape,
    inputs: u64,
    shuffled: bool,
    connections: usize,
    requests: u64,
}

/// Target of a case.
enum Target {
    /// Ratio to the server that sends the same bytes.
    Static(f64),
    /// Ratio to `least`, for cases where a minimal cache already costs more than a server that only sends.
    Least(f64),
}

/// One input, base64.
pub(super) async fn one_base64(bench: &Bench) -> Outcome<Vec<Row>> {
    let what = "full hit, 1 input, base64, 16 connections".to_owned();
    let (shape, connections) = (Shape::default(), CONNECTIONS);
    let target = Target::Static(1.15);
    let stage = Stage::start(bench, 0, &[]).await?;
    against_static(
        bench,
        &stage,
        Case { what, target, shape, inputs: 1, shuffled: false, connections, requests: 20_000 },
    )
    .await
}

/// One input, base64, in the default configuration.
pub(super) async fn one_by_default(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for default in DefaultCase::each() {
        let what = default.named("full hit, 1 input, base64, 16 connections");
        let (stage, shape, connections) = (DefaultStage::start(bench).await?, default.shape, CONNECTIONS);
        let target = Target::Static(1.15);
        let case = Case { what, target, shape, inputs: 1, shuffled: false, connections, requests: 20_000 };
        rows.extend(against_static(bench, &stage, case).await?);
    }
    Ok(rows)
}

/// One input, floats.
pub(super) async fn one_float(bench: &Bench) -> Outcome<Vec<Row>> {
    let what = "full hit, 1 input, floats, 16 connections".to_owned();
    let shape = Shape { encoding: Encoding::Float, ..Shape::default() };
    let (target, connections) = (Target::Static(1.12), CONNECTIONS);
    let stage = Stage::start(bench, 0, &[]).await?;
    against_static(
        bench,
        &stage,
        Case { what, target, shape, inputs: 1, shuffled: false, connections, requests: 10_000 },
    )
    .await
}

/// Many inputs, with the same body every time.
pub(super) async fn many_same(bench: &Bench) -> Outcome<Vec<Row>> {
    let what = "full hit, 256 inputs, base64, same body again";
    let stage = Stage::start(bench, 0, &[]).await?;
    against_static(bench, &stage, many(what, Target::Static(1.1), false)).await
}

/// Many inputs, in a different order every time.
pub(super) async fn many_shuffled(bench: &Bench) -> Outcome<Vec<Row>> {
    let what = "full hit, 256 inputs, base64, same inputs in another order";
    let stage = Stage::start(bench, 0, &[]).await?;
    against_static(bench, &stage, many(what, Target::Least(1.15), true)).await
}

fn many(what: &str, target: Target, shuffled: bool) -> Case {
    let what = what.to_owned();
    Case { what, target, shape: Shape::default(), inputs: MANY, shuffled, connections: 4, requests: 300 }
}

async fn against_static(bench: &Bench, stage: &Stage, case: Case) -> Outcome<Vec<Row>> {
    let ids: Vec<u64> = (0..case.inputs).collect();
    stage.ask(&case.shape, &ids).await?;
    let body = bench.out.join("static.body");
    fs::write(&body, stage.ask(&case.shape, &ids).await?)?;
    let fixed = Server::fixed(bench, &body, 1)?;
    let least = Server::reference(bench, &["least", &stage.upstream.public.to_string()])?;
    for _ in 0..2 {
        ask(&least, &case.shape, &ids).await?;
    }
    stage.reset().await?;

    // The static server's responses have one order, regardless of the request, so its checks are off.
    let check_every = (case.requests / 20).max(1);
    let mut ours = Side::open(&stage.vecho, case.connections, workload(&case, &ids, check_every)).await?;
    let mut theirs = Side::open(&fixed, case.connections, workload(&case, &ids, 0)).await?;
    let mut least = Side::open(&least, case.connections, workload(&case, &ids, check_every)).await?;
    let sides = [&mut ours, &mut theirs];
    let comparison = measure::compare(bench, sides, Some(&mut least), bench.scaled(case.requests)).await?;
    stage.expect_inputs(0).await?;
    let row = match case.target {
        Target::Static(limit) => {
            Row::limited(&case.what, (limit, comparison.cpu_ratio()), |ratio| times(ratio) + " static")
        }
        Target::Least(limit) => {
            Row::limited(&case.what, (limit, comparison.over_least()), |ratio| times(ratio) + " the least")
        }
    };
    let row = row.saying(comparison.shown("static"));
    Ok(vec![row.against(comparison.reference("static"), comparison.json())])
}

fn workload(case: &Case, ids: &[u64], check_every: u64) -> Workload {
    let (mut order, shuffled) = (ids.to_vec(), case.shuffled);
    let mut random = Random(7);
    Workload::new(case.shape.clone(), check_every, move |picked| {
        if shuffled {
            shuffle(&mut order, &mut random);
        }
        picked.extend_from_slice(&order);
    })
    .awake()
}

/// Shuffles with the Fisher-Yates algorithm.
fn shuffle(order: &mut [u64], random: &mut Random) {
    for last in (1..order.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).expect("an index must fit");
        order.swap(last, other);
    }
}

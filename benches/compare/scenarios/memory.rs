//! Memory with nothing stored, and with many vectors.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::bench::Bench;
use crate::client::Connection;
use crate::drive::{self, Workload};
use crate::report::{Row, count, disqualified, megabytes};
use crate::stage::{Running, Stage};

/// Number of vectors that the table states.
const VECTORS: u64 = 100_000;
/// Time to fill the cache of one proxy; a slower one gets fewer vectors, and the table scales its growth.
const FILL_WITHIN: Duration = Duration::from_secs(15);
/// Texts between two looks at the clock.
const STEP: u64 = 5_000;
/// Inputs of one request, if each is cached by itself.
const BATCH: u64 = 50;
const CONNECTIONS: usize = 16;
/// Texts that are requested again to see whether they are still stored.
const SAMPLE: u64 = 100;
/// Periodic housekeeping is over when the memory changes by less than this share between two looks.
const STEADY_SHARE: u64 = 200;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Memory that still changes after this time is taken as it is.
const STEADY_WITHIN: Duration = Duration::from_secs(5);

/// Memory of one proxy, before and after.
struct Memory {
    empty: u64,
    full: u64,
    vectors: u64,
    kept: u64,
}

/// Fills the caches of all proxies, one after the other.
pub(crate) async fn measure(bench: &Bench, stage: &Stage) -> (Vec<Row>, Value) {
    let (mut empty, mut full, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for running in &stage.proxies {
        let memory = of_one(bench, stage, running).await;
        let (before, after) = match &memory {
            Ok(memory) => (Ok(megabytes(memory.empty)), Ok(memory.shown())),
            Err(error) => (Ok(String::new()), disqualified(&error.to_string())),
        };
        empty.push((running.proxy, before));
        full.push((running.proxy, after));
        let numbers = memory.map_or_else(|error| json!({ "failure": error.to_string() }), |memory| memory.json());
        raw.push(json!({ "proxy": running.proxy.name(), "memory": numbers }));
    }
    let rows = vec![
        Row { what: "memory after the start".to_owned(), cells: empty },
        Row { what: "memory with 100,000 vectors of 1,536 dimensions".to_owned(), cells: full },
    ];
    (rows, json!(raw))
}

async fn of_one(bench: &Bench, stage: &Stage, running: &Running) -> Outcome<Memory> {
    let batch = if running.proxy.caches_inputs() { BATCH } else { 1 };
    let empty = running.memory_bytes();
    let (wanted, begun) = (bench.scaled(VECTORS), Instant::now());
    let (mut vectors, mut first_look) = (0, None);
    while vectors < wanted && begun.elapsed() < FILL_WITHIN {
        let step = (vectors..wanted.min(vectors + STEP)).step_by(usize::try_from(batch)?);
        request(running, step.collect(), batch).await?;
        vectors = wanted.min(vectors + STEP);
        // A cache that has not kept the first step will not keep the others.
        if vectors <= STEP {
            let found = kept(stage, running, vectors, batch).await?;
            first_look = Some((vectors, found));
            if found < SAMPLE / 2 {
                break;
            }
        }
    }
    wait_until_steady(running).await;
    // A look stores the texts that it does not find, so the same texts would all be found the second time.
    let kept = match first_look {
        Some((after, found)) if after == vectors => found,
        _ => kept(stage, running, vectors, batch).await?,
    };
    Ok(Memory { empty, full: running.memory_bytes(), vectors, kept })
}

/// Waits until the memory of a proxy hardly changes any more.
async fn wait_until_steady(running: &Running) {
    let (begun, mut before) = (Instant::now(), running.memory_bytes());
    while begun.elapsed() < STEADY_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = running.memory_bytes();
        if now.abs_diff(before) < before / STEADY_SHARE {
            return;
        }
        before = now;
    }
}

/// Requests `batch` texts from each of these numbers on.
async fn request(running: &Running, firsts: Vec<u64>, batch: u64) -> Outcome<()> {
    let mut connections = Connection::open_many(running.address, CONNECTIONS).await?;
    let requests = firsts.len() as u64;
    let mut firsts = firsts.into_iter();
    let mut workload = Workload::new(running.shape(), 50, move |texts| {
        texts.extend(firsts.next().into_iter().flat_map(|first| first..first + batch));
    });
    drive::closed(&mut connections, &mut workload, requests).await?;
    Ok(())
}

/// Requests some of the first `vectors` texts again and returns how many of them are still stored.
async fn kept(stage: &Stage, running: &Running, vectors: u64, batch: u64) -> Outcome<u64> {
    let requests = SAMPLE / batch;
    let distance = vectors / requests / batch * batch;
    stage.reset().await?;
    request(running, (0..requests).map(|position| position * distance).collect(), batch).await?;
    Ok(SAMPLE.saturating_sub(stage.counts().await?.inputs))
}

impl Memory {
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts of a run are far below 2^52")]
    fn shown(&self) -> String {
        if self.kept < SAMPLE / 2 {
            return format!("does not keep them: {} of {SAMPLE} found again after {} texts", self.kept, self.vectors);
        }
        let per_vector = self.full.saturating_sub(self.empty) as f64 / self.vectors as f64;
        let growth = per_vector * VECTORS as f64;
        let scaled = if self.vectors == VECTORS {
            String::new()
        } else {
            format!(" (scaled from {} vectors)", count(self.vectors as f64))
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes are positive")]
        let total = self.empty + growth as u64;
        format!("{}{scaled}", megabytes(total))
    }

    fn json(&self) -> Value {
        json!({
            "empty_bytes": self.empty,
            "full_bytes": self.full,
            "vectors": self.vectors,
            "kept_of_100": self.kept,
        })
    }
}

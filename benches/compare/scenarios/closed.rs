//! Requests as fast as a few connections allow: hits, misses, and batches with both.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{median, rounds};
use crate::Outcome;
use crate::bench::Bench;
use crate::client::Connection;
use crate::drive::{self, Workload};
use crate::measure::Sample;
use crate::report::{Row, count, disqualified, duration};
use crate::stage::{Running, Stage};

/// A round that takes longer waits for an answer that never comes.
const ROUND_WITHIN: Duration = Duration::from_mins(1);
/// Duration of one round, which determines its number of requests.
const ROUND_SECONDS: f64 = 0.5;
/// Bounds of that number for each connection.
const REQUESTS_PER_CONNECTION: (f64, f64) = (4.0, 2000.0);
/// Compared answers of one round, at least.
const CHECKS: u64 = 10;

/// Texts of the requests of a case.
#[derive(Clone, Copy)]
pub(crate) enum Texts {
    /// The same known texts in every request.
    Known(u64),
    /// As many known texts as new ones, in turn.
    HalfNew(u64),
    /// One new text.
    New,
}

/// One scenario of this file.
pub(crate) struct Case {
    /// The requests, as the table names them.
    pub(crate) what: &'static str,
    /// Their texts.
    pub(crate) texts: Texts,
    /// Number of the first text that no other case uses.
    pub(crate) first_new: u64,
    /// Number of connections.
    pub(crate) connections: usize,
}

/// All rounds of one case.
pub(crate) struct Results {
    what: &'static str,
    lanes: Vec<Lane>,
}

/// The rounds of one proxy.
struct Lane {
    place: usize,
    proxy: crate::proxies::Proxy,
    next_new: Rc<Cell<u64>>,
    requests: u64,
    rounds: Vec<Round>,
    failure: Option<String>,
}

#[derive(Clone, Copy)]
struct Round {
    sample: Sample,
    inputs_per_request: f64,
}

/// Measures a case on all proxies of a stage.
pub(crate) async fn measure(bench: &Bench, stage: &Stage, case: &Case) -> Results {
    let lane = |(place, running): (usize, &Running)| Lane {
        place,
        proxy: running.proxy,
        next_new: Rc::new(Cell::new(case.first_new)),
        requests: 2 * case.connections as u64,
        rounds: Vec::new(),
        failure: None,
    };
    let mut lanes: Vec<Lane> = stage.proxies.iter().enumerate().map(lane).collect();
    // Two rounds do not count: the first fills caches, the second determines the number of requests of the others.
    for turn in 0..rounds(bench) + 2 {
        for lane in lanes.iter_mut().filter(|lane| lane.failure.is_none()) {
            let running = &stage.proxies[lane.place];
            let done = timeout(ROUND_WITHIN, lane.round(stage, running, case)).await;
            match done.unwrap_or_else(|_| Err("no answer".into())) {
                Ok(round) if turn == 1 => lane.choose_requests(bench, round.sample.rate, case.connections),
                Ok(round) if turn > 1 => lane.rounds.push(round),
                Ok(_) => {}
                Err(error) => lane.failure = Some(error.to_string()),
            }
        }
    }
    Results { what: case.what, lanes }
}

impl Lane {
    /// Opens connections for one round only: servers close connections that are idle in the rounds of others.
    async fn round(&self, stage: &Stage, running: &Running, case: &Case) -> Outcome<Round> {
        let mut connections = Connection::open_many(running.address, case.connections).await?;
        let mut workload = self.workload(running, case.texts);
        stage.reset().await?;
        let before = running.processes.cpu();
        let load = drive::closed(&mut connections, &mut workload, self.requests).await?;
        let cpu_ns = running.processes.cpu().since_ns(before);
        let inputs = stage.counts().await?.inputs;
        #[expect(clippy::cast_precision_loss, reason = "counts of a round are far below 2^52")]
        let inputs_per_request = inputs as f64 / self.requests as f64;
        Ok(Round { sample: Sample::new(cpu_ns, &load), inputs_per_request })
    }

    fn workload(&self, running: &Running, texts: Texts) -> Workload {
        let next_new = Rc::clone(&self.next_new);
        let check_every = (self.requests / CHECKS).max(1);
        Workload::new(running.shape(), check_every, move |ids| match texts {
            Texts::Known(count) => ids.extend(0..count),
            Texts::HalfNew(count) => ids.extend((0..count / 2).flat_map(|known| [known, take(&next_new)])),
            Texts::New => ids.push(take(&next_new)),
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests is positive and far below 2^52"
    )]
    fn choose_requests(&mut self, bench: &Bench, rate: f64, connections: usize) {
        let seconds = if bench.quick { ROUND_SECONDS / 5.0 } else { ROUND_SECONDS };
        let (least, most) = REQUESTS_PER_CONNECTION;
        let connections = connections as f64;
        self.requests = (rate * seconds).clamp(least * connections, most * connections) as u64;
    }
}

fn take(next: &Cell<u64>) -> u64 {
    next.replace(next.get() + 1)
}

impl Results {
    /// Returns the row with the processor time, the main figure.
    pub(crate) fn cpu(&self) -> Row {
        self.row("CPU per request", |lane| duration(lane.median(|round| round.sample.cpu_us)))
    }

    /// Returns the row with latencies and throughput.
    pub(crate) fn latency(&self) -> Row {
        self.row("p50, p99, requests/s", |lane| {
            let p50 = duration(lane.median(|round| round.sample.p50_us));
            let p99 = duration(lane.median(|round| round.sample.p99_us));
            format!("{p50}, {p99}, {}/s", count(lane.median(|round| round.sample.rate)))
        })
    }

    /// Returns the row with the inputs that went upstream.
    pub(crate) fn inputs(&self) -> Row {
        self.row("inputs sent upstream per request", |lane| {
            let inputs = lane.median(|round| round.inputs_per_request);
            if inputs < 0.05 { "0".to_owned() } else { format!("{inputs:.1}").trim_end_matches(".0").to_owned() }
        })
    }

    fn row(&self, figure: &str, show: impl Fn(&Lane) -> String) -> Row {
        let cell = |lane: &Lane| match &lane.failure {
            Some(failure) => disqualified(failure),
            None => Ok(show(lane)),
        };
        let cells = self.lanes.iter().map(|lane| (lane.proxy, cell(lane))).collect();
        Row { what: format!("{}: {figure}", self.what), cells }
    }

    /// Returns all rounds.
    pub(crate) fn json(&self) -> Value {
        let lane = |lane: &Lane| {
            let rounds = lane
                .rounds
                .iter()
                .map(|round| json!({ "sample": round.sample.json(), "inputs_per_request": round.inputs_per_request }));
            json!({
                "proxy": lane.proxy.name(),
                "requests_per_round": lane.requests,
                "rounds": rounds.collect::<Vec<Value>>(),
                "failure": lane.failure,
            })
        };
        json!({ "what": self.what, "proxies": self.lanes.iter().map(lane).collect::<Vec<Value>>() })
    }
}

impl Lane {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }
}

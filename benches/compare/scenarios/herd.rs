//! Many callers request the same new text at the same moment.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::median;
use crate::Outcome;
use crate::bench::Bench;
use crate::client::Connection;
use crate::drive;
use crate::proxies::Proxy;
use crate::report::{Row, count, disqualified, duration};
use crate::stage::{FIRST, Running, Stage};

/// Number of concurrent callers.
const CALLERS: usize = 500;
/// The first new text.
const FIRST_NEW: u64 = 9 << 32;
/// A round that takes longer waits for an answer that never comes.
const ROUND_WITHIN: Duration = Duration::from_mins(1);

/// All rounds of one proxy: calls and median latency.
struct Herd {
    proxy: Proxy,
    rounds: Vec<(u64, f64)>,
    failure: Option<String>,
}

/// Sends a new text from all callers at once in each round. The first round does not count.
pub(crate) async fn measure(bench: &Bench, stage: &Stage) -> (Vec<Row>, Value) {
    let rounds: u64 = if bench.quick { 1 } else { 3 };
    let herd = |running: &Running| Herd { proxy: running.proxy, rounds: Vec::new(), failure: None };
    let mut herds: Vec<Herd> = stage.proxies.iter().map(herd).collect();
    for round in 0..=rounds {
        for (herd, running) in herds.iter_mut().zip(&stage.proxies).filter(|(herd, _)| herd.failure.is_none()) {
            let done = timeout(ROUND_WITHIN, at_once(stage, running, FIRST_NEW + round)).await;
            match done.unwrap_or_else(|_| Err("no answer".into())) {
                Ok(numbers) if round > 0 => herd.rounds.push(numbers),
                Ok(_) => {}
                Err(error) => herd.failure = Some(error.to_string()),
            }
        }
    }
    (rows(&herds), json!(herds.iter().map(Herd::json).collect::<Vec<Value>>()))
}

/// A request for a known text on each connection ensures that all are accepted before the measurement.
#[expect(clippy::cast_precision_loss, reason = "a latency in nanoseconds is far below 2^52")]
async fn at_once(stage: &Stage, running: &Running, id: u64) -> Outcome<(u64, f64)> {
    let mut connections = Connection::open_many(running.address, CALLERS).await?;
    drive::all_at_once(&mut connections, &running.shape(), FIRST).await?;
    stage.reset().await?;
    let load = drive::all_at_once(&mut connections, &running.shape(), id).await?;
    Ok((stage.counts().await?.calls, load.latencies_ns.value_at_quantile(0.5) as f64 / 1e3))
}

#[expect(clippy::cast_precision_loss, reason = "a number of calls is far below 2^52")]
fn rows(herds: &[Herd]) -> Vec<Row> {
    let row = |figure: &str, show: &dyn Fn(&Herd) -> String| {
        let cell = |herd: &Herd| match &herd.failure {
            Some(failure) => disqualified(failure),
            None => Ok(show(herd)),
        };
        let cells = herds.iter().map(|herd| (herd.proxy, cell(herd))).collect();
        Row { what: format!("{CALLERS} callers, the same new text, upstream 20 ms: {figure}"), cells }
    };
    vec![
        row("upstream calls", &|herd| count(median(herd.rounds.iter().map(|(calls, _)| *calls as f64)))),
        row("p50", &|herd| duration(median(herd.rounds.iter().map(|(_, p50_us)| *p50_us)))),
    ]
}

impl Herd {
    fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|(calls, p50_us)| json!({ "calls": calls, "p50_us": p50_us }));
        json!({
            "proxy": self.proxy.name(),
            "rounds": rounds.collect::<Vec<Value>>(),
            "failure": self.failure,
        })
    }
}

//! Compares two servers: several rounds with the same number of requests to each in turn, then medians.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::client::Connection;
use crate::drive::{self, Load, Workload};

/// A server with its connections and its workload.
pub(crate) struct Side<'a> {
    /// The process whose CPU time is measured; `None` for the upstream, which shares its thread with the load generator.
    server: Option<&'a Server>,
    /// Connections, kept open over all rounds.
    pub(crate) connections: Vec<Connection>,
    /// The requests to send.
    pub(crate) workload: Workload,
}

/// Measurements of one server in one round.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Processor time of the server per request.
    pub(crate) cpu_us: f64,
    /// Median latency.
    pub(crate) p50_us: f64,
    /// 99th percentile of latency.
    pub(crate) p99_us: f64,
    /// 99.9th percentile of latency.
    pub(crate) p999_us: f64,
    /// Requests a second.
    pub(crate) rate: f64,
}

/// All rounds of some servers.
#[derive(Default)]
pub(crate) struct Comparison {
    /// Rounds of the server under test.
    pub(crate) ours: Vec<Sample>,
    /// Rounds of the reference server.
    pub(crate) theirs: Vec<Sample>,
    /// Rounds of the `least` server, if it was measured too.
    pub(crate) floor: Vec<Sample>,
}

impl<'a> Side<'a> {
    /// Opens `connections` to `server`.
    pub(crate) async fn open(server: &'a Server, connections: usize, workload: Workload) -> Outcome<Self> {
        let connections = Connection::open_many(server.public, connections).await?;
        Ok(Self { server: Some(server), connections, workload })
    }

    /// Opens `connections` to the upstream.
    pub(crate) async fn direct(upstream: SocketAddr, connections: usize, workload: Workload) -> Outcome<Self> {
        Ok(Self { server: None, connections: Connection::open_many(upstream, connections).await?, workload })
    }

    /// Returns the processor time of the server so far, in nanoseconds; zero for the upstream.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        self.server.map_or(Ok(0), Server::cpu_ns)
    }

    /// Runs `count` requests in a closed loop.
    pub(crate) async fn round(&mut self, count: u64) -> Outcome<Sample> {
        let before_ns = self.cpu_ns()?;
        let load = drive::closed(&mut self.connections, &mut self.workload, count).await?;
        Ok(Sample::new(self.cpu_ns()? - before_ns, &load))
    }
}

impl Sample {
    /// Combines the processor time and the latencies of one round.
    #[expect(clippy::cast_precision_loss, reason = "counts and times of a round are far below 2^52")]
    pub(crate) fn new(cpu_ns: u64, load: &Load) -> Self {
        let count = load.latencies_ns.len() as f64;
        Self {
            cpu_us: cpu_ns as f64 / 1e3 / count,
            p50_us: load.latencies_ns.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: load.latencies_ns.value_at_quantile(0.99) as f64 / 1e3,
            p999_us: load.latencies_ns.value_at_quantile(0.999) as f64 / 1e3,
            rate: count / load.wall.as_secs_f64(),
        }
    }

    /// Returns all numbers.
    pub(crate) fn json(self) -> Value {
        json!({
            "cpu_us": self.cpu_us,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "p999_us": self.p999_us,
            "requests_per_second": self.rate,
        })
    }
}

/// Measures two sides in turn, and `least` if given, with `count` requests a round. The first round of each does not
/// count.
pub(crate) async fn compare(
    bench: &Bench,
    [ours, theirs]: [&mut Side<'_>; 2],
    mut least: Option<&mut Side<'_>>,
    count: u64,
) -> Outcome<Comparison> {
    let mut comparison = Comparison::default();
    for round in 0..=bench.rounds() {
        let samples = (ours.round(count).await?, theirs.round(count).await?);
        let third = match &mut least {
            Some(least) => Some(least.round(count).await?),
            None => None,
        };
        if round > 0 {
            comparison.ours.push(samples.0);
            comparison.theirs.push(samples.1);
            comparison.floor.extend(third);
        }
    }
    Ok(comparison)
}

impl Comparison {
    /// Returns our median processor time divided by the reference server's.
    pub(crate) fn cpu_ratio(&self) -> f64 {
        median(&self.ours, |sample| sample.cpu_us) / median(&self.theirs, |sample| sample.cpu_us)
    }

    /// Returns our median 99th percentile divided by the reference server's.
    pub(crate) fn p99_ratio(&self) -> f64 {
        median(&self.ours, |sample| sample.p99_us) / median(&self.theirs, |sample| sample.p99_us)
    }

    /// Returns our median throughput divided by the reference server's.
    pub(crate) fn rate_ratio(&self) -> f64 {
        median(&self.ours, |sample| sample.rate) / median(&self.theirs, |sample| sample.rate)
    }

    /// Returns our median processor time divided by that of `least`.
    pub(crate) fn over_least(&self) -> f64 {
        median(&self.ours, |sample| sample.cpu_us) / median(&self.floor, |sample| sample.cpu_us)
    }

    /// Formats both ratios, and the ratio of `least` to the reference.
    pub(crate) fn shown(&self, reference: &str) -> String {
        let (ratio, over_least) = (self.cpu_ratio(), self.over_least());
        format!(
            "{ratio:.2} × {reference}, {over_least:.2} × the least, which is {:.2} × {reference}",
            ratio / over_least
        )
    }

    /// Formats the servers' absolute numbers in one sentence.
    pub(crate) fn reference(&self, name: &str) -> String {
        let part = |side: &[Sample]| {
            format!(
                "{:.1} µs CPU, p50 {:.0} µs, p99 {:.0} µs, {:.0}/s",
                median(side, |sample| sample.cpu_us),
                median(side, |sample| sample.p50_us),
                median(side, |sample| sample.p99_us),
                median(side, |sample| sample.rate)
            )
        };
        let least = if self.floor.is_empty() { String::new() } else { format!("; least {}", part(&self.floor)) };
        format!("vecho {}; {name} {}{least}", part(&self.ours), part(&self.theirs))
    }

    /// Formats the servers' absolute numbers and the slowest thousandth of their requests.
    pub(crate) fn reference_with_tail(&self, name: &str) -> String {
        let tail = |side: &[Sample]| median(side, |sample| sample.p999_us);
        let tails = format!("p99.9: vecho {:.0} µs, {name} {:.0} µs", tail(&self.ours), tail(&self.theirs));
        format!("{}; {tails}", self.reference(name))
    }

    /// Returns every round.
    pub(crate) fn json(&self) -> Value {
        let side = |samples: &[Sample]| samples.iter().map(|sample| sample.json()).collect::<Vec<_>>();
        json!({ "vecho": side(&self.ours), "reference": side(&self.theirs), "floor": side(&self.floor) })
    }
}

/// Returns the median of `of` over the samples; of an even number of samples, the upper of the two middle values.
pub(crate) fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

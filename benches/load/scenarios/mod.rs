//! The scenarios and their common set-up: an upstream with vecho in front of it.

mod crowds;
mod defaults;
mod entries;
mod herd;
mod hits;
mod large;
mod memory;
mod misses;
mod tiers;
mod zipf;

use std::cell::Cell;
use std::rc::Rc;

use serde::Deserialize;

use crate::Outcome;
use crate::bench::Bench;
use crate::child::Server;
use crate::client::Connection;
use crate::report::Row;
use crate::roles::upstream::Upstream;
use crate::shape::Shape;

/// All scenarios in execution order.
pub(crate) const NAMES: &[&str] = &[
    "hit1_base64",
    "hit1_float",
    "hit256_same",
    "hit256_shuffled",
    "large_answer",
    "default_hit1",
    "crowds",
    "crowds_two_workers",
    "half32",
    "default_half32",
    "miss1",
    "default_miss1",
    "miss_rate",
    "herd500",
    "zipf",
    "tiers",
    "idle_rss",
    "mem_per_vector",
    "entries",
];

/// Number of connections of a closed loop.
const CONNECTIONS: usize = 16;

/// Runs one scenario.
pub(crate) async fn run(name: &str, bench: &Bench) -> Outcome<Vec<Row>> {
    match name {
        "hit1_base64" => hits::one_base64(bench).await,
        "hit1_float" => hits::one_float(bench).await,
        "hit256_same" => hits::many_same(bench).await,
        "hit256_shuffled" => hits::many_shuffled(bench).await,
        "default_hit1" => hits::one_by_default(bench).await,
        "crowds" => crowds::by_size(bench, 1).await,
        "crowds_two_workers" => crowds::by_size(bench, 2).await,
        "large_answer" => large::streamed(bench).await,
        "half32" => misses::half_known(bench).await,
        "default_half32" => misses::half_known_by_default(bench).await,
        "miss1" => misses::one(bench).await,
        "default_miss1" => misses::one_by_default(bench).await,
        "miss_rate" => misses::constant_rate(bench).await,
        "herd500" => herd::five_hundred(bench).await,
        "zipf" => zipf::hundred_thousand(bench).await,
        "tiers" => tiers::by_tier(bench).await,
        "idle_rss" => memory::idle(bench).await,
        "mem_per_vector" => memory::per_vector(bench).await,
        "entries" => entries::many_against_few(bench).await,
        other => Err(format!("no scenario {other}").into()),
    }
}

/// Calls and inputs that the upstream received since its last reset.
#[derive(Deserialize, Clone, Copy, Debug)]
struct Counts {
    calls: u64,
    inputs: u64,
}

/// An upstream, and vecho in front of it.
struct Stage {
    upstream: Upstream,
    vecho: Server,
}

impl Stage {
    /// Starts both; `further` goes to vecho.
    async fn start(bench: &Bench, delay_ms: u64, further: &[&str]) -> Outcome<Self> {
        Self::with_workers(bench, 1, delay_ms, further).await
    }

    async fn with_workers(bench: &Bench, workers: usize, delay_ms: u64, further: &[&str]) -> Outcome<Self> {
        let upstream = Upstream::start(delay_ms).await?;
        let vecho = Server::vecho(bench, upstream.public, workers, further)?;
        Ok(Self { upstream, vecho })
    }

    async fn counts(&self) -> Outcome<Counts> {
        self.control("GET /count").await
    }

    async fn reset(&self) -> Outcome<()> {
        self.control("POST /reset").await.map(drop)
    }

    async fn control(&self, what: &str) -> Outcome<Counts> {
        let mut connection = Connection::open(self.upstream.public).await?;
        let request = format!("{what} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n");
        Ok(serde_json::from_slice(connection.exchange(request.as_bytes()).await?)?)
    }

    /// Fails unless exactly this many inputs went upstream since the last reset.
    async fn expect_inputs(&self, expected: u64) -> Outcome<()> {
        let found = self.counts().await?.inputs;
        if found == expected {
            return Ok(());
        }
        Err(format!("{found} inputs went upstream, not {expected}").into())
    }

    /// Requests these texts from vecho once, checks the response, and returns its body.
    async fn ask(&self, shape: &Shape, ids: &[u64]) -> Outcome<Vec<u8>> {
        ask(&self.vecho, shape, ids).await
    }

    /// Requests the texts in `ids` in batches, so that vecho holds them afterwards.
    async fn fill(&self, shape: &Shape, ids: std::ops::Range<u64>, batch: usize) -> Outcome<()> {
        let mut connection = Connection::open(self.vecho.public).await?;
        let ids: Vec<u64> = ids.collect();
        let mut request = Vec::new();
        for (position, some) in ids.chunks(batch).enumerate() {
            shape.write_request(some, u64::MAX, &mut request);
            let body = connection.exchange(&request).await?;
            if position.is_multiple_of(64) {
                shape.check(some, body)?;
            }
        }
        Ok(())
    }
}

/// Requests these texts from a server once, checks the response, and returns its body.
async fn ask(server: &Server, shape: &Shape, ids: &[u64]) -> Outcome<Vec<u8>> {
    let mut request = Vec::new();
    shape.write_request(ids, u64::MAX, &mut request);
    let mut connection = Connection::open(server.public).await?;
    let body = connection.exchange(&request).await?;
    shape.check(ids, body)?;
    Ok(body.to_vec())
}

/// Numbers of texts that no request has used yet; clones share the count.
#[derive(Clone)]
struct FreshIds(Rc<Cell<u64>>);

impl FreshIds {
    fn from(first: u64) -> Self {
        Self(Rc::new(Cell::new(first)))
    }

    fn next(&self) -> u64 {
        let id = self.0.get();
        self.0.set(id + 1);
        id
    }
}

/// Formats a ratio as `1.23 ×`.
fn times(ratio: f64) -> String {
    format!("{ratio:.2} ×")
}

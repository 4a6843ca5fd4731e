//! Runs one row: directly, through a cold vecho, through a warm one, and with many similar requests at once.

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method};
use vecho::app::{App, Surroundings};
use vecho::config::Config;
use vecho::process::clock::Clock;

use super::row::{Expect, Row};
use super::server::Server;
use super::verdict::{Complaints, compare, has_vectors, not_a_hit, shown, word};
use crate::harness::Client;
use crate::harness::client::{Answer, raw};

/// Number of concurrent requests, more than `upstream.max_concurrent`.
const BURST: usize = 30;

/// Number of concurrent failing requests. Together with the row's own request, they are fewer than `breaker.failures`.
const FAILING_BURST: usize = 3;

/// Maximum number of calls for a request on which the server fails: `retry.max_attempts`.
const MOST_TRIES: usize = 3;

/// The result of a row.
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// True if the answers were as good as the direct ones.
    pub(crate) is_good: bool,
    /// True if the second answer came from the cache without a call.
    pub(crate) is_cached: bool,
    pub(crate) complaints: Complaints,
}

/// Starts vecho with the default configuration, except for its ports, its disk and the waits between retries.
pub(crate) async fn start(upstream: &str, settings: &[(&str, &str)]) -> Result<App, String> {
    let own = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", "127.0.0.1:0"),
        ("upstream.url", upstream),
        ("disk.enabled", "false"),
        ("retry.base_wait", "1ms"),
        ("retry.max_wait", "1ms"),
    ];
    let config = Config::from_pairs(&[&own[..], settings].concat()).map_err(|faults| faults.to_string())?;
    let surroundings = Surroundings::detached(Clock::manual(1_700_000_000_000));
    App::start(config, surroundings).await.map_err(|error| error.to_string())
}

/// A server and vecho in front of it.
struct Bench {
    server: Server,
    app: App,
    client: Client,
}

/// Runs a row.
pub(crate) async fn run(row: &Row) -> Outcome {
    let mut outcome = Outcome { name: row.name(), is_good: false, is_cached: false, complaints: Complaints::new() };
    match Bench::new(row).await {
        Ok(bench) => bench.fill(row, &mut outcome).await,
        Err(fault) => outcome.complaints.push(fault),
    }
    outcome
}

/// Runs rows of one server through one vecho, in several rounds, forwards and backwards.
pub(crate) async fn mix(rows: &[&Row]) -> Complaints {
    let bench = Bench::new(rows[0]).await.unwrap_or_else(|fault| panic!("{fault}"));
    let mut complaints = Complaints::new();
    for round in 0..4 {
        let mut turn = rows.to_vec();
        if round % 2 == 1 {
            turn.reverse();
        }
        for row in turn {
            // Two rounds have the same inputs, so both misses and hits occur.
            let (direct, through, _) = bench.both(row, round / 2).await;
            if is_known_from_another(row, round / 2, &through) {
                continue;
            }
            let found = judge(row, round / 2, &direct, &through).into_iter();
            complaints.extend(found.map(|complaint| format!("{}: {complaint}", row.name())));
        }
    }
    complaints.dedup();
    complaints
}

/// Returns true for a hit on vectors of an earlier request. The server alone might refuse the form of this request.
fn is_known_from_another(row: &Row, round: usize, through: &Answer) -> bool {
    word(through) == "hit" && has_vectors(through, &row.vectors(round)).is_ok()
}

/// Reports every difference that makes the answer worse than the direct one.
fn judge(row: &Row, round: usize, direct: &Answer, through: &Answer) -> Complaints {
    let may_be_cut = matches!(row.expect, Expect::Cut | Expect::AsDirect(_)) && direct.status >= 400;
    let may_be_better = may_be_cut || row.dialect.garbles;
    if may_be_better && has_vectors(through, &row.vectors(round)).is_ok() {
        return Complaints::new();
    }
    compare(row, direct, through)
}

/// Checks the number of calls: one if the server refuses the caller's own bytes, a few if the server fails.
fn check_calls(row: &Row, calls: usize) -> Option<String> {
    let most = match row.expect {
        Expect::Refused | Expect::Bypass(_) => 1,
        Expect::Fails => MOST_TRIES,
        Expect::Hit | Expect::Cut | Expect::AsDirect(_) => return None,
    };
    (calls == 0 || calls > most).then(|| format!("{calls} calls in place of 1 to {most}"))
}

/// Reports a row whose expectation contradicts the direct answer.
fn check_status(row: &Row, direct: &Answer) -> Option<String> {
    let is_right = match row.expect {
        Expect::Refused | Expect::Cut => (400..500).contains(&direct.status),
        Expect::Fails => direct.status >= 500,
        Expect::Hit | Expect::Bypass(_) => direct.status == 200,
        Expect::AsDirect(_) => true,
    };
    (!is_right).then(|| format!("the row is wrong: directly {} {}", direct.status, shown(direct)))
}

impl Bench {
    async fn new(row: &Row) -> Result<Self, String> {
        let server = Server::start(row.dialect.clone()).await;
        let app = start(&server.url(row.dialect.base), &row.settings).await?;
        Ok(Self { server, app, client: Client::new() })
    }

    async fn fill(&self, row: &Row, outcome: &mut Outcome) {
        let (direct, cold, cold_calls) = self.both(row, 0).await;
        let before = self.server.count();
        let warm = self.through(row, 0).await;
        let warm_calls = self.server.count() - before;
        let mut good = judge(row, 0, &direct, &cold);
        good.extend(check_calls(row, cold_calls));
        good.extend(judge(row, 0, &direct, &warm).into_iter().map(|complaint| format!("warm: {complaint}")));
        good.extend(self.burst(row).await);
        outcome.is_good = good.is_empty();
        outcome.complaints.extend(good);
        match row.expect {
            Expect::Hit | Expect::Cut => {
                let missed = not_a_hit(&warm, warm_calls);
                outcome.is_cached = missed.is_empty();
                outcome.complaints.extend(missed);
            }
            Expect::Bypass(reason) => outcome.complaints.extend(other_reason(&warm, reason)),
            Expect::Refused | Expect::Fails => outcome.complaints.extend(check_calls(row, warm_calls)),
            Expect::AsDirect(_) => {}
        }
        outcome.complaints.extend(check_status(row, &direct));
    }

    /// Sends a request to the server, then to vecho, and returns both answers and the number of vecho's calls.
    async fn both(&self, row: &Row, round: usize) -> (Answer, Answer, usize) {
        let direct = self.direct(row, round).await;
        let before = self.server.count();
        let through = self.through(row, round).await;
        (direct, through, self.server.count() - before)
    }

    /// Sends concurrent requests of the same kind with different inputs, and checks that each one gets its own answer.
    async fn burst(&self, row: &Row) -> Complaints {
        let count = if row.expect == Expect::Fails { FAILING_BURST } else { BURST };
        let rounds = (1..=count).map(async |round| (round, self.through(row, round).await));
        let mut complaints = Complaints::new();
        for (round, through) in join_all(rounds).await {
            let direct = self.direct(row, round).await;
            complaints.extend(judge(row, round, &direct, &through));
        }
        complaints.dedup();
        complaints.truncate(3);
        complaints.into_iter().map(|complaint| format!("{count} at once: {complaint}")).collect()
    }

    /// Sends a request to the server on a new connection and follows a redirect, as the SDKs do.
    async fn direct(&self, row: &Row, round: usize) -> Answer {
        let client = Client::new();
        let answer = send(&client, row, self.server.url(row.direct_path), round).await;
        match answer.header("location") {
            Some(location) if (300..400).contains(&answer.status) => {
                send(&client, row, location.to_owned(), round).await
            }
            _ => answer,
        }
    }

    async fn through(&self, row: &Row, round: usize) -> Answer {
        send(&self.client, row, format!("http://{}{}", self.app.public_addr(), row.path), round).await
    }
}

async fn send(client: &Client, row: &Row, url: String, round: usize) -> Answer {
    let mut request = raw(Method::POST, &url, row.request.body(row.dialect.model, round));
    let key = ("authorization", "Bearer sk-of-the-caller");
    for (name, value) in [key].iter().chain(&row.request.headers) {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    client.send(request).await.unwrap_or_else(|error| no_answer(&error.to_string()))
}

/// Returns an answer that represents a connection closed without an answer.
fn no_answer(error: &str) -> Answer {
    Answer { status: 0, headers: http::HeaderMap::new(), body: error.to_owned().into() }
}

fn other_reason(answer: &Answer, reason: &str) -> Option<String> {
    let said = answer.header("x-vecho-bypass-reason").unwrap_or_default();
    // A reason may be followed by the name of the member.
    let is_right = word(answer) == "bypass" && said.split([' ', ':', ';', ',', '=']).next() == Some(reason);
    (!is_right).then(|| format!("`{}` {said:?} in place of a bypass for {reason}", word(answer)))
}

//! One vecho, one upstream, and the model of both. Each step changes them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use tokio::time::timeout;
use vecho::app::{App, Surroundings};
use vecho::config::Config;
use vecho::process::clock::Clock;
use vecho::process::workers::Workers;

use super::dice::Dice;
use super::ledger::{Ledger, STALE_MS, TTL_MS};
use super::newest::Newest;
use super::verdict::{Terms, judge};
use super::weather::{Weather, successor};
use super::wish::{Control, Wish};
use crate::harness::client::{Answer, NoAnswer, raw};
use crate::harness::stub::Input;
use crate::harness::{Behaviour, Client, Stub};

/// Some days after the epoch, so no age is cut off at zero.
const BEGINNING_MS: u64 = 1_000_000_000;
const DEADLINE: Duration = Duration::from_secs(20);

/// Gauges that must be zero when no request is in flight.
const GAUGES: &[&str] = &[
    "vecho_requests_in_flight",
    "vecho_body_bytes_in_flight",
    "vecho_flights",
    "vecho_upstream_in_flight",
    "vecho_upstream_queued_inputs",
];

pub(super) struct World {
    app: App,
    stub: Stub,
    client: Client,
    clock: Clock,
    ledger: Ledger,
    /// The configuration that was drawn.
    pairs: Vec<(&'static str, String)>,
    breaks: bool,
    fallback: &'static str,
    /// Requests that are repeated exactly.
    habits: Vec<Wish>,
    /// The models that answered last, as far as they are known.
    newest: Newest,
    fresh: usize,
    last: String,
}

/// A complete answer, an error, or `None` if the caller disconnected first.
type Ending = Option<Result<Answer, NoAnswer>>;

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration {:?}\nlast: {}", self.pairs, self.last)
    }
}

impl World {
    pub(super) async fn start(dice: &mut Dice) -> Self {
        let stub = Stub::start();
        let clock = Clock::manual(BEGINNING_MS);
        let fallback = dice.pick(&["mock", "mock", "mock", "stale", "error"]);
        let breaks = dice.percent(25);
        let scope = dice.pick(&["credential", "credential", "shared"]);
        let mut pairs = vec![
            ("listen", "127.0.0.1:0".to_owned()),
            ("admin_listen", "127.0.0.1:0".to_owned()),
            ("upstream.url", stub.base_url()),
            ("upstream.encoding", dice.pick(&["auto", "as_asked", "base64", "float"]).to_owned()),
            ("upstream.max_concurrent", dice.pick(&[1, 2, 4, 20]).to_string()),
            ("batch.max_inputs", dice.pick(&[1, 3, 8, 2048]).to_string()),
            ("retry.max_attempts", dice.pick(&[1, 2, 3]).to_string()),
            ("retry.base_wait", "1ms".to_owned()),
            ("breaker.failures", if breaks { "3" } else { "0" }.to_owned()),
            ("breaker.open_for", "5ms".to_owned()),
            ("breaker.max_open", "20ms".to_owned()),
            ("fallback.mode", fallback.to_owned()),
            ("cache.ttl", format!("{TTL_MS}ms")),
            ("cache.stale_for", format!("{STALE_MS}ms")),
            ("cache.scope", scope.to_owned()),
            ("cache.codec", dice.pick(&["lossless", "f32"]).to_owned()),
            ("cache.answers_percent", dice.pick(&[0, 10, 10]).to_string()),
        ];
        if dice.percent(30) {
            pairs.push(("cache.max_entries", dice.pick(&[4, 30]).to_string()));
        }
        if dice.percent(30) {
            pairs.push(("cache.key_secret", "a secret of the test".to_owned()));
        }
        // Drawn aside, so the other choices of a seed do not depend on it.
        let count = dice.aside(b"workers").pick(&[1, 2, 3, 4]);
        pairs.push(("workers", count.to_string()));
        let workers = Workers::start(count).expect("the system has a few threads left");
        let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let config = Config::from_pairs(&borrowed).expect("the configuration is free of faults");
        let surroundings = Surroundings { workers: Some(workers), ..Surroundings::detached(clock.clone()) };
        let app = App::start(config, surroundings).await.expect("it starts");
        let (client, ledger) = (Client::new(), Ledger::new(scope == "shared"));
        let habits = (0..3).map(|_| Wish::draw(dice)).map(|wish| wish.plain(wish.inputs.clone())).collect();
        let newest = Newest::new(scope == "shared");
        Self {
            app,
            stub,
            client,
            clock,
            ledger,
            pairs,
            breaks,
            fallback,
            habits,
            newest,
            fresh: 0,
            last: String::new(),
        }
    }

    pub(super) async fn stop(self) {
        let stopped = self.app.stop().await;
        assert_eq!((stopped.cut_connections, stopped.cut_fetches), (0, 0), "nothing is left to cut");
    }

    /// Runs one random step, then waits until no request is in flight.
    pub(super) async fn step(&mut self, dice: &mut Dice) -> Result<(), String> {
        match dice.below(13) {
            0 | 12 => self.jump(dice),
            1 => self.purge_at_rest(dice).await?,
            2 if !self.breaks => self.purge_under_way(dice).await?,
            3 => {
                self.stub.down().await;
                let weather = Weather::calm(dice);
                let outcome = self.traffic(dice, weather, false).await;
                self.stub.up().await;
                outcome?;
            }
            4..=6 => {
                let (weather, calm) = (Weather::calm(dice), !self.breaks);
                self.traffic(dice, weather, calm).await?;
            }
            _ => {
                let weather = Weather::draw(dice);
                self.traffic(dice, weather, false).await?;
            }
        }
        self.rest().await
    }

    fn jump(&mut self, dice: &mut Dice) {
        const OVER_MS: u64 = TTL_MS + STALE_MS;
        let by_ms = dice.pick(&[1, 5_000, 11_000, 61_000, TTL_MS - 1, TTL_MS, OVER_MS - 1, OVER_MS, OVER_MS]);
        self.last = format!("{by_ms} ms go by");
        self.clock.advance_ms(by_ms);
    }

    async fn purge(client: Client, url: String) -> Result<(), String> {
        let answer = client.send(raw(Method::DELETE, &url, "")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("a purge ended with {answer:?}")) }
    }

    fn purge_url(&self, model: Option<&str>) -> String {
        let query = model.map_or_else(String::new, |model| format!("?model={model}"));
        format!("http://{}/api/performance/cache{query}", self.app.admin_addr())
    }

    async fn purge_at_rest(&mut self, dice: &mut Dice) -> Result<(), String> {
        let model = dice.percent(60).then(|| Wish::draw(dice).model);
        self.last = format!("a purge of {model:?} at rest");
        let Some(model) = model else {
            self.ledger.forget_all();
            return Self::purge(self.client.clone(), self.purge_url(None)).await;
        };
        for name in [model.to_owned(), successor(model)] {
            Self::purge(self.client.clone(), self.purge_url(Some(&name))).await?;
        }
        self.ledger.forget_model(model);
        Ok(())
    }

    /// Purges during a fetch. The fetched vector must not be stored after the purge.
    async fn purge_under_way(&mut self, dice: &mut Dice) -> Result<(), String> {
        self.fresh += 1;
        let wish = Wish::draw(dice).plain(vec![Input::Text(format!("fresh {}", self.fresh))]);
        self.last = format!("a purge while {wish:?} is fetched");
        self.newest.forget(&wish);
        self.stub.decide(|_| Behaviour::Gate);
        let asked = tokio::spawn(ask(self.client.clone(), wish.clone(), self.base_url()));
        self.stub.held(1).await;
        let url = self.purge_url(dice.percent(50).then_some(wish.model));
        Self::purge(self.client.clone(), url).await?;
        self.stub.release(1);
        let answer = asked.await.map_err(|error| error.to_string())?.ok_or("it hung up")?;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("a fetch that was purged under way ended with {answer:?}"));
        }
        self.stub.decide(|_| Behaviour::Normal);
        self.rest().await?;
        let probe = Wish { control: Control::OnlyIfCached, ..wish };
        let stored = ask(self.client.clone(), probe, self.base_url()).await;
        match stored.expect("it does not hang up") {
            Ok(answer) if answer.status == 504 => Ok(()),
            other => Err(format!("what was fetched before a purge was stored after it: {other:?}")),
        }
    }

    /// Draws requests: new ones, repeated ones, and sometimes many identical ones.
    fn draw_wishes(&self, dice: &mut Dice) -> Vec<Wish> {
        let herd = dice.percent(30).then(|| Wish::draw(dice));
        let count = 1 + dice.below(12);
        let mut wish = || match (dice.below(10), &herd) {
            (0..=2, _) => Wish { control: Control::draw(dice), ..dice.pick(&self.habits) },
            (3..=6, Some(herd)) => herd.clone(),
            _ => Wish::draw(dice),
        };
        (0..count).map(|_| wish()).collect()
    }

    /// Runs several concurrent callers, sometimes with a purge in between.
    async fn traffic(&mut self, dice: &mut Dice, weather: Weather, calm: bool) -> Result<(), String> {
        let wishes = self.draw_wishes(dice);
        self.last = format!("{weather:?}, calm {calm}");
        self.stub.decide(weather.decision());
        self.ledger.begin(&wishes, !weather.drift.is_multiple_of(100));
        let client = Client::new();
        let asked: Vec<_> =
            wishes.iter().map(|wish| tokio::spawn(ask(client.clone(), wish.clone(), self.base_url()))).collect();
        if dice.percent(25) {
            let model = dice.percent(50).then(|| wishes[0].model);
            Self::purge(self.client.clone(), self.purge_url(model)).await?;
        }
        let (now_ms, terms) = (self.clock.now_ms(), Terms { fallback: self.fallback, calm });
        let (mut complaints, mut answers) = (Vec::new(), Vec::new());
        for (number, (wish, asked)) in wishes.iter().zip(asked).enumerate() {
            let verdict = match timeout(DEADLINE, asked).await {
                Err(_) => Err("no answer at all".to_owned()),
                Ok(Err(panic)) => Err(panic.to_string()),
                Ok(Ok(None)) => Ok(()),
                // A body that passes through is cut at the same place as the upstream's.
                Ok(Ok(Some(Err(error)))) => {
                    if calm {
                        Err(error.to_string())
                    } else {
                        Ok(())
                    }
                }
                Ok(Ok(Some(Ok(answer)))) => {
                    answers.push((wish, answer.clone()));
                    let verdict = judge(wish, &answer, &self.ledger.allowed(number, wish, now_ms), terms);
                    verdict.map_err(|complaint| format!("{complaint}\n{answer:?}"))
                }
            };
            complaints.extend(verdict.err().map(|complaint| format!("{complaint}\nto {wish:?}")));
        }
        self.ledger.end(now_ms);
        complaints.extend(self.newest.judge_and_learn(&wishes, &answers));
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n\n")) }
    }

    /// Waits until no request is in flight.
    async fn rest(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let (_, text) = self.app.metrics().render();
            let busy: Vec<&str> = GAUGES.iter().filter_map(|name| busy(&text, name)).collect();
            if busy.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                return Err(format!("nothing should be under way: {busy:?}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn base_url(&self) -> Arc<str> {
        format!("http://{}/v1", self.app.public_addr()).into()
    }
}

/// Returns the line of a gauge that is not zero.
fn busy<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("the metric {name} is there"));
    (!line.ends_with(" 0")).then_some(line)
}

async fn ask(client: Client, wish: Wish, base_url: Arc<str>) -> Ending {
    let answer = client.send(wish.request(&base_url));
    match wish.hangs_up_after {
        Some(limit) => timeout(limit, answer).await.ok(),
        None => Some(answer.await),
    }
}

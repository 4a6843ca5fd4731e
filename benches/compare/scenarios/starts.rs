//! Cold start: time from the start of the processes to the first correct answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::median;
use crate::Outcome;
use crate::bench::Bench;
use crate::proxies::Proxy;
use crate::report::{Row, duration};
use crate::roles::upstream::Upstream;
use crate::stage::{Cores, Running, Stage};

/// Starts of all proxies.
#[derive(Default)]
pub(crate) struct Starts(Vec<(Proxy, Duration)>);

impl Starts {
    /// Starts and ends each proxy once. A failure is reported by the stage that needs the proxy.
    pub(crate) async fn once(&mut self, bench: &Bench) -> Outcome<()> {
        let upstream = Upstream::start(0).await?;
        for proxy in Proxy::ALL {
            if let Ok(running) = Running::start(bench, proxy, Cores::One, upstream.public).await {
                self.0.push((proxy, running.started_within));
            }
        }
        Ok(())
    }

    /// Adds the starts of a stage.
    pub(crate) fn add(&mut self, stage: &Stage) {
        self.0.extend(stage.proxies.iter().map(|running| (running.proxy, running.started_within)));
    }

    /// Returns true if nothing was started.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the row of the table.
    pub(crate) fn row(&self) -> Row {
        let cell = |proxy: Proxy| duration(median(self.of(proxy).map(|time| time.as_secs_f64() * 1e6)));
        let started = Proxy::ALL.into_iter().filter(|proxy| self.of(*proxy).next().is_some());
        let cells = started.map(|proxy| (proxy, Ok(cell(proxy)))).collect();
        Row { what: "cold start: from the start of the process to the first answer".to_owned(), cells }
    }

    /// Returns all starts.
    pub(crate) fn json(&self) -> Value {
        let start = |(proxy, time): &(Proxy, Duration)| json!({ "proxy": proxy.name(), "seconds": time.as_secs_f64() });
        json!(self.0.iter().map(start).collect::<Vec<Value>>())
    }

    fn of(&self, proxy: Proxy) -> impl Iterator<Item = Duration> {
        self.0.iter().filter(move |(its, _)| *its == proxy).map(|(_, time)| *time)
    }
}

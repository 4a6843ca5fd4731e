//! Divides the configured limits among replicas.
//!
//! Each replica writes how much of a limit it would use, and reads the same of the others, at most once a second for
//! each credential and model in use. If that fails, each replica has an equal part of the limit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::pacer::Pacer;
use super::pacers::Pacers;
use super::replicas::{Replicas, field};
use crate::process::random;
use crate::process::shared_fields::{ReplicaFields, SharedFields};

/// Interval of looks at the pacers.
const STEP: Duration = Duration::from_millis(250);

/// Interval of exchanges for one pacer.
const EXCHANGE_EVERY: Duration = Duration::from_secs(1);

/// Time after its last call for which a replica takes part. Afterwards the others have its part.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// Time for which the fields of one credential and model are kept after the last write.
const KEPT_FOR: Duration = Duration::from_mins(2);

/// Time after which a failed exchange is logged. A start and a short break are no outage.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// Shares the limits of the pacers of one place.
pub(in crate::upstream) struct PaceSharing {
    store: Arc<dyn SharedFields>,
    replica: String,
    failing_since: Option<Instant>,
    is_told: bool,
}

impl PaceSharing {
    pub(in crate::upstream) fn new(store: Arc<dyn SharedFields>) -> Self {
        let mut name = [0; 8];
        random::fill(&mut name);
        let replica = format!("{:016x}", u64::from_be_bytes(name));
        Self { store, replica, failing_since: None, is_told: false }
    }

    /// Shares the limits. Never returns.
    pub(in crate::upstream) async fn run(mut self, place: &str, pacers: &Pacers) {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            let mut exchanges: FuturesUnordered<_> = pacers
                .entries()
                .filter(|(_, pacer)| pacer.is_due(EXCHANGE_EVERY, ACTIVE_FOR))
                .map(|(key, pacer)| self.exchange(format!("pace:{key}:{place}"), pacer))
                .collect();
            let mut result = None;
            while let Some(exchanged) = exchanges.next().await {
                result = Some(result.unwrap_or(Ok(())).and(exchanged));
            }
            drop(exchanges);
            match result {
                Some(Ok(())) => self.ended(),
                Some(Err(cause)) => self.failed(&cause),
                None => {}
            }
        }
    }

    async fn exchange(&self, table: String, pacer: Arc<Pacer>) -> Result<(), String> {
        let (sequence, wanted) = pacer.next_exchange();
        let own = ReplicaFields::from([(self.replica.clone(), field(sequence, wanted))]);
        let gone = pacer.gone_replicas();
        match self.store.exchange(&table, (&own, &gone), KEPT_FOR).await {
            Ok(fields) => {
                pacer.learn_others(
                    |replicas: &mut Replicas| replicas.learn(&self.replica, &fields, Instant::now()),
                    wanted,
                );
                Ok(())
            }
            Err(cause) => {
                pacer.lose_others();
                Err(cause)
            }
        }
    }

    fn failed(&mut self, cause: &str) {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TOLD_AFTER && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(cause, "rate limits are not shared: each replica has an equal part of them");
        }
    }

    fn ended(&mut self) {
        self.failing_since = None;
        if std::mem::take(&mut self.is_told) {
            tracing::info!("rate limits are shared again");
        }
    }
}

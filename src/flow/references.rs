//! References of targets that outlive the process: records under keys of the model, in the tiers below memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::texts_lease::TextsLease;
use crate::cache::{Leases, Record, Stack, Times};
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::process::clock::Clock;
use crate::upstream::{Reference, References, UnreadReferences, canary_keys};
use crate::vector::packed::{Codec, Packed};

/// Time for which a reference is kept: ten years.
const KEPT_FOR_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// Longest wait for another replica that stores the reference, and the pause between two requests for the lease.
const LONGEST_AGREEMENT: Duration = Duration::from_secs(2);
const AGREEMENT_PAUSE: Duration = Duration::from_millis(10);

/// References in the tiers below memory.
pub struct StoredReferences {
    /// The tiers.
    pub tiers: Arc<Stack>,
    /// Wall clock.
    pub clock: Clock,
    /// Leases that decide between replicas that begin at the same time.
    pub leases: Option<Arc<dyn Leases>>,
}

impl StoredReferences {
    /// Waits for the lease on the reference, but not for long: calls of a request wait as well.
    async fn lease(&self, model: Key) -> Option<TextsLease> {
        let (keys, until) = (canary_keys(&model), Instant::now() + LONGEST_AGREEMENT);
        loop {
            let lease = TextsLease::request(self.leases.as_ref(), &keys).await;
            if lease.is_some() || Instant::now() >= until {
                return lease;
            }
            sleep(AGREEMENT_PAUSE).await;
        }
    }
}

impl References for StoredReferences {
    fn find(&self, model: Key) -> BoxFuture<'_, Result<Option<Reference>, UnreadReferences>> {
        Box::pin(async move {
            let records = self.tiers.newest_below(&canary_keys(&model)).await;
            match reference_of(records) {
                Some(reference) => Ok(Some(reference)),
                None if self.tiers.are_up() => Ok(None),
                None => Err(UnreadReferences),
            }
        })
    }

    fn begin<'a>(&'a self, model: Key, asked_model: &'a str, reference: Reference) -> BoxFuture<'a, Reference> {
        Box::pin(async move {
            let _lease = self.lease(model).await;
            if self.leases.is_some()
                && let Ok(Some(theirs)) = self.find(model).await
            {
                return theirs;
            }
            self.keep(model, asked_model, &reference);
            reference
        })
    }

    fn keep(&self, model: Key, asked_model: &str, reference: &Reference) {
        let created_ms = self.clock.now_ms();
        // Entries of the model may be stored at any later time, and a restart compares their targets with this.
        let until_ms = created_ms.saturating_add(KEPT_FOR_MS);
        let times = Times { created_ms, fresh_until_ms: until_ms, stale_until_ms: until_ms };
        for (key, vector) in canary_keys(&model).into_iter().zip(&reference.vectors) {
            let identity =
                ModelIdentity { model: Arc::clone(&reference.model), dimension: vector.dimension(), revision: 0 };
            let record = Record::new(Packed::pack(vector, Codec::Lossless), identity, times, None);
            self.tiers.keep_below(key, &record.asked_as(&Arc::from(asked_model)), self.tiers.generation());
        }
    }
}

fn reference_of(records: Vec<Option<Record>>) -> Option<Reference> {
    let records: Vec<Record> = records.into_iter().collect::<Option<_>>()?;
    let first = records.first()?.identity.clone();
    // Two replicas may have written at the same time, each a part.
    let is_one = records.iter().all(|record| record.identity == first);
    let vectors = records.iter().map(|record| record.vector.unpack()).collect();
    is_one.then_some(Reference { model: first.model, vectors })
}

//! What is known of the other replicas that use one limit.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::share::{equal_share, share_of};
use crate::process::shared_fields::ReplicaFields;

/// Time after which a replica that writes nothing new is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// The other replicas by name.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    others: BTreeMap<String, OtherReplica>,
    /// Number of those that were active at the last exchange.
    active: usize,
}

/// Another replica as it last wrote.
#[derive(Clone, Copy, Debug)]
struct OtherReplica {
    sequence: u64,
    wanted: f64,
    /// Time at which its sequence changed, by this replica's clock. So clocks need not agree.
    changed: Instant,
}

/// Returns the field of a replica: the number of the exchange, and the part of the limit that it would use.
pub(super) fn field(sequence: u64, wanted: f64) -> String {
    format!("{sequence} {wanted:.4}")
}

fn read(text: &str) -> Option<(u64, f64)> {
    let (sequence, wanted) = text.split_once(' ')?;
    let wanted = wanted.parse().ok().filter(|wanted: &f64| wanted.is_finite() && *wanted >= 0.0)?;
    Some((sequence.parse().ok()?, wanted))
}

impl Replicas {
    /// Takes over the fields of all replicas. Those that cannot be read are left out.
    pub(super) fn learn(&mut self, own: &str, fields: &ReplicaFields, now: Instant) {
        for (name, text) in fields.iter().filter(|(name, _)| *name != own) {
            let Some((sequence, wanted)) = read(text) else { continue };
            let is_new = self.others.get(name).is_none_or(|known| known.sequence != sequence);
            if is_new {
                self.others.insert(name.clone(), OtherReplica { sequence, wanted, changed: now });
            }
        }
        self.others.retain(|name, _| fields.contains_key(name));
        self.active = self.active(now).count();
    }

    /// Returns the part of the limit for this replica, which would use `own` of it.
    pub(super) fn share(&self, own: f64, now: Instant) -> f64 {
        let others: Vec<f64> = self.active(now).map(|other| other.wanted).collect();
        share_of(own, &others)
    }

    /// Returns the part of the limit for this replica if nothing new is known of the others.
    pub(super) fn equal_share(&self) -> f64 {
        equal_share(self.active + 1)
    }

    fn active(&self, now: Instant) -> impl Iterator<Item = &OtherReplica> {
        self.others.values().filter(move |other| now.saturating_duration_since(other.changed) < GONE_AFTER)
    }
}

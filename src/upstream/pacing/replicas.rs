//! What is known of the other replicas that use one limit.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::share::{equal_share, share_of};
use crate::process::shared_fields::ReplicaFields;

/// Time after which a replica that writes nothing new is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Time after which its field is removed: each start of a process adds one, so the table would grow.
const REMOVED_AFTER: Duration = Duration::from_mins(1);

/// The other replicas by name.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    others: BTreeMap<String, OtherReplica>,
    /// Number of those that were active at the last exchange.
    active: usize,
    /// Time of the last exchange. Between exchanges, this replica sees nothing of the others.
    learned: Option<Instant>,
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
        self.learned = Some(now);
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

    /// Returns the replicas whose fields are removed.
    pub(super) fn gone(&self) -> Vec<String> {
        let Some(learned) = self.learned else { return Vec::new() };
        let is_gone = |other: &OtherReplica| learned.saturating_duration_since(other.changed) >= REMOVED_AFTER;
        self.others.iter().filter(|(_, other)| is_gone(other)).map(|(name, _)| name.clone()).collect()
    }

    fn active(&self, now: Instant) -> impl Iterator<Item = &OtherReplica> {
        self.others.values().filter(move |other| now.saturating_duration_since(other.changed) < GONE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_writes_nothing_new_counts_no_more_and_is_removed_later() {
        let (mut replicas, begun) = (Replicas::default(), Instant::now());
        let fields = |sequence: u64| {
            ReplicaFields::from([("dead".to_owned(), field(1, 0.5)), ("living".to_owned(), field(sequence, 0.5))])
        };
        let mut seen = Vec::new();
        for second in 0..=60 {
            let now = begun + Duration::from_secs(second);
            replicas.learn("own", &fields(second), now);
            seen.push((replicas.active, replicas.gone()));
        }
        assert_eq!(seen[9], (2, vec![]));
        assert_eq!((seen[10].0, &seen[59].1[..]), (1, &[][..]));
        assert_eq!(seen[60].1, ["dead"]);
        // A replica that had no calls for long removes none of those that had some.
        let mut returned = Replicas::default();
        returned.learn("own", &fields(0), begun);
        assert_eq!(returned.gone(), [""; 0]);
        returned.learn("own", &fields(1), begun + REMOVED_AFTER);
        assert_eq!(returned.gone(), ["dead"]);
    }
}

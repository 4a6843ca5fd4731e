//! Records that vecho keeps for itself below memory, such as the vectors of its own texts.

use bytes::Bytes;
use futures_util::future::join_all;

use super::tiers::Stack;
use crate::cache::Record;
use crate::cache::at_rest;
use crate::key::Key;

impl Stack {
    /// Encodes a record of this process, with its purge counts, for a place outside the tiers.
    pub fn seal(&self, key: &Key, record: &Record) -> Bytes {
        let counts = self.purges.stamp(key, &record.models());
        Bytes::from(at_rest::to_bytes(record, counts, &self.checksum_keys.of(key)))
    }

    /// Decodes what [`Stack::seal`] returned. Returns `None` if the record has been purged since.
    pub fn unseal(&self, key: &Key, bytes: &[u8]) -> Option<Record> {
        self.unpurged(key, bytes).ok().flatten().map(|(record, _)| record)
    }

    /// Returns for each key the newest record that a tier below memory holds.
    pub async fn newest_below(&self, keys: &[Key]) -> Vec<Option<Record>> {
        let answers = join_all(self.lower.iter().map(|tier| tier.get(keys))).await;
        let newest = |place: usize| {
            let bytes = answers.iter().filter_map(|answer| answer.get(place)?.as_ref());
            let records = bytes.filter_map(|bytes| self.unseal(&keys[place], bytes));
            records.max_by_key(|record| (record.identity.revision, record.times.created_ms))
        };
        (0..keys.len()).map(newest).collect()
    }

    /// Returns true if every tier below memory works, so that a record that was not found does not exist.
    pub fn are_up(&self) -> bool {
        self.lower.iter().all(|tier| tier.stats().up)
    }

    /// Returns true if other replicas write to a tier below memory.
    pub fn is_shared(&self) -> bool {
        self.lower.iter().any(|tier| tier.is_shared())
    }
}

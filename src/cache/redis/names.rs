//! Names of keys in Redis.
//!
//! Cache keys are written in hexadecimal. This takes 32 bytes more than raw keys, a hundredth of an entry, and makes
//! names readable in redis-cli, MONITOR and access control lists. A cluster chooses the slot of a name by the text in
//! braces, so a record and its lease share a node, while different keys spread over all nodes.

use crate::key::Key;

/// Version of the names. It must change if names get a new meaning. Records carry a version of their own.
const LAYOUT: u32 = 1;

/// Names below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}{LAYOUT}:") }
    }

    /// Returns the name of a record. `clear_count` is the number of clearings of this tier.
    pub(super) fn record(&self, key: &Key, clear_count: u64) -> String {
        format!("{}{clear_count}:{{{key}}}", self.prefix)
    }

    pub(super) fn lease(&self, key: &Key) -> String {
        format!("{}lease:{{{key}}}", self.prefix)
    }

    /// Returns the name of the hash of purge counts. It never expires.
    pub(super) fn purges(&self) -> String {
        format!("{}purges", self.prefix)
    }

    /// Returns the name of the hash of a table that replicas share.
    pub(super) fn shared(&self, table: &str) -> String {
        format!("{}{table}", self.prefix)
    }

    /// Returns two names without values, for checks that Redis answers.
    pub(super) fn probes(&self) -> [String; 2] {
        ["a", "b"].map(|probe| format!("{}probe:{probe}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[test]
    fn a_record_and_its_lease_share_a_cluster_hash_tag() {
        let (names, key) = (Names::new("app:"), KeyBuilder::new(None).finish());
        assert_eq!(names.record(&key, 3), format!("app:1:3:{{{key}}}"));
        assert_eq!(names.lease(&key), format!("app:1:lease:{{{key}}}"));
        assert_eq!(names.purges(), "app:1:purges");
        assert_ne!(names.probes()[0], names.probes()[1]);
    }
}

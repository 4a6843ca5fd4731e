//! What things are called in Redis.
//!
//! Keys are written in hexadecimal: 32 bytes more than raw ones, a hundredth of an entry, and whoever looks with
//! redis-cli, MONITOR or an access list sees what is whose. The braces make a record and its lease neighbours in a
//! cluster, where a slot is chosen by what stands between them; different keys spread over all nodes.

use crate::key::Key;

/// Goes up whenever names come to mean something else. What is in a record tells its own version.
const LAYOUT: u32 = 1;

/// The names below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}{LAYOUT}:") }
    }

    /// A record, of the `era` between two clearings of this tier.
    pub(super) fn record(&self, key: &Key, era: u64) -> String {
        format!("{}{era}:{{{key}}}", self.prefix)
    }

    pub(super) fn lease(&self, key: &Key) -> String {
        format!("{}lease:{{{key}}}", self.prefix)
    }

    /// The hash of all purges. It never expires.
    pub(super) fn purges(&self) -> String {
        format!("{}purges", self.prefix)
    }

    /// Two names under which nothing is stored, for trying whether questions are answered.
    pub(super) fn probes(&self) -> [String; 2] {
        ["a", "b"].map(|probe| format!("{}probe:{probe}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[test]
    fn names_say_what_they_are_and_keep_a_key_and_its_lease_together() {
        let (names, key) = (Names::new("app:"), KeyBuilder::new(None).finish());
        assert_eq!(names.record(&key, 3), format!("app:1:3:{{{key}}}"));
        assert_eq!(names.lease(&key), format!("app:1:lease:{{{key}}}"));
        assert_eq!(names.purges(), "app:1:purges");
        assert_ne!(names.probes()[0], names.probes()[1]);
    }
}

//! Which credentials the upstream has accepted of late. In the shared scope only those are served stored vectors.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::Key;

/// Credentials remembered at once; beyond it the ones whose time is over go, then an arbitrary one.
const MAX_CREDENTIALS: usize = 10_000;

/// The accepted credentials, by their hash.
#[derive(Default)]
pub struct Vouchers {
    until_ms: Mutex<HashMap<Key, u64>>,
}

impl Vouchers {
    /// Notes that the upstream accepted `credential`, which holds until `until_ms`.
    pub fn accept(&self, credential: Key, until_ms: u64, now_ms: u64) {
        let mut known = self.lock();
        if known.len() >= MAX_CREDENTIALS && !known.contains_key(&credential) {
            known.retain(|_, until_ms| *until_ms > now_ms);
        }
        if known.len() >= MAX_CREDENTIALS
            && let Some(any) = known.keys().next().copied()
        {
            known.remove(&any);
        }
        known.insert(credential, until_ms);
    }

    /// Notes that the upstream refused `credential`.
    pub fn refuse(&self, credential: &Key) {
        self.lock().remove(credential);
    }

    /// Whether the upstream's yes to `credential` still holds.
    pub fn holds(&self, credential: &Key, now_ms: u64) -> bool {
        self.lock().get(credential).is_some_and(|until_ms| now_ms < *until_ms)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.until_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[test]
    fn a_yes_holds_for_its_time_and_a_no_ends_it() {
        let vouchers = Vouchers::default();
        let credential = KeyBuilder::new(None).finish();
        assert!(!vouchers.holds(&credential, 0));
        vouchers.accept(credential, 10, 0);
        assert!(vouchers.holds(&credential, 9));
        assert!(!vouchers.holds(&credential, 10));
        vouchers.accept(credential, 20, 0);
        vouchers.refuse(&credential);
        assert!(!vouchers.holds(&credential, 1));
    }
}

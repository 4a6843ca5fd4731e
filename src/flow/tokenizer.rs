//! Counts the tokens of texts if no call reported them. The tables for that take memory which is never freed again. So
//! memory is made available before they are loaded. If that fails, tokens are estimated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::process::governor::Governor;
use crate::wire::Input;

/// Memory of the tables, including what loading them takes temporarily.
const TABLE_BYTES: u64 = 32 << 20;

/// Denominator of the largest fraction of the memory limit that the tables may take. Requests under way need the rest.
const LARGEST_SHARE: u64 = 4;

/// After a refusal, memory is not requested again for this long.
const ASK_AGAIN_AFTER_MS: u64 = 60_000;

/// Tokenizer with tables that are loaded on demand.
#[derive(Debug, Default)]
pub struct Tokenizer {
    is_loaded: AtomicBool,
    no_room_until_ms: AtomicU64,
    governor: OnceLock<Weak<Governor>>,
}

impl Tokenizer {
    /// Registers the governor, which is asked for memory from now on. Without a governor there is always enough.
    pub fn set_governor(&self, governor: &Arc<Governor>) {
        // There is one governor, so a second call changes nothing.
        let _ = self.governor.set(Arc::downgrade(governor));
    }

    /// Returns true if the tables are loaded.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Returns the tokens of each input, or `None` if the tables do not fit in memory. Blocks for as long as
    /// loading them takes.
    pub fn count(&self, inputs: &[Input<'_>], now_ms: u64) -> Option<Vec<u32>> {
        let has_texts = inputs.iter().any(|input| matches!(input, Input::Text(_)));
        if has_texts && !self.is_loaded() && !self.has_room(now_ms) {
            return None;
        }
        let counts = inputs.iter().map(Input::counted_tokens).collect();
        self.is_loaded.fetch_or(has_texts, Ordering::Relaxed);
        Some(counts)
    }

    fn has_room(&self, now_ms: u64) -> bool {
        if now_ms < self.no_room_until_ms.load(Ordering::Relaxed) {
            return false;
        }
        let governor = self.governor.get().and_then(Weak::upgrade);
        let may_take = |governor: &Governor| governor.status().limit_bytes / LARGEST_SHARE >= TABLE_BYTES;
        let has_room = governor.is_none_or(|governor| may_take(&governor) && governor.make_room(TABLE_BYTES));
        if !has_room {
            let before = self.no_room_until_ms.swap(now_ms.saturating_add(ASK_AGAIN_AFTER_MS), Ordering::Relaxed);
            if before == 0 {
                tracing::warn!(
                    table_bytes = TABLE_BYTES,
                    "memory.limit_mb leaves no room for the tokenizer's tables; estimating the tokens of hits"
                );
            }
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::governor::Meter;

    /// Meter of a process of fixed size; it counts its queries.
    struct Fixed(u64, AtomicU64);

    impl Meter for Fixed {
        fn resident_bytes(&self) -> u64 {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0
        }

        fn give_back(&self) {}
    }

    fn governed(resident_mb: u64) -> (Tokenizer, Arc<Governor>, Arc<Fixed>) {
        let meter = Arc::new(Fixed(resident_mb << 20, AtomicU64::new(0)));
        let governor = Arc::new(Governor::new(Arc::<Fixed>::clone(&meter), 128 << 20, Vec::new()));
        let tokenizer = Tokenizer::default();
        tokenizer.set_governor(&governor);
        (tokenizer, governor, meter)
    }

    #[test]
    fn texts_are_counted_if_the_tables_fit_and_token_arrays_always() {
        let (text, tokens) = (Input::Text("Hello world".into()), Input::Tokens(vec![1, 2, 3]));
        let (tokenizer, _governor, _) = governed(50);
        assert_eq!(tokenizer.count(&[text], 1), Some(vec![2]));
        assert!(tokenizer.is_loaded());
        let (tokenizer, _governor, _) = governed(80);
        assert_eq!(tokenizer.count(&[tokens], 1), Some(vec![3]));
        assert!(!tokenizer.is_loaded());
    }

    #[test]
    fn missing_memory_is_requested_once_a_minute() {
        let (tokenizer, _governor, meter) = governed(80);
        let text = [Input::Text("Hello world".into())];
        assert_eq!((tokenizer.count(&text, 1), tokenizer.count(&text, ASK_AGAIN_AFTER_MS)), (None, None));
        let asked = meter.1.swap(0, Ordering::Relaxed);
        assert!(asked > 0);
        assert_eq!(tokenizer.count(&text, ASK_AGAIN_AFTER_MS + 1), None);
        assert_eq!(meter.1.load(Ordering::Relaxed), asked);
        assert!(!tokenizer.is_loaded());
    }
}

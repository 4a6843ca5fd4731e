//! Hashing of keys for hash tables.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::Key;

/// Map from keys.
pub type KeyMap<V> = HashMap<Key, V, Spread>;

/// Hasher that uses eight bytes of a key. Keys are hashes already, but a caller can search for texts with keys that end
/// alike. A secret factor distributes such keys again. Copies have the same factor.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    factor: u64,
    first: u64,
}

impl Default for Spread {
    fn default() -> Self {
        // An odd factor maps different numbers to different products modulo 2^64.
        Self { factor: RandomState::new().hash_one(0_u8) | 1, first: 0 }
    }
}

impl BuildHasher for Spread {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        let product = u128::from(self.first) * u128::from(self.factor);
        // Combines both halves, because hash tables use the lowest and the highest bits.
        #[expect(clippy::cast_possible_truncation, reason = "it takes the halves")]
        let folded = (product >> 64) as u64 ^ product as u64;
        folded
    }

    fn write(&mut self, bytes: &[u8]) {
        // Tables compare whole keys, so eight bytes suffice for the hash.
        if let Some(first) = bytes.first_chunk::<8>() {
            self.first = u64::from_le_bytes(*first);
        }
    }

    // An array hashes its length first, which is the same for all keys.
    fn write_usize(&mut self, _length_prefix: usize) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(first: u64) -> Key {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        Key::from_bytes(bytes)
    }

    #[test]
    fn similar_keys_are_spread_over_many_buckets() {
        let spread = Spread { factor: 0x9e37_79b9_7f4a_7c15, first: 0 };
        for shift in [0, 20, 40, 54] {
            let hashes: Vec<u64> = (0..1_024).map(|n| spread.hash_one(key(n << shift))).collect();
            let lowest: BTreeSet<u64> = hashes.iter().map(|hash| hash & 1_023).collect();
            assert!(lowest.len() > 500, "{shift}: {}", lowest.len());
        }
    }

    #[test]
    fn the_hash_of_a_key_differs_between_hashers() {
        let places = || Spread::default().hash_one(key(7));
        assert_ne!(places(), places());
        let spread = Spread::default();
        assert_eq!(spread.hash_one(key(7)), { spread }.hash_one(key(7)));
    }
}

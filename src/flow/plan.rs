//! Maps inputs to distinct keys and back. A text that occurs twice in a request is looked up and sent once.

use crate::key::{Key, KeyMap, Spread};

/// The distinct keys of a request, and the place of each input's key.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The distinct keys, in order of first appearance.
    pub keys: Vec<Key>,
    /// For each distinct key, the first input that has it.
    pub firsts: Vec<usize>,
    /// For each input, the place of its key in `keys`.
    pub slots: Vec<u32>,
}

impl Plan {
    /// Plans a request with inputs that have these keys.
    pub fn new(inputs: impl ExactSizeIterator<Item = Key>) -> Self {
        let count = inputs.len();
        let mut plan = Self {
            keys: Vec::with_capacity(count),
            firsts: Vec::with_capacity(count),
            slots: Vec::with_capacity(count),
        };
        // Keys are hashes already, so this map does not hash all 32 bytes again.
        let mut places = KeyMap::with_capacity_and_hasher(count, Spread::default());
        for (input, key) in inputs.enumerate() {
            let place = *places.entry(key).or_insert_with(|| {
                plan.keys.push(key);
                plan.firsts.push(input);
                u32::try_from(plan.keys.len() - 1).expect("a request must have fewer than 2^32 inputs")
            });
            plan.slots.push(place);
        }
        plan
    }

    /// Returns how often each distinct key is requested.
    pub fn multiplicities(&self) -> Vec<u32> {
        let mut counts = vec![0; self.keys.len()];
        for slot in &self.slots {
            counts[*slot as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn key(n: u8) -> Key {
        KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
    }

    proptest! {
        #[test]
        fn every_input_maps_to_its_own_key(inputs in prop::collection::vec(0_u8..12, 0..64)) {
            let plan = Plan::new(inputs.iter().map(|n| key(*n)));
            let found: Vec<Key> = plan.slots.iter().map(|slot| plan.keys[*slot as usize]).collect();
            prop_assert_eq!(found, inputs.iter().map(|n| key(*n)).collect::<Vec<_>>());
        }

        #[test]
        fn a_plan_lists_each_key_once(inputs in prop::collection::vec(0_u8..12, 0..64)) {
            let plan = Plan::new(inputs.iter().map(|n| key(*n)));
            let distinct: std::collections::BTreeSet<_> = plan.keys.iter().collect();
            prop_assert_eq!(distinct.len(), plan.keys.len());
            prop_assert_eq!(plan.multiplicities().iter().sum::<u32>() as usize, inputs.len());
            for (place, first) in plan.firsts.iter().enumerate() {
                prop_assert_eq!(plan.slots[*first] as usize, place);
            }
        }
    }
}

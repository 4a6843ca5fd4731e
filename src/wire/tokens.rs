//! Token counts of texts. The tokenizer's tables are loaded on first use, so an idle process does not hold them.

/// Returns the tokens of `text` under `cl100k_base`, with special tokens read as plain text. OpenAI's embedding models
/// count in this way (<https://platform.openai.com/docs/guides/embeddings>).
pub fn count(text: &str) -> u32 {
    u32::try_from(bpe_openai::cl100k_base().count(text)).unwrap_or(u32::MAX)
}

/// Returns true if a model of this name counts with `cl100k_base`.
pub fn counts_with_cl100k(model: &str) -> bool {
    model.starts_with("text-embedding-3-") || model.starts_with("text-embedding-ada-002")
}

/// Returns a quick estimate, for packing calls. English has about four bytes a token, most other text fewer.
pub const fn estimate(text: &str) -> usize {
    text.len().div_ceil(3)
}

/// Splits `total` over `weights` in proportion. The shares add up to `total`, and each positive weight gets at least
/// one if `total` allows it. If all weights are zero, all shares are zero.
pub fn apportion(total: u64, weights: &[usize]) -> Vec<u32> {
    let weighing = weights.iter().filter(|weight| **weight > 0).count() as u64;
    let least = u64::from(total >= weighing);
    let rest = u128::from(total - least * weighing);
    let sum: u128 = weights.iter().map(|weight| *weight as u128).sum::<u128>().max(1);
    let mut seen: u128 = 0;
    let mut given: u128 = 0;
    let share = |weight: &usize| {
        seen += *weight as u128;
        let until_here = rest * seen / sum;
        let share = until_here - given + u128::from(if *weight > 0 { least } else { 0 });
        given = until_here;
        u32::try_from(share).unwrap_or(u32::MAX)
    };
    weights.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_counts_equal_those_of_the_service() {
        assert_eq!(count("Hello world"), 2);
        assert_eq!(count("<|endoftext|>"), 7, "special tokens are plain text here");
    }

    #[test]
    fn shares_add_up_to_the_total() {
        for total in [0_u64, 1, 7, 1_000_003] {
            let shares = apportion(total, &[5, 1, 0, 12, 300]);
            assert_eq!(shares.iter().map(|share| u64::from(*share)).sum::<u64>(), total);
            assert_eq!(shares[2], 0);
        }
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights_and_are_at_least_one_token(
            total in 0_u64..1_000_000,
            weights in prop::collection::vec(prop_oneof![Just(0_usize), 1..10_usize, 1..100_000_usize], 0..40),
        ) {
            let shares = apportion(total, &weights);
            prop_assert_eq!(shares.len(), weights.len());
            let weighing = weights.iter().filter(|weight| **weight > 0).count() as u64;
            let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
            prop_assert_eq!(sum, if weighing > 0 { total } else { 0 });
            let all: usize = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!(*weight > 0 || *share == 0);
                prop_assert!(*weight == 0 || *share > 0 || total < weighing);
                let exact = u128::from(total) * *weight as u128 / all.max(1) as u128;
                // The first token of each input is taken from the other shares.
                prop_assert!(u128::from(*share).abs_diff(exact) <= u128::from(weighing) + 1);
            }
        }
    }
}

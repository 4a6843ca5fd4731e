//! How many tokens a text costs. The tokenizer's tables are loaded on first use: an idle process does not hold them.

/// Tokens of `text` under `cl100k_base`, special tokens read as plain text. That is how OpenAI's embedding models
/// count (<https://platform.openai.com/docs/guides/embeddings>).
pub fn count(text: &str) -> u32 {
    u32::try_from(bpe_openai::cl100k_base().count(text)).unwrap_or(u32::MAX)
}

/// Whether a model of this name counts with `cl100k_base`.
pub fn counts_with_cl100k(model: &str) -> bool {
    model.starts_with("text-embedding-3-") || model.starts_with("text-embedding-ada-002")
}

/// A quick estimate, for packing calls: English has about four bytes a token, most other text fewer.
pub const fn estimate(text: &str) -> usize {
    text.len().div_ceil(3)
}

/// Splits `total` over `weights` in proportion, so that the shares add up to it and none that weighs is zero
/// as long as there is enough to go around.
pub fn apportion(total: u64, weights: &[usize]) -> Vec<u32> {
    let sum: u128 = weights.iter().map(|weight| *weight as u128).sum::<u128>().max(1);
    let weighing = weights.iter().filter(|weight| **weight > 0).count() as u64;
    // One for each that weighs comes first, for a share of zero would read as "not counted".
    let (least, rest) = total.checked_sub(weighing).map_or((0, total), |rest| (1, rest));
    let mut seen: u128 = 0;
    let mut given: u128 = 0;
    weights
        .iter()
        .map(|weight| {
            seen += *weight as u128;
            let until_here = u128::from(rest) * seen / sum;
            let share = until_here - given + if *weight > 0 { least } else { 0 };
            given = until_here;
            u32::try_from(share).unwrap_or(u32::MAX)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_service() {
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

    #[test]
    fn no_share_is_zero_while_there_is_enough_to_go_around() {
        assert_eq!(apportion(5, &[1, 7]), [1, 4]);
        assert_eq!(apportion(3, &[1, 1, 1_000]), [1, 1, 1]);
        assert_eq!(apportion(100, &[1, 99]), [1, 99]);
        assert_eq!(apportion(2, &[1, 1, 1]).iter().sum::<u32>(), 2);
    }
}

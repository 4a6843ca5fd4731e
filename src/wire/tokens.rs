//! Token counts of texts. The tokenizer's tables are loaded on first use, so an idle process does not hold them.

use tiktoken::CoreBpe;

/// Length from which a slice ends at the next boundary of words.
const SLICE_BYTES: usize = 4 * 1024;

/// Length at which a slice ends in any case. No word of a real text is that long, and the tokenizer's time and memory
/// grow faster than the length of a word.
const MAX_SLICE_BYTES: usize = 2 * SLICE_BYTES;

/// Returns the tokens of `text` under `cl100k_base`, with special tokens read as plain text. OpenAI's embedding models
/// count in this way (<https://platform.openai.com/docs/guides/embeddings>). The count is exact, except for texts with
/// more than 4 KiB without a boundary of words, such as a million spaces: there it may be too high by 0.1 %.
///
/// Each thread that counts keeps about 1.2 MB of recent words.
pub fn count(text: &str) -> u32 {
    let tables = tables();
    u32::try_from(slices(text).map(|slice| tables.count(slice)).sum::<usize>()).unwrap_or(u32::MAX)
}

/// Returns the offset of each token's end. An end may be inside a character. Very long texts without a boundary of words
/// are divided as in [`count`].
pub fn ends(text: &str) -> Vec<usize> {
    let (tables, mut end) = (tables(), 0);
    let tokens = slices(text).flat_map(|slice| tables.encode(slice));
    tokens
        .map(|token| {
            end += tables.decode(&[token]).len();
            end
        })
        .collect()
}

/// Returns the length in bytes of the longest beginning of `text` that ends at a character and has at most `most`
/// tokens, or `None` if the whole text has no more. The time depends on `most` and not on the length of the text.
pub fn beginning(text: &str, most: usize) -> Option<usize> {
    let (tables, mut left, mut end) = (tables(), most, 0);
    for slice in slices(text) {
        let tokens = tables.encode(slice);
        if tokens.len() > left {
            let cut = end + tables.decode(&tokens[..left]).len();
            return Some(shortened(text, text.floor_char_boundary(cut), most));
        }
        (left, end) = (left - tokens.len(), end + slice.len());
    }
    None
}

/// Returns `end`, or less if the text up to there has more than `most` tokens: without what follows, the last words may
/// be divided in another way.
fn shortened(text: &str, mut end: usize, most: usize) -> usize {
    while count(&text[..end]) as usize > most {
        end = text.floor_char_boundary(end - 1);
    }
    end
}

/// Loads the tables.
pub fn load() {
    tables();
}

fn tables() -> &'static CoreBpe {
    tiktoken::get_encoding("cl100k_base").expect("the tables must be part of the build")
}

/// Cuts a text where `cl100k_base` never joins the bytes on both sides into one token.
fn slices(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (slice, behind) = rest.split_at(slice_end(rest));
        rest = behind;
        (!slice.is_empty()).then_some(slice)
    })
}

fn slice_end(text: &str) -> usize {
    // Most texts are short and are counted in one slice.
    if text.len() <= SLICE_BYTES {
        return text.len();
    }
    // A space is no letter, so the first character never ends a slice.
    let mut before = ' ';
    let from = text.floor_char_boundary(SLICE_BYTES);
    for (offset, character) in text[from..].char_indices() {
        // A space after a visible character begins a word in every script. CJK texts have no spaces.
        let begins_word = character == ' ' && !before.is_whitespace();
        if begins_word || is_letter(before) && is_no_letter(character) {
            return from + offset;
        }
        // A very long word is cut inside, which may add a token.
        if from + offset >= MAX_SLICE_BYTES {
            return from + offset;
        }
        before = character;
    }
    text.len()
}

/// Returns true for characters that are certainly letters (`\p{L}`). Every word of `cl100k_base` with a letter ends
/// with its last letter.
fn is_letter(character: char) -> bool {
    character.is_ascii_alphabetic() || matches!(character, 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='鿿' | '가'..='힣')
}

/// Returns true for characters that are certainly neither letters nor marks.
const fn is_no_letter(character: char) -> bool {
    character.is_ascii() && !character.is_ascii_alphabetic() || matches!(character, '、' | '。' | '，' | '！' | '？')
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
    // Each positive weight gets one token first. The rest is shared in proportion.
    let least = u64::from(total >= weighing);
    let rest = u128::from(total - least * weighing);
    // Products of two 64-bit numbers need 128 bits.
    let sum: u128 = weights.iter().map(|weight| *weight as u128).sum::<u128>().max(1);
    // Weights so far, and tokens of the rest given to them.
    let mut seen: u128 = 0;
    let mut given: u128 = 0;
    let share = |weight: &usize| {
        seen += *weight as u128;
        // A share is the difference of two rounded running totals, so rounding errors do not add up.
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
    fn the_ends_of_tokens_divide_the_whole_text() {
        assert_eq!(ends("Hello world"), [5, 11]);
        for text in ["", "<|endoftext|>", "🦀 いろは", &"The quick brown fox, ".repeat(2_000)] {
            let ends = ends(text);
            assert_eq!(ends.len(), count(text) as usize);
            assert_eq!(ends.last().copied().unwrap_or_default(), text.len());
        }
    }

    #[test]
    fn a_beginning_has_as_many_tokens_as_are_allowed() {
        assert_eq!(beginning("Hello world", 2), None);
        assert_eq!(beginning("Hello world", 1), Some(5));
        for text in ["🦀 いろは にほへと", &"The quick brown fox, ".repeat(3_000), &" ".repeat(30_000)] {
            for most in [1, 2, 3, 7, 1_000] {
                let Some(end) = beginning(text, most) else {
                    assert!(count(text) as usize <= most);
                    continue;
                };
                let tokens = count(&text[..end]) as usize;
                // A character of several tokens may not fit any more.
                assert!(tokens <= most && tokens + 4 > most, "{tokens} of {most} tokens");
            }
        }
    }

    /// Texts of up to 16 KiB of many scripts, with and without boundaries of words.
    fn texts() -> impl Strategy<Value = String> {
        let words = prop_oneof![
            "[a-zA-Z]{1,12}",
            Just(" ".to_owned()),
            "[ \t\r\n]{1,4}",
            "[0-9]{1,9}",
            "['’][sStTlLvVeErR]{1,2}",
            "[!-/:-@、。，！？]{1,5}",
            "[ぁ-ゖァ-ヺ一-鿿가-힣]{1,20}",
            "\\PC{1,6}",
            "[a-z]{1,3}[\u{300}-\u{36f}ªʰǅⅫ½]{1,3}",
            ".{0,4}",
        ];
        prop::collection::vec(words, 0..40)
            .prop_flat_map(|words| (Just(words.concat()), 1..60_usize))
            // Each repetition has a boundary, since texts without any are counted approximately.
            .prop_map(|(text, times)| format!("{text} x.").repeat(times.min(16_384 / (text.len() + 3) + 1)))
    }

    #[test]
    fn long_texts_are_cut_at_boundaries_of_words() {
        let text = "The quick brown fox, ".repeat(2_000);
        let slices: Vec<_> = slices(&text).collect();
        assert!(slices.len() > 5 && slices.iter().all(|slice| slice.len() <= SLICE_BYTES + 10), "{}", slices.len());
        assert_eq!(slices.concat(), text);
        assert_eq!(count(&text) as usize, bpe_openai::cl100k_base().count(text.as_str()));
    }

    #[test]
    fn long_texts_of_all_scripts_are_counted_exactly() {
        for words in [
            "Съешь же ещё этих мягких французских булок, да выпей чаю ",
            "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία ",
            "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت ",
            "דג סקרן שט בים מאוכזב ולפתע מצא חברה ",
            "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण ",
            "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ",
            "いろはにほへと、ちりぬるを。わかよたれそつねならむ。",
            "don't we'll 123 4567!! \r\n\r\n  x ",
            "👩\u{200d}👩\u{200d}👧 🦀🦀 ",
        ] {
            let text = words.repeat(40_000 / words.len());
            assert!(slices(&text).all(|slice| slice.len() < MAX_SLICE_BYTES), "{words}");
            assert_eq!(count(&text) as usize, bpe_openai::cl100k_base().count(text.as_str()), "{words}");
        }
    }

    #[test]
    fn texts_without_words_are_counted_in_bounded_slices() {
        for text in [" ".repeat(100_000), "a".repeat(100_000), "語".repeat(50_000), "!".repeat(100_000)] {
            assert!(slices(&text).all(|slice| slice.len() <= MAX_SLICE_BYTES + 4));
            let exact = bpe_openai::cl100k_base().count(text.as_str());
            let counted = count(&text) as usize;
            assert!(counted >= exact && counted <= exact + text.len() / MAX_SLICE_BYTES + 1, "{counted} and {exact}");
        }
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
        fn counts_equal_those_of_another_implementation(text in texts()) {
            prop_assert_eq!(count(&text) as usize, bpe_openai::cl100k_base().count(text.as_str()));
        }

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

//! Divides a document into chunks of a number of tokens.

use crate::wire::tokens;

/// Size of chunks in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkSize {
    /// Tokens of a chunk.
    pub(super) tokens: usize,
    /// Tokens that a chunk shares with the one before it; fewer than `tokens`.
    pub(super) overlap: usize,
}

/// Returns the chunks of a text. A chunk has at most `size.tokens` tokens in the text, and begins `size.overlap` tokens
/// before the end of the previous one. No character is cut, so a boundary inside one moves back to its start.
pub(super) fn chunks(text: &str, size: ChunkSize) -> Vec<&str> {
    let ends = tokens::ends(text);
    // Offset before each token, and the end of the text.
    let offset = |token: usize| if token == 0 { 0 } else { ends[token - 1] };
    let is_boundary = |token: &usize| text.is_char_boundary(offset(*token));
    let (mut chunks, mut start) = (Vec::new(), 0);
    while start < ends.len() {
        let limit = (start + size.tokens).min(ends.len());
        // A character of several tokens may be longer than a chunk, which then holds the whole character.
        let back = (start + 1..=limit).rev().find(is_boundary);
        let end = back.or_else(|| (limit..=ends.len()).find(is_boundary)).unwrap_or(ends.len());
        chunks.push(&text[offset(start)..offset(end)]);
        if end == ends.len() {
            break;
        }
        // Each chunk begins after the start of the one before it, whatever the overlap.
        start = (start + 1..=end.saturating_sub(size.overlap)).rev().find(is_boundary).unwrap_or(end);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(text: &str, tokens: usize, overlap: usize) -> Vec<&str> {
        chunks(text, ChunkSize { tokens, overlap })
    }

    #[test]
    fn a_text_is_divided_by_tokens_with_an_overlap() {
        let text = "one two three four five six seven";
        assert_eq!(divided(text, 3, 0), ["one two three", " four five six", " seven"]);
        assert_eq!(divided(text, 3, 1), ["one two three", " three four five", " five six seven"]);
        assert_eq!(divided(text, 7, 6), [text]);
        assert!(divided("", 3, 0).is_empty());
    }

    #[test]
    fn chunks_of_long_texts_of_all_scripts_cut_no_character_and_lose_none() {
        let text = "Съешь ещё этих мягких булок 🦀👩\u{200d}👧 いろはにほへと、ちりぬるを。ऋषियों ".repeat(300);
        for tokens in [1, 2, 7, 500] {
            let chunks = divided(&text, tokens, 0);
            assert_eq!(chunks.concat(), text, "{tokens}");
            let longest = chunks.iter().map(|chunk| chunk.chars().count()).max();
            assert!(chunks.len() > 3 && longest < Some(tokens * 8 + 2), "{tokens}: {longest:?}");
        }
        let overlapping = divided(&text, 50, 10);
        let (mut from, mut until) = (0, 0);
        for chunk in overlapping {
            let at = from + text[from..].find(chunk).expect("each chunk is part of the text");
            assert!(at <= until, "nothing is left out");
            (from, until) = (at + text[at..].chars().next().map_or(1, char::len_utf8), until.max(at + chunk.len()));
        }
        assert_eq!(until, text.len());
    }
}

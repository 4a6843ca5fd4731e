//! What each input of a call cost, which the upstream tells only as a sum.
//!
//! Where the upstream counts like `cl100k_base`, texts are left uncounted: most are never asked for again, and one
//! that is gets counted then, once. Counting costs about 25 us for 500 bytes, and the tables take 30 MB.

use std::sync::Arc;

use crate::spaces::{Lessons, Tokenizer};
use crate::tokens;
use crate::upstream::Fetched;
use crate::wire::{Input, InputKind};

/// Tokens in a call from which on an equal sum is proof and not chance.
const PROOF_TOKENS: u64 = 32;

/// Settles the tokens of freshly fetched inputs; what is left without a number is to be counted when it is needed.
pub(super) async fn price(lessons: &Arc<Lessons>, inputs: Vec<Input<'static>>, fetched: &mut [Fetched]) {
    let Some(call) = fetched.first().map(|first| Arc::clone(&first.call)) else {
        return;
    };
    let is_text = inputs.first().is_some_and(|input| input.kind() == InputKind::Text);
    if call.inputs == 1 || !is_text {
        return;
    }
    let by_name = call.model.as_deref().is_some_and(tokens::counts_with_cl100k);
    let tokenizer = if by_name { Tokenizer::Cl100k } else { lessons.tokenizer() };
    match (tokenizer, call.prompt_tokens) {
        (Tokenizer::Cl100k, _) | (_, None) => set(fetched, std::iter::repeat(None)),
        (Tokenizer::Unknown, Some(sum)) if call.inputs == inputs.len() => {
            // Off the runtime's own threads: it may be the first use of the tokenizer, which loads its tables.
            let counting = move || inputs.iter().map(Input::counted_tokens).collect::<Vec<u32>>();
            if let Ok(counts) = tokio::task::spawn_blocking(counting).await {
                find_out(lessons, sum, &counts);
                if sum == total(&counts) {
                    set(fetched, counts.into_iter().map(Some));
                }
            }
        }
        // The shares of the sum stand.
        (Tokenizer::Unknown | Tokenizer::Other, Some(_)) => {}
    }
}

fn find_out(lessons: &Lessons, sum: u64, counts: &[u32]) {
    if sum != total(counts) {
        lessons.set_tokenizer(Tokenizer::Other);
    } else if sum >= PROOF_TOKENS {
        lessons.set_tokenizer(Tokenizer::Cl100k);
    }
}

fn total(counts: &[u32]) -> u64 {
    counts.iter().map(|count| u64::from(*count)).sum()
}

fn set(fetched: &mut [Fetched], tokens: impl Iterator<Item = Option<u32>>) {
    for (fetched, tokens) in fetched.iter_mut().zip(tokens) {
        fetched.tokens = tokens;
    }
}

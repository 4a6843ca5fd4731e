//! Tokens of each input of a call. The upstream tells only their sum.
//!
//! At OpenAI and Azure, texts of OpenAI's models are left uncounted: most are never asked for again, and one that is gets
//! counted then, once. Counting takes about 25 us for 500 bytes, and the tables take 30 MB. A name proves nothing at other
//! servers, so there a count stands only where it agrees with the sum of the call; else the sum is shared by length. Both
//! add up to the sum, so a hit reports the same number as the miss before it. Until a sum disagrees, texts of OpenAI's
//! models that shared a call with other requests are counted, for the miss and its hits alike.

use std::sync::Arc;

use super::Flow;
use crate::spaces::{Lessons, Tokenizer};
use crate::tokens;
use crate::upstream::Fetched;
use crate::wire::{Input, InputKind};

/// Most tokens of a call that are counted to compare them with its sum, as an estimate.
const MAX_COUNTED_TOKENS: usize = 16_000;

/// Settles the tokens of freshly fetched inputs; inputs without a number are counted when it is needed. `is_openai` is true
/// where the upstream is known to be OpenAI or Azure.
pub(super) async fn price(
    flow: &Arc<Flow>,
    (lessons, is_openai): (&Lessons, bool),
    inputs: Vec<Input<'static>>,
    fetched: &mut [Fetched],
) {
    let Some(call) = fetched.first().map(|first| Arc::clone(&first.call)) else {
        return;
    };
    let is_text = inputs.first().is_some_and(|input| input.kind() == InputKind::Text);
    if call.inputs == 1 || !is_text {
        return;
    }
    let is_named_so = call.model.as_deref().is_some_and(tokens::counts_with_cl100k);
    let is_undecided = lessons.tokenizer() == Tokenizer::Unknown;
    // The sum of a call for several requests is no sum of this one's.
    let is_shared = call.inputs != inputs.len();
    match call.prompt_tokens {
        Some(_) if is_named_so && (is_openai || (is_shared && is_undecided)) => set(fetched, std::iter::repeat(None)),
        Some(sum) if !is_shared && is_undecided && is_quickly_counted(&inputs) => {
            compare(flow, (lessons, sum), inputs, fetched).await;
        }
        // The shares of the sum stand.
        Some(_) => {}
        None => set(fetched, std::iter::repeat(None)),
    }
}

fn is_quickly_counted(inputs: &[Input<'_>]) -> bool {
    inputs.iter().map(Input::estimated_tokens).sum::<usize>() <= MAX_COUNTED_TOKENS
}

/// Counts the inputs of a call, and keeps the counts if they add up to the call's sum. One sum that differs ends the
/// comparison for the space.
async fn compare(
    flow: &Arc<Flow>,
    (lessons, sum): (&Lessons, u64),
    inputs: Vec<Input<'static>>,
    fetched: &mut [Fetched],
) {
    // Off the runtime's own threads: it may be the first use of the tokenizer, which loads its tables.
    let (counter, now_ms) = (Arc::clone(&flow.tokenizer), flow.clock.now_ms());
    let counting = tokio::task::spawn_blocking(move || counter.count(&inputs, now_ms));
    // Where the tables have no room, the shares of the sum stand.
    let Ok(Some(counts)) = counting.await else {
        return;
    };
    if counts.iter().map(|count| u64::from(*count)).sum::<u64>() == sum {
        set(fetched, counts.into_iter().map(Some));
    } else {
        lessons.set_tokenizer(Tokenizer::Other);
    }
}

fn set(fetched: &mut [Fetched], tokens: impl Iterator<Item = Option<u32>>) {
    for (fetched, tokens) in fetched.iter_mut().zip(tokens) {
        fetched.tokens = tokens;
    }
}

//! Tokens of each input of a call. The upstream reports only their sum.
//!
//! At OpenAI and Azure, texts of OpenAI's models stay uncounted. Most are never requested again; the others are counted
//! on their first hit. Counting takes about 25 us for 500 bytes, and the tables take 15 MB. At other servers a model's
//! name proves nothing, so a count is used only if it agrees with the sum of the call. Otherwise the sum is divided by
//! length. Both add up to the sum, so a hit reports the same number as the miss before it. Until a sum disagrees, texts
//! of OpenAI's models that shared a call with other requests are counted, for the miss and its hits alike.

use std::sync::Arc;

use super::Flow;
use crate::learned::{SpaceState, TokenCounting};
use crate::upstream::Fetched;
use crate::wire::tokens;
use crate::wire::{Input, InputKind};

/// Upper limit, by estimate, for the tokens of a call that are counted to compare them with its sum.
const MAX_COUNTED_TOKENS: usize = 16_000;

/// Sets the tokens of freshly fetched inputs; inputs without a number are counted when it is needed. `is_openai` is
/// true if the upstream is known to be OpenAI or Azure.
pub(super) async fn price(
    flow: &Arc<Flow>,
    (space_state, is_openai): (&SpaceState, bool),
    inputs: Vec<Input<'static>>,
    fetched: &mut [Fetched],
) {
    let Some(call) = fetched.first().map(|first| Arc::clone(&first.call)) else {
        return;
    };
    let is_text = inputs.first().is_some_and(|input| input.kind() == InputKind::Text);
    // A single input has the sum of its call, and a token array has its own length.
    if call.inputs == 1 || !is_text {
        return;
    }
    let is_named_so = call.model.as_deref().is_some_and(tokens::counts_with_cl100k);
    let is_undecided = space_state.tokenizer() == TokenCounting::Unknown;
    // A call for several requests reports one sum for all of them.
    let is_shared = call.inputs != inputs.len();
    match call.prompt_tokens {
        // These texts are counted on their first hit, and most of them never have one.
        Some(_) if is_named_so && (is_openai || (is_shared && is_undecided)) => set(fetched, std::iter::repeat(None)),
        Some(sum) if !is_shared && is_undecided && is_quickly_counted(&inputs) => {
            compare(flow, (space_state, sum), inputs, fetched).await;
        }
        // The shares of the sum are used.
        Some(_) => {}
        None => set(fetched, std::iter::repeat(None)),
    }
}

fn is_quickly_counted(inputs: &[Input<'_>]) -> bool {
    inputs.iter().map(Input::estimated_tokens).sum::<usize>() <= MAX_COUNTED_TOKENS
}

/// Counts the inputs of a call, and uses the counts if they add up to the call's sum. One sum that differs ends the
/// comparison for the space.
async fn compare(
    flow: &Arc<Flow>,
    (space_state, sum): (&SpaceState, u64),
    inputs: Vec<Input<'static>>,
    fetched: &mut [Fetched],
) {
    // If the tables do not fit in memory or the thread is busy, the shares of the sum are used.
    let Some(counts) = flow.tokenizer.count(&inputs.iter().collect::<Vec<_>>(), flow.clock.now_ms()).await else {
        return;
    };
    if counts.iter().map(|count| u64::from(*count)).sum::<u64>() == sum {
        set(fetched, counts.into_iter().map(Some));
    } else {
        space_state.set_tokenizer(TokenCounting::Other);
    }
}

fn set(fetched: &mut [Fetched], tokens: impl Iterator<Item = Option<u32>>) {
    for (fetched, tokens) in fetched.iter_mut().zip(tokens) {
        fetched.tokens = tokens;
    }
}

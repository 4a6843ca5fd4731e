//! A text that a lane has a vector for. Asked for again, it tells a model that fails from texts that do.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Input;

/// Most bytes of an input that is remembered.
const MAX_BYTES: usize = 16 * 1024;

/// How long an answer to it counts.
const COUNTS_FOR: Duration = Duration::from_secs(1);

/// The shortest input so far, and whether it was answered when it was asked for last.
#[derive(Debug, Default)]
pub(super) struct KnownGood {
    input: Mutex<Option<Input<'static>>>,
    /// Held while it is asked for, so that others wait for the same answer.
    last: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl KnownGood {
    /// Remembers an input that was answered, if it is shorter than the one before.
    pub(super) fn remember(&self, input: &Input<'static>) {
        let bytes = bytes_of(input);
        let mut kept = self.input();
        let is_shorter = kept.as_ref().is_none_or(|kept| bytes < bytes_of(kept) / 2);
        if is_shorter && bytes <= MAX_BYTES {
            *kept = Some(input.clone());
        }
    }

    /// Returns true if the input is answered again, by what `ask` says; without an input it is not.
    pub(super) async fn is_answered<F>(&self, ask: impl FnOnce(Input<'static>) -> F) -> bool
    where
        F: Future<Output = bool>,
    {
        let Some(input) = self.input().clone() else {
            return false;
        };
        let mut last = self.last.lock().await;
        if let Some((at, is_answered)) = *last
            && at.elapsed() < COUNTS_FOR
        {
            return is_answered;
        }
        let is_answered = ask(input).await;
        *last = Some((Instant::now(), is_answered));
        is_answered
    }

    fn input(&self) -> MutexGuard<'_, Option<Input<'static>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(input: &Input<'_>) -> usize {
    match input {
        Input::Text(text) => text.len(),
        Input::Tokens(ids) => size_of_val(ids.as_slice()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_shortest_input_is_asked_for_once_a_second() {
        let known = KnownGood::default();
        assert!(!known.is_answered(async |_| true).await, "nothing is known");
        for text in ["a long text", "b", "another"] {
            known.remember(&Input::Text(text.into()));
        }
        assert!(known.is_answered(async |input| input == Input::Text("b".into())).await);
        assert!(known.is_answered(async |_| false).await, "the last answer counts");
        tokio::time::advance(COUNTS_FOR).await;
        assert!(!known.is_answered(async |_| false).await);
        assert!(!known.is_answered(async |_| true).await);
    }
}

//! A text that a lane has answered before. Sending it again tells a failing model from failing texts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Input;

/// Maximum size of an input that is remembered.
const MAX_BYTES: usize = 4 * 1024;

/// Validity of an answer to it.
const COUNTS_FOR: Duration = Duration::from_secs(1);

/// A short input that was answered, and the result of its last test.
#[derive(Debug, Default)]
pub(super) struct KnownGood {
    input: Mutex<Option<Input<'static>>>,
    /// Held during the test; other callers wait for the same result.
    last: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl KnownGood {
    /// Remembers an input that was answered, if it is at most half as long as the one before.
    pub(super) fn remember(&self, input: &Input<'static>) {
        let bytes = bytes_of(input);
        let mut kept = self.input();
        // Only a much shorter text replaces it, which keeps the number of copies low.
        let is_shorter = kept.as_ref().is_none_or(|kept| bytes < bytes_of(kept) / 2);
        if is_shorter && bytes <= MAX_BYTES {
            *kept = Some(input.clone());
        }
    }

    /// Returns true if the input is answered again, according to `ask`. Returns false if there is no input.
    pub(super) async fn is_answered<F>(&self, ask: impl FnOnce(Input<'static>) -> F) -> bool
    where
        F: Future<Output = bool>,
    {
        // The input is copied because a blocking lock must not be held across the await below.
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
    async fn the_shortest_known_input_is_tested_once_a_second() {
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

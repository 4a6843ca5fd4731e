//! Answered inputs by source, and tokens by kind.

use super::catalogue;
use super::handles::{Counter, PerLabel, Registrar};
use super::labels::{InputSource, TokenKind};
use super::savings::UsageAccounts;

/// Metrics of answered inputs and their tokens.
#[derive(Debug)]
pub struct UsageMetrics {
    inputs: PerLabel<InputSource, Counter>,
    tokens: PerLabel<TokenKind, Counter>,
    pub(super) accounts: UsageAccounts,
}

impl UsageMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            inputs: registrar.counters(&catalogue::INPUTS),
            tokens: registrar.counters(&catalogue::TOKENS),
            accounts: UsageAccounts::new(registrar),
        }
    }

    /// Records `n` inputs answered from `source`.
    pub fn inputs(&self, source: InputSource, n: u64) {
        self.inputs.of(source).add(n);
    }

    /// Records `n` tokens that the upstream charged.
    pub fn tokens_billed(&self, n: u64) {
        self.tokens.of(TokenKind::Billed).add(n);
    }

    /// Records `n` tokens that were not charged thanks to the cache.
    pub fn tokens_saved(&self, n: u64) {
        self.tokens.of(TokenKind::Saved).add(n);
    }

    /// Returns the number of inputs answered from `source` so far.
    pub fn inputs_so_far(&self, source: InputSource) -> u64 {
        self.inputs.of(source).get()
    }

    /// Returns answered inputs since the start, by source.
    pub fn inputs_by_source(&self) -> Vec<(&'static str, u64)> {
        InputSource::ALL.iter().map(|source| (source.label(), self.inputs_so_far(*source))).collect()
    }
}

//! Inputs of one answer by source, and its tokens, for headers and counters.

use std::ops::AddAssign;

use crate::observe::metrics::{self, InputSource, Metrics, UsageAccount};

/// Inputs by source, and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Inputs from memory.
    pub memory: u64,
    /// Inputs from the disk tier.
    pub disk: u64,
    /// Inputs from the Redis tier.
    pub redis: u64,
    /// Inputs from longer cached vectors.
    pub derived: u64,
    /// Inputs from a fetch of another request.
    pub joined: u64,
    /// Inputs from the upstream.
    pub upstream: u64,
    /// Inputs from entries past their freshness.
    pub stale: u64,
    /// Inputs answered with mocks.
    pub mock: u64,
    /// Tokens that the upstream charged for this request.
    pub billed: u64,
    /// Tokens that the upstream would have charged without the cache.
    pub saved: u64,
}

impl SourceCounts {
    /// Returns the tally of a full hit from memory.
    pub fn of_hit(inputs: u64, tokens: u64) -> Self {
        Self { memory: inputs, saved: tokens, ..Self::default() }
    }

    /// Returns the outcome in one word; the least trustworthy source decides.
    pub const fn outcome(&self) -> metrics::Outcome {
        let stored = self.stored();
        match self {
            Self { mock: 1.., .. } => metrics::Outcome::Mock,
            Self { stale: 1.., .. } => metrics::Outcome::Stale,
            Self { joined: 0, upstream: 0, .. } => metrics::Outcome::Hit,
            _ if stored > 0 => metrics::Outcome::Partial,
            _ => metrics::Outcome::Miss,
        }
    }

    /// Returns the number of inputs from any tier, derived ones included.
    pub const fn stored(&self) -> u64 {
        self.memory + self.disk + self.redis + self.derived
    }

    /// Returns the total number of inputs.
    pub const fn inputs(&self) -> u64 {
        self.stored() + self.joined + self.upstream + self.stale + self.mock
    }

    /// Adds it to the totals and to the caller's account.
    pub fn count(&self, metrics: &Metrics, account: &UsageAccount) {
        account.count(self.inputs(), self.billed, self.saved);
        for (label, inputs) in self.by_source() {
            if inputs > 0 {
                metrics.usage.inputs(label, inputs);
            }
        }
        if self.billed > 0 {
            metrics.usage.tokens_billed(self.billed);
        }
        if self.saved > 0 {
            metrics.usage.tokens_saved(self.saved);
        }
    }

    /// Returns the value of `x-vecho-sources`: each source that took part, with its number of inputs.
    pub fn sources(&self) -> String {
        let mut text = String::with_capacity(HEADER_TEXT_BYTES);
        for (label, inputs) in self.by_source().into_iter().filter(|(_, inputs)| *inputs > 0) {
            text.push_str(if text.is_empty() { "" } else { ", " });
            push_pair(&mut text, label.label(), inputs);
        }
        text
    }

    /// Returns the value of `x-vecho-tokens`: the tokens charged, and the tokens saved.
    pub fn tokens(&self) -> String {
        let mut text = String::with_capacity(HEADER_TEXT_BYTES);
        push_pair(&mut text, "billed", self.billed);
        text.push_str(", ");
        push_pair(&mut text, "saved", self.saved);
        text
    }

    const fn by_source(&self) -> [(InputSource, u64); 8] {
        [
            (InputSource::Memory, self.memory),
            (InputSource::Disk, self.disk),
            (InputSource::Redis, self.redis),
            (InputSource::Derived, self.derived),
            (InputSource::Joined, self.joined),
            (InputSource::Upstream, self.upstream),
            (InputSource::Stale, self.stale),
            (InputSource::Mock, self.mock),
        ]
    }

    pub(super) fn add(&mut self, source: InputSource, inputs: u32) {
        *self.count_of(source) += u64::from(inputs);
    }

    const fn count_of(&mut self, source: InputSource) -> &mut u64 {
        match source {
            InputSource::Memory => &mut self.memory,
            InputSource::Disk => &mut self.disk,
            InputSource::Redis => &mut self.redis,
            InputSource::Derived => &mut self.derived,
            InputSource::Joined => &mut self.joined,
            InputSource::Upstream => &mut self.upstream,
            InputSource::Stale => &mut self.stale,
            InputSource::Mock => &mut self.mock,
        }
    }
}

/// Adds the counts of another answer to the same request.
impl AddAssign for SourceCounts {
    fn add_assign(&mut self, other: Self) {
        for (source, inputs) in other.by_source() {
            *self.count_of(source) += inputs;
        }
        self.billed += other.billed;
        self.saved += other.saved;
    }
}

/// Usual length of one of these headers.
const HEADER_TEXT_BYTES: usize = 64;

/// Writes `name=number`. Written by hand because every reply that is not cached has two of these, and the formatting
/// machinery takes several times as long.
fn push_pair(text: &mut String, name: &str, number: u64) {
    text.push_str(name);
    text.push('=');
    let mut tens = 1;
    while number / tens >= 10 {
        tens *= 10;
    }
    while tens > 0 {
        let digit = (number / tens % 10) as u8;
        text.push(char::from(b'0' + digit));
        tens /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_list_the_sources_with_their_counts() {
        for number in [1, 9, 10, 99, 100, 12_345_678_901, u64::MAX] {
            let source_counts =
                SourceCounts { memory: number, mock: 1, billed: 0, saved: number, ..SourceCounts::default() };
            assert_eq!(source_counts.sources(), format!("memory={number}, mock=1"));
            assert_eq!(source_counts.tokens(), format!("billed=0, saved={number}"));
        }
        assert_eq!(SourceCounts::default().sources(), "");
    }
}

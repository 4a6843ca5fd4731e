//! Rate limits of the service, and the order of calls that wait for them.

/// `[pace]`
#[derive(Clone, Copy, Debug)]
pub struct PaceConfig {
    /// `pace.mode`.
    pub mode: PaceMode,
    /// `pace.requests_per_minute`.
    pub requests_per_minute: Option<u64>,
    /// `pace.tokens_per_minute`.
    pub tokens_per_minute: Option<u64>,
    /// `pace.concurrent`.
    pub concurrent: Option<usize>,
    /// `pace.shared`.
    pub shared: bool,
}

/// `pace.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaceMode {
    /// Limits are learned from the service's answers as well.
    Auto,
    /// Refusals go to the callers after the usual retries.
    Off,
}

impl PaceMode {
    /// Returns the word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// `[priority]`
#[derive(Clone, Copy, Debug)]
pub struct PriorityConfig {
    /// `priority.bulk_from`.
    pub bulk_from: usize,
}

/// Priority of a request. Interactive calls go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A user waits for the answer.
    #[default]
    Interactive,
    /// A job that embeds many texts, such as indexing.
    Bulk,
}

impl Priority {
    /// Both priorities.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// Returns the value of `x-vecho-priority`, and the value of labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

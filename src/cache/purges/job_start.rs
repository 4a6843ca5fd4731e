//! The start of a job whose vectors are imported later.

/// Start of a job. Purges and forgets since then cover its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStart {
    /// Start of the job in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Time for which a forgotten key is remembered, in milliseconds. The count of a key is the time of the forget plus
    /// this time.
    pub remembered_ms: u64,
}

impl JobStart {
    /// Returns the time up to which every forget since the start is remembered.
    pub const fn ends_ms(self) -> u64 {
        self.began_ms.saturating_add(self.remembered_ms)
    }
}

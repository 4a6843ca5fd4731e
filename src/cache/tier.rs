//! The tiers by name.

/// Tier in which a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory of this process.
    Memory,
    /// Disk of this machine.
    Disk,
    /// Redis or Valkey, shared by replicas.
    Redis,
}

impl Tier {
    /// Returns the name for headers, metrics and routes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Redis => "redis",
        }
    }
}

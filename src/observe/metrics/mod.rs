//! Metrics: the catalogue, the handles that count, and the text for Prometheus.
//!
//! There is no global registry: [`Metrics::new`] creates one, and each part receives its own handles. The handles are
//! in groups, one per subject. Parts count by the methods of a group: `metrics.requests.rejected(reason)`.

mod budget;
mod cache;
mod catalogue;
mod connections;
mod handles;
mod history;
mod incident;
mod incidents;
mod label;
mod labels;
mod latency;
mod memory;
mod pace;
mod performance;
mod process;
mod recent;
mod registry;
mod requests;
mod sampling;
mod savings;
mod status;
mod targets;
mod tiers;
mod traces;
mod upstream;
mod usage;
mod watch;

pub use budget::{BudgetFigures, BudgetMetrics};
pub use cache::CacheMetrics;
pub use catalogue::{CATALOGUE, Family, Kind, LabelSet, catalogue_markdown};
pub use connections::ConnectionMetrics;
pub use handles::{Counter, Entered, Gauge, PerLabel};
pub use history::{COARSE_STEP_SECONDS, HistorySample, STEP_SECONDS, Samples};
pub use incident::{Affected, Incident, IncidentReport, Instead, ModelReport};
pub use incidents::{IncidentState, Incidents, MAX_INCIDENTS};
pub use label::Label;
pub use labels::{
    AnswerCoding, AnswerEvent, BreakerState, Bypass, CallOutcome, InputSource, LeaseWait, Outcome, Port, Rejection,
    ReloadResult, RetryReason, Route, SpanResult, Tier, TokenKind, TokenProof, WatchResult,
};
pub use latency::Percentiles;
pub use memory::MemoryMetrics;
pub use pace::{PaceMetrics, ShownLimit};
pub use performance::{Performance, PerformanceSnapshot, Seen};
pub use recent::{Ended, MAX_RECENT, Recent, RequestUsage};
pub use registry::Metrics;
pub use requests::RequestMetrics;
pub use savings::{MAX_ACCOUNTS, UsageAccount, UsageAccounts, UsageLabels, UsageReport};
pub use status::StatusMetrics;
pub use targets::{TargetFigures, TargetMetrics};
pub use tiers::{TierMetrics, TierStats};
pub use traces::TraceMetrics;
pub use upstream::{BreakerMetrics, Bucket, UpstreamFigures, UpstreamMetrics};
pub use usage::UsageMetrics;
pub use watch::WatchMetrics;

#[cfg(test)]
mod tests;

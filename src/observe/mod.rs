//! What operators see of a running vecho: log lines, metrics and traces.

pub mod logs;
pub mod metrics;
pub mod traces;

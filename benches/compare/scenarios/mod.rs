//! The measurements. Each takes all proxies in turn, round by round, and returns rows of the table.

pub(crate) mod closed;
pub(crate) mod herd;
pub(crate) mod memory;
pub(crate) mod starts;

use crate::bench::Bench;

/// Returns the number of rounds that count.
pub(crate) fn rounds(bench: &Bench) -> usize {
    if bench.quick { 2 } else { 5 }
}

/// Returns the median; of an even number of values, the upper of the two middle ones.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! State of the budgets, for people.

use super::book::{SpendBook, SpendRow};
use crate::config::{BudgetConfig, BudgetUnit};

/// State of all budgets at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendReport {
    /// The time at which the budgets are filled again, in milliseconds since the Unix epoch.
    pub resets_ms: u64,
    /// The configured budgets: those of the whole first.
    pub budgets: Vec<BudgetReport>,
}

/// State of one budget. Amounts are in its unit: tokens, or 10^-12 of the currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetReport {
    /// Name of the namespace; empty for the whole.
    pub namespace: String,
    /// The unit.
    pub unit: BudgetUnit,
    /// The limit of a day.
    pub limit: u128,
    /// Cost of the calls that have ended, of all replicas.
    pub spent: u128,
    /// Expected cost of the calls of this process that are under way.
    pub reserved: u128,
    /// Requests of this process that were refused today.
    pub refused: u64,
}

impl BudgetReport {
    /// Returns what is left for further calls.
    pub const fn left(&self) -> u128 {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    /// Returns true if nothing is left, or if a request was refused today.
    pub const fn is_spent(&self) -> bool {
        self.spent >= self.limit || self.refused > 0
    }
}

impl SpendBook {
    pub(super) fn report(&self, budget: &BudgetConfig) -> SpendReport {
        let none = SpendRow::default();
        let budgets = budget.all().flat_map(|(name, limits)| {
            let row = self.rows.get(name).unwrap_or(&none);
            BudgetUnit::ALL.into_iter().filter_map(move |unit| {
                Some(BudgetReport {
                    namespace: name.to_owned(),
                    unit,
                    limit: limits.of(unit)?,
                    spent: row.spent().in_unit(unit),
                    reserved: row.reserved.in_unit(unit),
                    refused: row.refused[unit as usize],
                })
            })
        });
        SpendReport { resets_ms: self.ends_ms(), budgets: budgets.collect() }
    }
}

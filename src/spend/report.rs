//! State of the budgets, for people.

use super::book::{SpendBook, SpendRow};
use super::notice::ALL;
use super::refusal::named;
use crate::config::{BudgetConfig, BudgetUnit};
use crate::process::clock::rfc3339;

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
    /// True if nothing is left, or if a request has found too little left.
    pub is_spent: bool,
}

impl BudgetReport {
    /// Returns what is left for further calls.
    pub const fn left(&self) -> u128 {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}

impl SpendReport {
    /// Returns a sentence for each budget that is spent.
    pub fn warnings(&self) -> Vec<String> {
        let until = rfc3339(self.resets_ms);
        let spent = self.budgets.iter().filter(|budget| budget.is_spent);
        let sentence = |budget: &BudgetReport| {
            let budget = named(&budget.namespace, budget.unit);
            format!("the day's budget {budget} is spent: inputs that are not cached get a 429 until {until}")
        };
        spent.map(sentence).collect()
    }
}

impl SpendBook {
    pub(super) fn report(&self, budget: &BudgetConfig) -> SpendReport {
        let none = SpendRow::default();
        let budgets = budget.all().flat_map(|(name, limits)| {
            let row = self.rows.get(name).unwrap_or(&none);
            BudgetUnit::ALL.into_iter().filter_map(move |unit| {
                let (limit, spent, said) = (limits.of(unit)?, row.spent().in_unit(unit), &row.said[unit as usize]);
                Some(BudgetReport {
                    namespace: name.to_owned(),
                    unit,
                    limit,
                    spent,
                    is_spent: spent >= limit || (said.limit == limit && said.percent == ALL),
                    reserved: row.reserved.in_unit(unit),
                    refused: row.refused[unit as usize],
                })
            })
        });
        SpendReport { resets_ms: self.ends_ms(), budgets: budgets.collect() }
    }
}

//! Log lines about budgets: one when most of a budget is spent, and one when it is spent.

use super::book::{Said, SpendBook};
use super::refusal::{in_words, named};
use crate::config::{BudgetConfig, BudgetUnit};
use crate::process::clock::rfc3339;

/// Share of a limit at which the first line is due, in percent.
const MOST: u8 = 80;
pub(super) const ALL: u8 = 100;

/// A line that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    name: String,
    unit: BudgetUnit,
    percent: u8,
    spent: u128,
    limit: u128,
    ends_ms: u64,
}

impl SpendBook {
    /// Returns the lines that are due, and notes that they were said. A line returns only after the day has ended or the
    /// limit has changed. `refused` names a budget that has just refused a
    /// call for which too little was left.
    pub(super) fn notices(&mut self, budget: &BudgetConfig, refused: Option<(&str, BudgetUnit)>) -> Vec<Notice> {
        let ends_ms = self.ends_ms();
        let mut notices = Vec::new();
        for (name, limits) in budget.all() {
            let Some(row) = self.rows.get_mut(name) else { continue };
            for unit in BudgetUnit::ALL {
                let Some(limit) = limits.of(unit) else { continue };
                let spent = row.spent().in_unit(unit);
                let is_most = spent.saturating_mul(100) >= limit.saturating_mul(u128::from(MOST));
                let percent = if spent >= limit || refused == Some((name, unit)) {
                    ALL
                } else if is_most {
                    MOST
                } else {
                    0
                };
                let said = &mut row.said[unit as usize];
                if said.limit != limit {
                    *said = Said { percent: 0, limit };
                }
                if percent > said.percent {
                    said.percent = percent;
                    notices.push(Notice { name: name.to_owned(), unit, percent, spent, limit, ends_ms });
                }
            }
        }
        notices
    }
}

impl Notice {
    /// Logs the line.
    pub(super) fn log(&self, currency: &str) {
        let words = |amount| in_words(amount, self.unit, currency);
        let (spent, limit, until) = (words(self.spent), words(self.limit), rfc3339(self.ends_ms));
        let budget = named(&self.name, self.unit);
        if self.percent == ALL {
            tracing::warn!(
                budget,
                spent,
                limit,
                until,
                "a budget is spent: inputs that are not cached get a 429 budget_exhausted until the day ends"
            );
        } else {
            tracing::warn!(budget, spent, limit, until, "most of a budget is spent: {MOST} % or more");
        }
    }
}

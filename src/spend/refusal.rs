//! Refusal of a call that a budget does not cover.

use std::fmt;

use super::amount::SpendAmount;
use super::book::Shortage;
use crate::config::BudgetUnit;
use crate::process::clock::rfc3339;

/// Units of an amount of money in one unit of the currency.
const PICO: u128 = 1_000_000_000_000;

/// A budget does not cover a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverBudget {
    shortage: Shortage,
    needed: SpendAmount,
    currency: String,
    ends_ms: u64,
    now_ms: u64,
}

impl OverBudget {
    pub(super) fn new(shortage: Shortage, needed: SpendAmount, currency: &str, (ends_ms, now_ms): (u64, u64)) -> Self {
        Self { shortage, needed, currency: currency.to_owned(), ends_ms, now_ms }
    }

    /// Returns the name of the budget; empty for the whole.
    pub(super) fn name(&self) -> &str {
        &self.shortage.name
    }

    /// Returns the unit of the budget.
    pub(super) const fn unit(&self) -> BudgetUnit {
        self.shortage.unit
    }

    /// Returns the seconds until the budget is filled again, rounded up.
    pub const fn wait_s(&self) -> u64 {
        self.ends_ms.saturating_sub(self.now_ms).div_ceil(1_000)
    }

    /// Returns true if the whole budget of a day does not cover the call, so no wait helps.
    pub fn is_hopeless(&self) -> bool {
        self.needed.in_unit(self.shortage.unit) > self.shortage.limit
    }
}

/// Formats an amount of money with up to six decimals, rounded down.
pub(super) fn money(pico: u128) -> String {
    let micros = format!("{:06}", pico % PICO / 1_000_000);
    let decimals = micros.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{}{point}{decimals}", pico / PICO)
}

/// Formats an amount in a unit.
pub(super) fn in_words(amount: u128, unit: BudgetUnit, currency: &str) -> String {
    match unit {
        BudgetUnit::Tokens => format!("{amount} tokens"),
        BudgetUnit::Money => format!("{} {currency}", money(amount)),
    }
}

/// Formats the key of a budget with its namespace.
pub(super) fn named(name: &str, unit: BudgetUnit) -> String {
    let key = unit.key(!name.is_empty());
    if name.is_empty() { key.to_owned() } else { format!("{key} of {name}") }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { name, unit, limit, left } = &self.shortage;
        let words = |amount| in_words(amount, *unit, &self.currency);
        let (budget, needed) = (named(name, *unit), words(self.needed.in_unit(*unit)));
        let limit = words(*limit);
        if self.is_hopeless() {
            return write!(
                f,
                "this request needs about {needed}, which is more than the budget of a whole day ({budget}: {limit}); \
                 send it in smaller requests"
            );
        }
        let at = rfc3339(self.ends_ms);
        let rest = if *left == 0 { "is spent".to_owned() } else { format!("has {} left", words(*left)) };
        // A call that is repeated has no estimate of its own.
        let needs =
            if self.needed.is_zero() { String::new() } else { format!(", and this request needs about {needed}") };
        write!(
            f,
            "the budget of this day {rest} ({budget}: {limit}){needs}; the budget is filled again at {at}; cached inputs \
             are still answered"
        )
    }
}

//! Limits of what embeddings calls may cost in a day.

use std::collections::BTreeMap;

use crate::config::Price;

/// `[budget]`
#[derive(Clone, Debug, Default)]
pub struct BudgetConfig {
    /// `budget.tokens_per_day` and `budget.money_per_day`.
    pub whole: DailyLimits,
    /// `budget.namespace_tokens_per_day` and `budget.namespace_money_per_day`, by namespace.
    pub namespaces: BTreeMap<String, DailyLimits>,
    /// The price that counts for a model without one.
    pub dearest: Option<Price>,
}

/// Limits of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyLimits {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Money, in units of 10^-12 of the currency.
    pub money_pico: Option<u128>,
}

/// Unit of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetUnit {
    /// Tokens.
    Tokens,
    /// Money in the currency of the prices.
    Money,
}

impl BudgetUnit {
    /// Both units.
    pub const ALL: [Self; 2] = [Self::Tokens, Self::Money];

    /// Returns the key of a budget in this unit, of one namespace or of the whole.
    pub const fn key(self, is_of_namespace: bool) -> &'static str {
        match (self, is_of_namespace) {
            (Self::Tokens, false) => "budget.tokens_per_day",
            (Self::Money, false) => "budget.money_per_day",
            (Self::Tokens, true) => "budget.namespace_tokens_per_day",
            (Self::Money, true) => "budget.namespace_money_per_day",
        }
    }
}

/// Units of an amount of money in one unit of the currency.
const PICO: f64 = 1e12;

impl BudgetUnit {
    /// Returns an amount in this unit as a number for people: tokens, or money in the currency.
    #[expect(clippy::cast_precision_loss, reason = "for people; exact up to 2^53 tokens, money to 16 digits")]
    pub fn figure(self, amount: u128) -> f64 {
        match self {
            Self::Tokens => amount as f64,
            Self::Money => amount as f64 / PICO,
        }
    }
}

impl DailyLimits {
    /// Returns the limit in a unit: tokens, or 10^-12 of the currency.
    pub fn of(&self, unit: BudgetUnit) -> Option<u128> {
        match unit {
            BudgetUnit::Tokens => self.tokens.map(u128::from),
            BudgetUnit::Money => self.money_pico,
        }
    }

    /// Returns the number of limits.
    pub fn count(&self) -> usize {
        BudgetUnit::ALL.into_iter().filter(|unit| self.of(*unit).is_some()).count()
    }

    fn is_off(&self) -> bool {
        self.count() == 0
    }
}

impl BudgetConfig {
    /// Returns true if there is no limit at all.
    pub fn is_off(&self) -> bool {
        self.whole.is_off() && self.namespaces.is_empty()
    }

    /// Returns true if any limit is one of money.
    pub fn limits_money(&self) -> bool {
        self.all().any(|(_, limits)| limits.money_pico.is_some())
    }

    /// Iterates over the limits: those of the whole under an empty name, then those of each namespace.
    pub fn all(&self) -> impl Iterator<Item = (&str, &DailyLimits)> {
        let namespaces = self.namespaces.iter().map(|(name, limits)| (name.as_str(), limits));
        std::iter::once(("", &self.whole)).chain(namespaces)
    }

    /// Returns the limits of one name, where the empty name means the whole.
    pub fn limits_of(&self, name: &str) -> Option<&DailyLimits> {
        if name.is_empty() { Some(&self.whole) } else { self.namespaces.get(name) }
    }
}

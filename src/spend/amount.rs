//! An amount in both units: tokens, and the money that they cost.

use std::str::FromStr;

use crate::config::{BudgetUnit, Price};

/// Tokens and their cost. Sums and differences stop at the bounds of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpendAmount {
    /// Tokens.
    pub tokens: u64,
    /// Money, in units of 10^-12 of the currency.
    pub money_pico: u128,
}

impl SpendAmount {
    /// Returns an amount of tokens with its cost.
    pub(super) fn of(tokens: u64, price: Option<Price>) -> Self {
        Self { tokens, money_pico: price.map_or(0, |price| price.of_pico(tokens)) }
    }

    /// Returns the same tokens at a part of their price, rounded up.
    pub(super) fn at_percent(self, percent: u8) -> Self {
        Self { money_pico: self.money_pico.saturating_mul(percent.into()).div_ceil(100), ..self }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            money_pico: self.money_pico.saturating_add(other.money_pico),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            money_pico: self.money_pico.saturating_sub(other.money_pico),
        }
    }

    /// Returns the amount in one unit: tokens, or 10^-12 of the currency.
    pub fn in_unit(&self, unit: BudgetUnit) -> u128 {
        match unit {
            BudgetUnit::Tokens => u128::from(self.tokens),
            BudgetUnit::Money => self.money_pico,
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the form in files and in Redis: both numbers, separated by a space.
    pub(super) fn to_text(self) -> String {
        format!("{} {}", self.tokens, self.money_pico)
    }
}

/// Reads both numbers as `to_text` writes them.
impl FromStr for SpendAmount {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (tokens, money_pico) = text.split_once(' ').ok_or(())?;
        Ok(Self { tokens: tokens.parse().map_err(drop)?, money_pico: money_pico.parse().map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_stop_at_their_bounds() {
        let most = SpendAmount { tokens: u64::MAX, money_pico: u128::MAX };
        let one = SpendAmount { tokens: 1, money_pico: 1 };
        assert_eq!((most.plus(one), one.minus(most)), (most, SpendAmount::default()));
    }

    #[test]
    fn the_text_of_an_amount_reads_back_to_it() {
        for amount in [SpendAmount::default(), SpendAmount { tokens: u64::MAX, money_pico: u128::MAX }] {
            assert_eq!(amount.to_text().parse(), Ok(amount));
        }
        for text in ["", "1", "1 ", " 1", "1 x", "-1 1", "1 1 1", "1e3 1", "18446744073709551616 1"] {
            assert_eq!(text.parse::<SpendAmount>(), Err(()), "{text}");
        }
    }
}

//! The counts of one day, by budget.
//!
//! The day is that of UTC. It ends when the clock shows a later day: the counts begin at zero, and what is reserved
//! stays, so a call counts on the day of its answer. A clock that goes back never gives a count back. If it goes back by
//! less than two days, the later day stays in force until the clock reaches it again. If it goes back further, the clock
//! was wrong before, and the counts move to the day that it shows now.

use std::collections::BTreeMap;

use super::amount::SpendAmount;
use crate::config::{BudgetConfig, BudgetUnit};

/// Length of a day in milliseconds.
pub(super) const DAY_MS: u64 = 86_400_000;

/// Counts of one budget.
#[derive(Clone, Debug, Default)]
pub(super) struct SpendRow {
    /// Cost of the calls of this process.
    pub(super) own: SpendAmount,
    /// Cost of the calls of other replicas, as last seen.
    pub(super) others: SpendAmount,
    /// Expected cost of the calls under way.
    pub(super) reserved: SpendAmount,
    /// Requests that were refused, by unit.
    pub(super) refused: [u64; BudgetUnit::ALL.len()],
    /// What the log has said of each unit.
    pub(super) said: [Said; BudgetUnit::ALL.len()],
}

/// The share of a limit that the log has reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) percent: u8,
    pub(super) limit: u128,
}

impl SpendRow {
    /// Returns the cost of all calls that have ended.
    pub(super) const fn spent(&self) -> SpendAmount {
        self.own.plus(self.others)
    }

    /// Returns the cost of the calls of this process, with those that are under way.
    pub(super) const fn committed(&self) -> SpendAmount {
        self.own.plus(self.reserved)
    }
}

/// A limit that does not cover an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Name of the budget; empty for the whole.
    pub(super) name: String,
    pub(super) unit: BudgetUnit,
    pub(super) limit: u128,
    /// What is left of the limit.
    pub(super) left: u128,
}

/// Counts of all budgets on the present day. The empty name is that of the whole.
#[derive(Clone, Debug, Default)]
pub(super) struct SpendBook {
    /// Days since the Unix epoch.
    pub(super) day: u64,
    pub(super) rows: BTreeMap<String, SpendRow>,
    /// Number of changes of the counts of this process.
    pub(super) changes: u64,
}

impl SpendBook {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { day: now_ms / DAY_MS, ..Self::default() }
    }

    /// Follows the clock. Returns true if a new day has begun.
    pub(super) fn roll(&mut self, now_ms: u64) -> bool {
        let today = now_ms / DAY_MS;
        if today + 1 < self.day {
            self.day = today;
            self.changes += 1;
        }
        if today <= self.day {
            return false;
        }
        self.day = today;
        self.changes += 1;
        self.rows.retain(|_, row| {
            *row = SpendRow { reserved: row.reserved, ..SpendRow::default() };
            !row.reserved.is_zero()
        });
        true
    }

    /// Returns the time at which the day ends, in milliseconds since the Unix epoch.
    pub(super) const fn ends_ms(&self) -> u64 {
        (self.day + 1).saturating_mul(DAY_MS)
    }

    pub(super) fn row(&mut self, name: &str) -> &mut SpendRow {
        // The row exists nearly always, so its name is copied only for a new one.
        if !self.rows.contains_key(name) {
            self.rows.insert(name.to_owned(), SpendRow::default());
        }
        self.rows.get_mut(name).expect("it must have been inserted")
    }

    /// Returns the first limit of these names that does not cover another `needed`.
    pub(super) fn shortage(&self, names: &[&str], needed: SpendAmount, budget: &BudgetConfig) -> Option<Shortage> {
        names.iter().find_map(|name| {
            let (limits, row) = (budget.limits_of(name)?, self.rows.get(*name));
            let used = row.map_or_else(SpendAmount::default, |row| row.spent().plus(row.reserved));
            BudgetUnit::ALL.into_iter().find_map(|unit| {
                let limit = limits.of(unit)?;
                let left = limit.saturating_sub(used.in_unit(unit));
                // A call that costs nothing, such as one of a model with the price 0, needs no money.
                let is_short = needed.in_unit(unit) > left;
                is_short.then(|| Shortage { name: (*name).to_owned(), unit, limit, left })
            })
        })
    }

    /// Returns the first limit of these names that the calls that have ended have reached.
    pub(super) fn exhausted(&self, names: &[&str], budget: &BudgetConfig) -> Option<Shortage> {
        names.iter().find_map(|name| {
            let (limits, row) = (budget.limits_of(name)?, self.rows.get(*name)?);
            BudgetUnit::ALL.into_iter().find_map(|unit| {
                let limit = limits.of(unit)?;
                let is_reached = row.spent().in_unit(unit) >= limit;
                is_reached.then(|| Shortage { name: (*name).to_owned(), unit, limit, left: 0 })
            })
        })
    }

    /// Sets an amount aside.
    pub(super) fn reserve(&mut self, names: &[&str], amount: SpendAmount) {
        for name in names {
            let row = self.row(name);
            row.reserved = row.reserved.plus(amount);
        }
        self.changes += 1;
    }

    /// Gives a reserved amount back.
    pub(super) fn release(&mut self, names: &[Box<str>], amount: SpendAmount) {
        for name in names {
            let row = self.row(name);
            row.reserved = row.reserved.minus(amount);
        }
        self.changes += 1;
    }

    /// Adds the cost of a call.
    pub(super) fn spend(&mut self, names: &[&str], amount: SpendAmount) {
        for name in names {
            let row = self.row(name);
            row.own = row.own.plus(amount);
        }
        self.changes += 1;
    }

    /// Takes over the counts of other replicas for a day.
    pub(super) fn learn_others(&mut self, day: u64, others: &BTreeMap<String, SpendAmount>) {
        // The day may have ended while the counts were read.
        if day != self.day {
            return;
        }
        for row in self.rows.values_mut() {
            row.others = SpendAmount::default();
        }
        for (name, amount) in others {
            self.row(name).others = *amount;
        }
    }
}

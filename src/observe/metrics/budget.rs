//! Budgets: their limits, what is spent of them, and what was refused.

use super::catalogue;
use super::handles::{Counter, Registrar};

/// Metrics of the budgets. Their labels are the keys and the namespaces of the configuration.
#[derive(Debug)]
pub struct BudgetMetrics {
    limit: prometheus::GaugeVec,
    spent: prometheus::GaugeVec,
    refused: prometheus::IntCounterVec,
    unpriced: Counter,
}

/// State of one budget at a scrape, in tokens or in the currency.
#[derive(Clone, Debug)]
pub struct BudgetFigures {
    /// Key of the configuration.
    pub key: &'static str,
    /// The namespace; empty for a budget of the whole.
    pub namespace: String,
    /// Limit of a day.
    pub limit: f64,
    /// What is spent of it.
    pub spent: f64,
}

impl BudgetMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            limit: registrar.float_gauge_vec(&catalogue::BUDGET_LIMIT),
            spent: registrar.float_gauge_vec(&catalogue::BUDGET_SPENT),
            refused: registrar.counter_vec(&catalogue::BUDGET_REFUSED),
            unpriced: registrar.counter(&catalogue::BUDGET_UNPRICED),
        }
    }

    /// Records a call that a budget does not cover.
    pub fn refused(&self, key: &'static str, namespace: &str) {
        self.refused.with_label_values(&[key, namespace]).inc();
    }

    /// Records tokens of a model without a price.
    pub fn unpriced(&self, tokens: u64) {
        self.unpriced.add(tokens);
    }

    /// Shows the configured budgets; for a hook of [`on_scrape`](super::Metrics::on_scrape).
    pub fn show(&self, budgets: &[BudgetFigures]) {
        // A budget that a reload has removed is not shown any more.
        self.limit.reset();
        self.spent.reset();
        for BudgetFigures { key, namespace, limit, spent } in budgets {
            let labels = [*key, namespace.as_str()];
            self.limit.with_label_values(&labels).set(*limit);
            self.spent.with_label_values(&labels).set(*spent);
            // The counter exists from the first scrape on, so an increase to 1 is seen.
            self.refused.with_label_values(&labels);
        }
    }
}

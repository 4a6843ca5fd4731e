//! Actual and saved cost of tokens, by model and namespace.

use serde_json::{Value, json};

use super::AdminContext;
use crate::config::Price;
use crate::observe::metrics::UsageReport;
use crate::process::clock::rfc3339;
use crate::spend::BudgetReport;

/// Returns `savings` of `GET /api/performance/stats`. Costs are in the configured currency, or null for a model without
/// a price.
pub(super) fn figures(context: &AdminContext) -> Value {
    let (currency, statements) = context.metrics.accounts().statements();
    let tokens = |of: fn(&UsageReport) -> u64| statements.iter().map(of).sum::<u64>();
    // An empty sum is -0.0; the addition of 0.0 removes the sign from the output.
    let cost = |of: fn(&UsageReport) -> f64| 0.0 + statements.iter().map(of).sum::<f64>();
    json!({
        "currency": currency,
        "tokens_billed": tokens(|one| one.tokens_billed),
        "tokens_saved": tokens(|one| one.tokens_saved),
        "cost_billed": cost(|one| one.cost_billed),
        "cost_saved": cost(|one| one.cost_saved),
        "unpriced_tokens": tokens(|one| one.unpriced_tokens),
        "models": statements.iter().map(line).collect::<Vec<Value>>(),
        "budgets": budgets(context),
    })
}

/// Returns the state of the budgets, or null if there is none.
fn budgets(context: &AdminContext) -> Option<Value> {
    let report = context.spend.report()?;
    Some(json!({
        "resets_at": rfc3339(report.resets_ms),
        "list": report.budgets.iter().map(budget).collect::<Vec<Value>>(),
    }))
}

fn budget(one: &BudgetReport) -> Value {
    json!({
        "key": one.unit.key(!one.namespace.is_empty()),
        "namespace": one.namespace,
        "limit": one.unit.figure(one.limit),
        "spent": one.unit.figure(one.spent),
        "left": one.unit.figure(one.left()),
        "refused": one.refused,
    })
}

fn line(one: &UsageReport) -> Value {
    // A model that had a price earlier keeps its costs.
    let was_priced = one.price.is_some() || one.unpriced_tokens < one.tokens_billed + one.tokens_saved;
    let cost = |cost: f64| was_priced.then_some(cost);
    json!({
        "model": one.named.model,
        "namespace": one.named.namespace,
        "requests": one.requests,
        "inputs": one.inputs,
        "tokens_billed": one.tokens_billed,
        "tokens_saved": one.tokens_saved,
        "cost_billed": cost(one.cost_billed),
        "cost_saved": cost(one.cost_saved),
        "price_per_million_tokens": one.price.map(Price::to_per_million),
    })
}

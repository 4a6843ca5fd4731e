//! Keys: limits of what embeddings calls may cost in a day.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "budget.tokens_per_day",
        "none",
        "Most tokens that embeddings calls may cost in a day (UTC); then only the cache answers, and every other request \
         gets a 429 budget_exhausted.",
    )
    .live(),
    key(
        "budget.money_per_day",
        "none",
        "The same limit in savings.currency, by savings.prices; a model without a price counts at the highest of them.",
    )
    .live(),
    key(
        "budget.namespace_tokens_per_day",
        "[]",
        "Most tokens per day and namespace (header x-vecho-namespace), each as \"NAMESPACE=TOKENS\"; they count towards \
         budget.tokens_per_day too.",
    )
    .live(),
    key(
        "budget.namespace_money_per_day",
        "[]",
        "Most money per day and namespace, each as \"NAMESPACE=MONEY\"; it counts towards budget.money_per_day too.",
    )
    .live(),
];

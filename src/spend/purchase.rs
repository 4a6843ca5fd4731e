//! What a call pays for: the facts that decide its price and its budgets.

use crate::config::{Config, Price};

/// A call, as the budgets see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purchase<'a> {
    /// Namespace of its requests, if they have one.
    pub namespace: Option<&'a str>,
    /// The model as its callers name it.
    pub model: &'a str,
    /// The model as the upstream names it, if known.
    pub answered: Option<&'a str>,
}

impl<'a> Purchase<'a> {
    /// Returns the price of the model by either name, if it has one.
    pub(super) fn known_price(&self, config: &Config) -> Option<Price> {
        let answered = || config.savings.price(self.answered?);
        config.savings.price(self.model).or_else(answered)
    }

    /// Returns the price that counts. A model without a price counts as the dearest, so a name that nobody has priced
    /// does not pass a limit of money.
    pub(super) fn price(&self, config: &Config) -> Option<Price> {
        self.known_price(config).or(config.budget.dearest)
    }

    /// Returns the names of the budgets that pay: the empty one of the whole, and the namespace if it has limits.
    pub(super) fn payers(&self, config: &Config) -> Vec<&'a str> {
        let namespace = self.namespace.filter(|name| config.budget.namespaces.contains_key(*name));
        std::iter::once("").chain(namespace).collect()
    }
}

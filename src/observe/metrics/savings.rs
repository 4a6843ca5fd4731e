//! Tokens and costs by model and namespace, both billed and saved.
//!
//! Names come from clients, so their number and length are bounded. A request only adds to counters that its account
//! already holds. Costs are computed from tokens when they are read. Before a price changes, the tokens so far are
//! settled at the old price, so costs never decrease.
//!
//! The accounts are a plain list, because a counter must not disappear between two scrapes: no account expires or is
//! evicted, and those beyond the limit are counted together.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::catalogue;
use super::handles::{Counter, Registrar};
use super::labels::TokenKind;
use crate::config::{Price, SavingsConfig};

/// Maximum number of separate pairs of model and namespace. Each takes four lines of a scrape.
pub const MAX_ACCOUNTS: usize = 64;
/// Maximum length of a stored name.
const MAX_NAME_BYTES: usize = 128;
/// Name under which the remainder is counted.
const OTHER: &str = "other";

/// Labels of an account.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageLabels {
    /// The model as the caller named it.
    pub model: Box<str>,
    /// The namespace of the request; empty without one.
    pub namespace: Box<str>,
}

impl UsageLabels {
    /// Creates labels with bounded length and without control characters.
    pub fn new(model: &str, namespace: &str) -> Self {
        Self { model: shown(model).into(), namespace: shown(namespace).into() }
    }
}

fn shown(name: &str) -> Cow<'_, str> {
    // A label with a control character could break the lines of a log or a terminal.
    let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
    if name.contains(char::is_control) { name.replace(char::is_control, "\u{fffd}").into() } else { name.into() }
}

/// Counters of one model and namespace.
#[derive(Debug)]
pub struct UsageAccount {
    named: Arc<UsageLabels>,
    /// The upstream's name of the model in the first response. It determines the price if the caller's name has none.
    answered: Box<str>,
    requests: AtomicU64,
    inputs: AtomicU64,
    billed: Counter,
    saved: Counter,
    cost_billed: prometheus::Counter,
    cost_saved: prometheus::Counter,
    money: Mutex<Money>,
}

/// Cost of the settled tokens.
#[derive(Debug, Default)]
struct Money {
    price: Option<Price>,
    settled: Tokens,
    // Sums in 128 bits hold any number of tokens at the highest price.
    billed_pico: u128,
    saved_pico: u128,
    unpriced_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    billed: u64,
    saved: u64,
}

/// State of an account at one point in time.
#[derive(Clone, Debug)]
pub struct UsageReport {
    /// Labels of the account.
    pub named: Arc<UsageLabels>,
    /// Answered requests.
    pub requests: u64,
    /// Answered inputs.
    pub inputs: u64,
    /// Tokens that the upstream charged.
    pub tokens_billed: u64,
    /// Tokens that the upstream would have charged without the cache.
    pub tokens_saved: u64,
    /// Tokens of both kinds that were counted while no price was known.
    pub unpriced_tokens: u64,
    /// Cost of the billed tokens, in the currency.
    pub cost_billed: f64,
    /// Cost of the saved tokens without the cache.
    pub cost_saved: f64,
    /// The current price.
    pub price: Option<Price>,
}

impl UsageAccount {
    /// Returns the labels of the account.
    pub const fn named(&self) -> &Arc<UsageLabels> {
        &self.named
    }

    /// Counts one answered request.
    pub fn count(&self, inputs: u64, billed: u64, saved: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inputs.fetch_add(inputs, Ordering::Relaxed);
        // Most requests are either hits or misses, so one of the two additions is spared.
        if billed > 0 {
            self.billed.add(billed);
        }
        if saved > 0 {
            self.saved.add(saved);
        }
    }

    fn is_of(&self, model: &str, namespace: &str) -> bool {
        *self.named.model == *model && *self.named.namespace == *namespace
    }

    fn reprice(&self, savings: &SavingsConfig) {
        let mut money = self.money();
        // The counters are read under the lock: settled tokens must never exceed the next reading.
        money.settle(Tokens { billed: self.billed.get(), saved: self.saved.get() });
        money.price = savings.price(&self.named.model).or_else(|| savings.price(&self.answered));
    }

    fn statement(&self) -> UsageReport {
        self.statement_of(&mut self.money())
    }

    fn statement_of(&self, money: &mut Money) -> UsageReport {
        money.settle(Tokens { billed: self.billed.get(), saved: self.saved.get() });
        UsageReport {
            named: Arc::clone(&self.named),
            requests: self.requests.load(Ordering::Relaxed),
            inputs: self.inputs.load(Ordering::Relaxed),
            tokens_billed: money.settled.billed,
            tokens_saved: money.settled.saved,
            unpriced_tokens: money.unpriced_tokens,
            cost_billed: in_currency(money.billed_pico),
            cost_saved: in_currency(money.saved_pico),
            price: money.price,
        }
    }

    fn show_cost(&self) {
        // The lock is held until the counters are raised: two concurrent scrapes would otherwise add the same amount
        // twice.
        let mut money = self.money();
        let now = self.statement_of(&mut money);
        for (counter, cost) in [(&self.cost_billed, now.cost_billed), (&self.cost_saved, now.cost_saved)] {
            // A counter can only be raised, and a rounding error may give slightly less.
            counter.inc_by((cost - counter.get()).max(0.0));
        }
    }

    fn money(&self) -> MutexGuard<'_, Money> {
        self.money.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Money {
    /// Applies the price to the tokens counted since the last settlement.
    fn settle(&mut self, now: Tokens) {
        let billed = now.billed.saturating_sub(self.settled.billed);
        let saved = now.saved.saturating_sub(self.settled.saved);
        match self.price {
            Some(price) => {
                self.billed_pico += price.of_pico(billed);
                self.saved_pico += price.of_pico(saved);
            }
            // Tokens without a price are never charged later, even if a price is added.
            None => self.unpriced_tokens += billed + saved,
        }
        self.settled = now;
    }
}

#[expect(clippy::cast_precision_loss, reason = "money for people; exact up to 9,000 units, then to 16 digits")]
fn in_currency(pico: u128) -> f64 {
    pico as f64 / 1e12
}

/// All accounts and the current prices.
#[derive(Debug)]
pub struct UsageAccounts {
    book: RwLock<AccountBook>,
    tokens: prometheus::IntCounterVec,
    cost: prometheus::CounterVec,
}

#[derive(Debug, Default)]
struct AccountBook {
    savings: SavingsConfig,
    accounts: Vec<Arc<UsageAccount>>,
}

impl UsageAccounts {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            book: RwLock::default(),
            tokens: registrar.counter_vec(&catalogue::MODEL_TOKENS),
            cost: registrar.float_counter_vec(&catalogue::MODEL_COST),
        }
    }

    /// Returns the account for the caller's name `model`; `answered` is the upstream's name. When there are too many
    /// accounts, models with a price share one account per model, and all others share one account.
    pub fn of(&self, model: &str, namespace: &str, answered: &str) -> Arc<UsageAccount> {
        // Most requests use the name of an existing account, which needs no sanitizing.
        if let Some(own) = self.book().own(model, namespace) {
            return Arc::clone(own);
        }
        let named = (shown(model), shown(namespace));
        let answered = shown(answered);
        // The read lock suffices for an existing account. The write lock is taken only for a new one.
        let found = self.book().find(&named.0, &named.1, &answered);
        found.unwrap_or_else(|| self.open(&named.0, &named.1, &answered))
    }

    fn open(&self, model: &str, namespace: &str, answered: &str) -> Arc<UsageAccount> {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have created the account in the meantime.
        if let Some(account) = book.find(model, namespace, answered) {
            return account;
        }
        // The list may exceed its limit by one account for each model with a price, and one for the others.
        let account = if book.is_full() {
            Arc::new(self.fresh(UsageLabels::new(book.overflow(model, answered), OTHER), ""))
        } else {
            Arc::new(self.fresh(UsageLabels::new(model, namespace), answered))
        };
        // A new account has no price yet. The lock keeps prices and accounts consistent.
        account.reprice(&book.savings);
        book.accounts.push(Arc::clone(&account));
        account
    }

    fn fresh(&self, named: UsageLabels, answered: &str) -> UsageAccount {
        let tokens = |kind: TokenKind| self.tokens.with_label_values(&[&*named.model, &*named.namespace, kind.label()]);
        let cost = |kind: TokenKind| self.cost.with_label_values(&[&*named.model, &*named.namespace, kind.label()]);
        UsageAccount {
            answered: answered.into(),
            requests: AtomicU64::new(0),
            inputs: AtomicU64::new(0),
            billed: Counter::from(tokens(TokenKind::Billed)),
            saved: Counter::from(tokens(TokenKind::Saved)),
            cost_billed: cost(TokenKind::Billed),
            cost_saved: cost(TokenKind::Saved),
            money: Mutex::default(),
            named: Arc::new(named),
        }
    }

    /// Changes the prices for tokens counted from now on.
    pub fn reprice(&self, savings: &SavingsConfig) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        book.savings = savings.clone();
        // The write lock keeps new accounts out until all have the new price.
        for account in &book.accounts {
            account.reprice(savings);
        }
    }

    /// Returns the currency and every account, sorted by inputs in descending order.
    pub fn statements(&self) -> (String, Vec<UsageReport>) {
        let book = self.book();
        let mut statements: Vec<UsageReport> = book.accounts.iter().map(|account| account.statement()).collect();
        statements.sort_by(|a, b| b.inputs.cmp(&a.inputs).then_with(|| a.named.model.cmp(&b.named.model)));
        (book.savings.currency.clone(), statements)
    }

    pub(super) fn show_costs(&self) {
        self.book().accounts.iter().for_each(|account| account.show_cost());
    }

    fn book(&self) -> RwLockReadGuard<'_, AccountBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccountBook {
    fn find(&self, model: &str, namespace: &str, answered: &str) -> Option<Arc<UsageAccount>> {
        let overflow = || self.is_full().then(|| self.own(self.overflow(model, answered), OTHER)).flatten();
        self.own(model, namespace).or_else(overflow).cloned()
    }

    fn own(&self, model: &str, namespace: &str) -> Option<&Arc<UsageAccount>> {
        self.accounts.iter().find(|account| account.is_of(model, namespace))
    }

    fn is_full(&self) -> bool {
        self.accounts.len() >= MAX_ACCOUNTS
    }

    /// Returns the model name of the shared account. The number of models with a price is bounded by the number of
    /// prices.
    fn overflow<'a>(&self, model: &'a str, answered: &'a str) -> &'a str {
        [model, answered].into_iter().find(|name| self.savings.price(name).is_some()).unwrap_or(OTHER)
    }
}

#[cfg(test)]
#[path = "savings_tests.rs"]
mod tests;

//! The guard in front of upstream calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::amount::SpendAmount;
use super::book::SpendBook;
use super::notice::Notice;
use super::purchase::Purchase;
use super::refusal::OverBudget;
use super::report::SpendReport;
use super::reservation::SpendReservation;
use crate::config::{Config, Live};
use crate::observe::logs::{Throttled, shorten_for_log};
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;

const UNPRICED: &str = "a model has no price in savings.prices: under a limit of money its calls count at the highest price \
                        there";

/// Counts what calls cost, and refuses those that no budget covers. One per process.
pub struct SpendGuard {
    pub(super) book: Arc<Mutex<SpendBook>>,
    pub(super) live: Live,
    clock: Clock,
    metrics: Arc<Metrics>,
    throttled: Throttled,
}

impl SpendGuard {
    /// Creates a guard that has counted nothing yet.
    pub fn new(live: Live, clock: Clock, (metrics, throttled): (Arc<Metrics>, Throttled)) -> Arc<Self> {
        let book = Arc::new(Mutex::new(SpendBook::new(clock.now_ms())));
        Arc::new(Self { book, live, clock, metrics, throttled })
    }

    /// Returns true if no budget is configured.
    pub fn is_off(&self) -> bool {
        self.live.load().budget.is_off()
    }

    /// Sets aside what a call is expected to cost. Without a budget this does nothing.
    pub fn reserve(&self, purchase: &Purchase<'_>, tokens: u64) -> Result<SpendReservation, Box<OverBudget>> {
        let config = self.live.load();
        if config.budget.is_off() {
            return Ok(SpendReservation::default());
        }
        let (names, price) = (purchase.payers(&config), purchase.price(&config));
        let needed = SpendAmount::of(tokens, price);
        let mut book = self.rolled();
        let Some(refusal) = self.refusal(&book, &names, needed, &config) else {
            book.reserve(&names, needed);
            drop(book);
            return Ok(SpendReservation::new(&self.book, &names, (tokens, price)));
        };
        let (name, unit) = (refusal.name(), refusal.unit());
        book.row(name).refused[unit as usize] += 1;
        // A request above the budget of a whole day says nothing about what is left.
        let refused = (!refusal.is_hopeless()).then_some((name, unit));
        let notices = book.notices(&config.budget, refused);
        drop(book);
        self.metrics.budget.refused(unit.key(!name.is_empty()), name);
        log(&notices, &config);
        Err(Box::new(refusal))
    }

    /// Counts a call that another process makes, at a part of the price, or refuses it.
    pub fn charge(&self, purchase: &Purchase<'_>, tokens: u64, price_percent: u8) -> Result<(), Box<OverBudget>> {
        let config = self.live.load();
        if config.budget.is_off() {
            return Ok(());
        }
        let names = purchase.payers(&config);
        let cost = SpendAmount::of(tokens, purchase.price(&config)).at_percent(price_percent);
        let mut book = self.rolled();
        if let Some(refusal) = self.refusal(&book, &names, cost, &config) {
            return Err(Box::new(refusal));
        }
        book.spend(&names, cost);
        let notices = book.notices(&config.budget, None);
        drop(book);
        log(&notices, &config);
        Ok(())
    }

    /// Returns the refusal that a call would get now. Counts nothing.
    pub fn outlook(&self, purchase: &Purchase<'_>, tokens: u64) -> Option<OverBudget> {
        let config = self.live.load();
        if config.budget.is_off() {
            return None;
        }
        let needed = SpendAmount::of(tokens, purchase.price(&config));
        let book = self.rolled();
        self.refusal(&book, &purchase.payers(&config), needed, &config)
    }

    /// Returns the refusal of any further call if a budget is spent by calls that have ended.
    pub fn is_spent(&self, purchase: &Purchase<'_>) -> Option<OverBudget> {
        let config = self.live.load();
        if config.budget.is_off() {
            return None;
        }
        let book = self.rolled();
        let shortage = book.exhausted(&purchase.payers(&config), &config.budget)?;
        let times = (book.ends_ms(), self.clock.now_ms());
        Some(OverBudget::new(shortage, SpendAmount::default(), &config.savings.currency, times))
    }

    /// Adds what a call did cost.
    pub fn spend(&self, purchase: &Purchase<'_>, tokens: u64) {
        let config = self.live.load();
        if config.budget.is_off() || tokens == 0 {
            return;
        }
        if config.budget.limits_money() && purchase.known_price(&config).is_none() {
            self.metrics.budget.unpriced(tokens);
            if self.throttled.admits(UNPRICED) {
                tracing::warn!(model = &*shorten_for_log(purchase.model), "{UNPRICED}");
            }
        }
        let mut book = self.rolled();
        book.spend(&purchase.payers(&config), SpendAmount::of(tokens, purchase.price(&config)));
        let notices = book.notices(&config.budget, None);
        drop(book);
        log(&notices, &config);
    }

    /// Logs what is due after the counts of other replicas have changed.
    pub(super) fn notify(&self) {
        let config = self.live.load();
        let notices = self.rolled().notices(&config.budget, None);
        log(&notices, &config);
    }

    /// Returns the state of all budgets, or `None` if there is none.
    pub fn report(&self) -> Option<SpendReport> {
        let config = self.live.load();
        (!config.budget.is_off()).then(|| self.rolled().report(&config.budget))
    }

    fn refusal(&self, book: &SpendBook, names: &[&str], needed: SpendAmount, config: &Config) -> Option<OverBudget> {
        let shortage = book.shortage(names, needed, &config.budget)?;
        let times = (book.ends_ms(), self.clock.now_ms());
        Some(OverBudget::new(shortage, needed, &config.savings.currency, times))
    }

    /// Returns the counts of the present day.
    pub(super) fn rolled(&self) -> MutexGuard<'_, SpendBook> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.roll(self.clock.now_ms());
        book
    }
}

/// Logs lines without a lock, since logging may be slow.
fn log(notices: &[Notice], config: &Config) {
    for notice in notices {
        notice.log(&config.savings.currency);
    }
}

//! An amount that is set aside for calls under way.

use std::sync::{Arc, Mutex, PoisonError};

use super::amount::SpendAmount;
use super::book::SpendBook;
use crate::config::Price;

/// Expected cost of the calls of one fetch. What is left of it is given back on drop.
#[derive(Debug, Default)]
pub struct SpendReservation(Option<Reserved>);

#[derive(Debug)]
struct Reserved {
    book: Arc<Mutex<SpendBook>>,
    /// The budgets that the amount was set aside in. A reload may change which ones would pay now.
    names: Box<[Box<str>]>,
    price: Option<Price>,
    left: Mutex<SpendAmount>,
}

impl SpendReservation {
    /// Takes over an amount that was set aside in these budgets.
    pub(super) fn new(book: &Arc<Mutex<SpendBook>>, names: &[&str], (tokens, price): (u64, Option<Price>)) -> Self {
        let names = names.iter().map(|name| Box::from(*name)).collect();
        let left = Mutex::new(SpendAmount::of(tokens, price));
        Self(Some(Reserved { book: Arc::clone(book), names, price, left }))
    }

    /// Gives a part back, at most what is left.
    pub fn release(&self, tokens: u64) {
        if let Some(reserved) = &self.0 {
            reserved.release(SpendAmount::of(tokens, reserved.price));
        }
    }
}

impl Reserved {
    fn release(&self, amount: SpendAmount) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = left.minus(amount);
        let given = left.minus(rest);
        *left = rest;
        drop(left);
        if !given.is_zero() {
            self.book.lock().unwrap_or_else(PoisonError::into_inner).release(&self.names, given);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release(SpendAmount { tokens: u64::MAX, money_pico: u128::MAX });
    }
}

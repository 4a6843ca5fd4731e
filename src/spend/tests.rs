//! Tests of the counts of a day, with a clock that each test moves.

use super::book::{DAY_MS, SpendBook};
use super::*;
use crate::config::{BudgetConfig, BudgetUnit, DailyLimits};

const DAY: u64 = 20_000;
const NOON: u64 = DAY * DAY_MS + DAY_MS / 2;

fn tokens(tokens: u64) -> SpendAmount {
    SpendAmount { tokens, money_pico: 0 }
}

fn book() -> SpendBook {
    SpendBook::new(NOON)
}

fn limit(tokens: u64) -> BudgetConfig {
    let whole = DailyLimits { tokens: Some(tokens), money_pico: None };
    BudgetConfig { whole, ..BudgetConfig::default() }
}

fn spent(book: &SpendBook) -> u64 {
    book.rows.get("").map_or(0, |row| row.spent().tokens)
}

#[test]
fn an_amount_is_short_only_if_it_exceeds_what_is_left() {
    let mut book = book();
    book.spend(&[""], tokens(5));
    book.reserve(&[""], tokens(3));
    assert_eq!(book.shortage(&[""], tokens(2), &limit(10)), None);
    let short = book.shortage(&[""], tokens(3), &limit(10)).expect("it is short");
    assert_eq!((short.unit, short.limit, short.left), (BudgetUnit::Tokens, 10, 2));
    assert_eq!(book.shortage(&[""], tokens(0), &limit(1)), None, "nothing is needed");
    assert_eq!(book.shortage(&[""], tokens(1), &limit(4)).map(|short| short.left), Some(0), "a limit was lowered");
    assert_eq!(book.shortage(&["", "other"], tokens(u64::MAX), &BudgetConfig::default()), None, "there is no limit");
}

#[test]
fn a_release_gives_back_at_most_what_was_reserved() {
    let mut book = book();
    book.reserve(&[""], tokens(3));
    book.release(&["".into()], tokens(7));
    assert_eq!(book.row("").reserved, tokens(0));
    book.spend(&[""], tokens(u64::MAX));
    book.spend(&[""], tokens(1));
    assert_eq!(spent(&book), u64::MAX);
}

#[test]
fn a_new_day_begins_at_zero_and_keeps_what_is_under_way() {
    let mut book = book();
    book.spend(&["", "team"], tokens(5));
    book.reserve(&[""], tokens(3));
    assert!(!book.roll(NOON + DAY_MS / 2 - 1));
    assert_eq!(spent(&book), 5);
    assert!(book.roll(NOON + DAY_MS / 2));
    assert_eq!((spent(&book), book.row("").reserved, book.rows.contains_key("team")), (0, tokens(3), false));
    assert_eq!(book.ends_ms(), (DAY + 2) * DAY_MS);
}

#[test]
fn a_clock_that_goes_back_and_forth_gives_nothing_back() {
    let mut book = book();
    book.roll(NOON + DAY_MS);
    book.spend(&[""], tokens(5));
    for now_ms in [NOON, NOON + DAY_MS, NOON - DAY_MS / 4, NOON + DAY_MS] {
        assert!(!book.roll(now_ms));
        assert_eq!((book.day, spent(&book)), (DAY + 1, 5));
    }
}

#[test]
fn a_clock_that_was_far_ahead_is_corrected_with_the_counts() {
    let mut book = book();
    book.roll(NOON + 1_000 * DAY_MS);
    book.spend(&[""], tokens(5));
    assert!(!book.roll(NOON));
    assert_eq!((book.day, spent(&book)), (DAY, 5));
    assert!(book.roll(NOON + DAY_MS), "the next day begins as usual");
    assert_eq!(spent(&book), 0);
}

#[test]
fn counts_of_others_are_of_their_day_only() {
    let mut book = book();
    book.spend(&[""], tokens(5));
    book.learn_others(DAY, &[(String::new(), tokens(7)), ("team".to_owned(), tokens(1))].into());
    assert_eq!((spent(&book), book.row("team").spent()), (12, tokens(1)));
    book.learn_others(DAY, &[(String::new(), tokens(8))].into());
    assert_eq!((spent(&book), book.row("team").spent()), (13, tokens(0)), "absolute numbers");
    book.learn_others(DAY - 1, &[(String::new(), tokens(1))].into());
    assert_eq!(spent(&book), 13);
}

#[test]
fn a_line_is_due_once_for_each_share_and_again_for_another_limit() {
    let mut book = book();
    let due = |book: &mut SpendBook, limit: &BudgetConfig| book.notices(limit, None).len();
    book.spend(&[""], tokens(79));
    assert_eq!(due(&mut book, &limit(100)), 0);
    book.spend(&[""], tokens(1));
    assert_eq!((due(&mut book, &limit(100)), due(&mut book, &limit(100))), (1, 0));
    assert_eq!(book.notices(&limit(100), Some(("", BudgetUnit::Tokens))).len(), 1, "it refuses already");
    book.spend(&[""], tokens(30));
    assert_eq!(due(&mut book, &limit(100)), 0, "said before");
    assert_eq!(due(&mut book, &limit(110)), 1, "another limit");
    book.roll(NOON + DAY_MS);
    book.spend(&[""], tokens(110));
    assert_eq!(due(&mut book, &limit(110)), 1, "another day");
    assert_eq!(due(&mut SpendBook::new(NOON), &limit(1)), 0, "nothing is spent");
}

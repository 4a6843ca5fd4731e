//! Tests of accounts: their sums, their bounds and price changes.

use super::super::Metrics;
use super::*;
use crate::config::Config;

fn savings(prices: &str) -> SavingsConfig {
    Config::from_pairs(&[("savings.prices", prices)]).expect("must be free of faults").savings
}

fn series(metrics: &Metrics) -> usize {
    metrics.render().1.lines().filter(|line| line.starts_with("vecho_model_") && line.contains("namespace=")).count()
}

fn costs(metrics: &Metrics) -> (f64, f64) {
    let (_, statements) = metrics.accounts().statements();
    (statements.iter().map(|one| one.cost_billed).sum(), statements.iter().map(|one| one.cost_saved).sum())
}

fn near(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() < 1e-9
}

#[test]
fn unbounded_names_do_not_grow_the_scrape() {
    let metrics = Metrics::new("0");
    metrics.accounts().reprice(&savings("known=1"));
    for n in 0..10_000 {
        let name = format!("model-{n}-{}", "x".repeat(n));
        metrics.accounts().of(&name, "", &name).count(1, 2, 3);
        metrics.accounts().of("known", &format!("space-{n}"), "known").count(1, 2, 3);
    }
    let (_, statements) = metrics.accounts().statements();
    assert_eq!(statements.len(), MAX_ACCOUNTS + 2);
    assert!(statements.iter().all(|one| one.named.model.len() <= MAX_NAME_BYTES));
    assert_eq!(series(&metrics), 4 * statements.len());
    assert_eq!(statements.iter().map(|one| one.tokens_saved).sum::<u64>(), 60_000, "nothing is lost");
    let rest = statements.iter().find(|one| &*one.named.model == OTHER).expect("the rest is there");
    assert_eq!((&*rest.named.namespace, rest.price), (OTHER, None));
    assert!(near(costs(&metrics).1, 0.03), "what has a price is priced, wherever it is counted");
}

#[test]
fn accounts_are_shared_by_name_and_names_are_sanitised() {
    let metrics = Metrics::new("0");
    let long = "\u{e9}".repeat(500);
    let accounts = metrics.accounts();
    assert!(Arc::ptr_eq(&accounts.of("m", "n", "m"), &accounts.of("m", "n", "else")));
    assert!(!Arc::ptr_eq(&accounts.of("m", "n", "m"), &accounts.of("m", "", "m")));
    assert!(Arc::ptr_eq(&accounts.of(&long, "", ""), &accounts.of(&long, "", "")));
    assert_eq!(accounts.of(&long, &long, "").named().model.len(), MAX_NAME_BYTES);
    assert_eq!(accounts.of(&long, &long, "").named().namespace.len(), MAX_NAME_BYTES);
    assert_eq!(&*accounts.of("a\nb\u{0}", "", "").named().model, "a\u{fffd}b\u{fffd}");
}

#[test]
fn the_requested_model_sets_the_price_before_the_answering_model() {
    let metrics = Metrics::new("0");
    metrics.accounts().reprice(&savings("asked=1,answered=10"));
    metrics.accounts().of("asked", "", "answered").count(1, 1_000_000, 0);
    assert!(near(costs(&metrics).0, 1.0));
    metrics.accounts().of("alias", "", "answered").count(1, 1_000_000, 0);
    assert!(near(costs(&metrics).0, 11.0));
    metrics.accounts().of("unknown", "", "unheard of").count(1, 5, 7);
    let (_, statements) = metrics.accounts().statements();
    assert_eq!(statements.iter().map(|one| one.unpriced_tokens).sum::<u64>(), 12);
}

#[test]
fn new_prices_apply_to_later_tokens_and_lower_no_counter() {
    let metrics = Metrics::new("0");
    let account = metrics.accounts().of("m", "", "m");
    let counted = |expected: (f64, f64)| {
        assert!(near(costs(&metrics).0, expected.0) && near(costs(&metrics).1, expected.1), "{:?}", costs(&metrics));
        let line = |kind| format!("vecho_model_cost_total{{cache_namespace=\"\",kind=\"{kind}\",model=\"m\"}} ");
        let text = metrics.render().1;
        let shown = |kind| text.lines().find_map(|one| one.strip_prefix(&*line(kind))?.parse::<f64>().ok());
        assert!(near(shown("billed").unwrap_or(-1.0), expected.0) && near(shown("saved").unwrap_or(-1.0), expected.1));
    };
    account.count(1, 1_000_000, 2_000_000);
    counted((0.0, 0.0));
    metrics.accounts().reprice(&savings("m=4"));
    counted((0.0, 0.0));
    account.count(1, 1_000_000, 2_000_000);
    counted((4.0, 8.0));
    account.count(1, 1_000_000, 0);
    metrics.accounts().reprice(&savings("m=0.5"));
    counted((8.0, 8.0));
    account.count(1, 1_000_000, 0);
    counted((8.5, 8.0));
    metrics.accounts().reprice(&savings("other=1"));
    counted((8.5, 8.0));
}

#[test]
fn concurrent_scrapes_count_each_cost_once() {
    let metrics = Metrics::new("0");
    metrics.accounts().reprice(&savings("m=1"));
    let account = metrics.accounts().of("m", "", "m");
    for round in 1..=200 {
        account.count(1, 1_000_000, 0);
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| metrics.accounts().show_costs()))));
        assert!(near(account.cost_billed.get(), f64::from(round)), "{round}: {}", account.cost_billed.get());
    }
}

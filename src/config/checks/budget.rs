//! Checks of `[budget]`.

use std::collections::BTreeMap;

use toml::Value;

use crate::config::reader::Reader;
use crate::config::{BudgetConfig, BudgetUnit, DailyLimits, SavingsConfig, values};

/// Each budget of a namespace takes a few lines of a scrape.
const MAX_NAMESPACES: usize = 64;
/// The header that names a namespace accepts no more.
const MAX_NAME_BYTES: usize = 256;
/// No integer of TOML is larger.
const MAX_TOKENS: u64 = i64::MAX as u64;
/// Largest and smallest amount of money, in the currency.
const MAX_MONEY: f64 = 1e9;
const LEAST_MONEY: f64 = 1e-6;
/// Units of 10^-12 of the currency in the smallest amount.
const PICO_OF_LEAST: u128 = 1_000_000;

pub(super) fn budget(reader: &mut Reader, savings: &SavingsConfig) -> BudgetConfig {
    let whole = DailyLimits {
        tokens: reader.optional_count(BudgetUnit::Tokens.key(false), 1..=MAX_TOKENS),
        money_pico: reader.optional(BudgetUnit::Money.key(false), money),
    };
    let mut namespaces: BTreeMap<String, DailyLimits> = BTreeMap::new();
    for (name, tokens) in named(reader, BudgetUnit::Tokens, tokens_of) {
        namespaces.entry(name).or_default().tokens = Some(tokens);
    }
    for (name, money_pico) in named(reader, BudgetUnit::Money, money_of) {
        namespaces.entry(name).or_default().money_pico = Some(money_pico);
    }
    let budget = BudgetConfig { whole, namespaces, dearest: savings.dearest() };
    check_prices(reader, &budget);
    budget
}

/// Rejects limits of money that nothing could count towards.
fn check_prices(reader: &mut Reader, budget: &BudgetConfig) {
    if budget.dearest.is_some() || !budget.limits_money() {
        return;
    }
    let key = BudgetUnit::Money.key(budget.whole.money_pico.is_none());
    reader.fault(key, "needs at least one price in savings.prices, by which calls are counted");
}

/// Reads a list of `NAMESPACE=LIMIT`.
fn named<T>(reader: &mut Reader, unit: BudgetUnit, read: fn(&str) -> Option<T>) -> Vec<(String, T)> {
    let key = unit.key(true);
    let example = if unit == BudgetUnit::Tokens { "team-a=1000000" } else { "team-a=2.50" };
    let entry = |entry: &str| {
        // The last `=` is the separator: a name may contain one, a number cannot.
        let (name, limit) = entry.rsplit_once('=').ok_or_else(|| format!("{entry:?} is not like {example:?}"))?;
        let (name, limit) = (name.trim(), limit.trim());
        if !is_namespace(name) {
            return Err(format!("{entry:?} names no namespace of 1 to {MAX_NAME_BYTES} visible ASCII characters"));
        }
        let limit = read(limit).ok_or_else(|| format!("{limit:?} in {entry:?} is no limit, as in {example:?}"))?;
        Ok((name.to_owned(), limit))
    };
    let entries = reader.list(key, entry).unwrap_or_default();
    if entries.len() > MAX_NAMESPACES {
        reader.fault(key, format!("holds {} namespaces, more than {MAX_NAMESPACES}", entries.len()));
    }
    for (place, (name, _)) in entries.iter().enumerate() {
        if entries[..place].iter().any(|(earlier, _)| earlier == name) {
            reader.fault(key, format!("holds two limits of {name}"));
        }
    }
    entries
}

fn is_namespace(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn tokens_of(text: &str) -> Option<u64> {
    values::count(&Value::String(text.to_owned()), &(1..=MAX_TOKENS)).ok()
}

fn money_of(text: &str) -> Option<u128> {
    money(&Value::String(text.to_owned())).ok()
}

/// Reads an amount of money with up to six decimals.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and 10^15")]
fn money(value: &Value) -> Result<u128, String> {
    let amount = values::ratio(value, &(LEAST_MONEY..=MAX_MONEY))?;
    Ok(u128::from((amount * 1e6).round() as u64) * PICO_OF_LEAST)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const PICO: u128 = 1_000_000_000_000;

    #[test]
    fn limits_are_read_for_the_whole_and_for_namespaces() {
        let pairs = [
            ("budget.tokens_per_day", "1_000_000"),
            ("budget.money_per_day", "2.5"),
            ("budget.namespace_tokens_per_day", "team-a=1000, a=b=7"),
            ("budget.namespace_money_per_day", "team-a=0.000001"),
        ];
        let budget = Config::from_pairs(&pairs).expect("must be free of faults").budget;
        assert_eq!((budget.whole.tokens, budget.whole.money_pico), (Some(1_000_000), Some(5 * PICO / 2)));
        let team = budget.limits_of("team-a").expect("it has limits");
        assert_eq!((team.tokens, team.money_pico), (Some(1_000), Some(PICO / 1_000_000)));
        assert_eq!(budget.limits_of("a=b").map(|limits| limits.tokens), Some(Some(7)));
        assert_eq!((budget.limits_of("other"), budget.is_off()), (None, false));
    }

    #[test]
    fn no_limit_is_set_by_default() {
        assert!(Config::from_pairs(&[]).expect("must be free of faults").budget.is_off());
    }

    #[test]
    fn every_faulty_limit_is_reported() {
        let pairs = [
            ("budget.tokens_per_day", "0"),
            ("budget.money_per_day", "-1"),
            ("budget.namespace_tokens_per_day", "none, =1, a b=1, m=, m=x, m=0, twice=1, twice=2"),
            ("budget.namespace_money_per_day", "m=nan, m=inf, m=0, m=1e10"),
        ];
        let text = Config::from_pairs(&pairs).unwrap_err().to_string();
        let words = [
            "0 is not between 1",
            "-1 is not between",
            "\"none\"",
            "\"=1\"",
            "\"a b=1\"",
            "\"m=\"",
            "\"m=x\"",
            "\"m=0\"",
        ];
        for word in words.iter().chain(&["\"m=nan\"", "\"m=inf\"", "\"m=1e10\""]) {
            assert!(text.contains(word), "{word}:\n{text}");
        }
        let twice = Config::from_pairs(&[("budget.namespace_tokens_per_day", "twice=1, twice=2")]).unwrap_err();
        assert!(twice.to_string().contains("two limits of twice"), "{twice}");
    }

    #[test]
    fn a_limit_of_money_needs_a_price() {
        for key in ["budget.money_per_day", "budget.namespace_money_per_day"] {
            let value = if key.contains("namespace") { "a=1" } else { "1" };
            let faults = Config::from_pairs(&[(key, value), ("savings.prices", "[]")]).unwrap_err();
            let text = faults.to_string();
            assert!(text.contains(key) && text.contains("needs at least one price"), "{text}");
        }
        Config::from_pairs(&[("budget.tokens_per_day", "1"), ("savings.prices", "[]")]).expect("tokens need no price");
    }
}

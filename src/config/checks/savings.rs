//! Prices of tokens.

use std::collections::BTreeSet;

use toml::Value;

use crate::config::reader::Reader;
use crate::config::{Price, SavingsConfig, values};

/// The list is searched linearly for each new kind of request, so its length is bounded.
const MAX_PRICES: usize = 256;
/// Usage accounts keep no more bytes of a name.
const MAX_NAME_BYTES: usize = 128;

pub(super) fn savings(reader: &mut Reader) -> SavingsConfig {
    let prices: Vec<(String, Price)> = reader.list("savings.prices", price).unwrap_or_default();
    if prices.len() > MAX_PRICES {
        reader.fault("savings.prices", format!("holds {} prices, more than {MAX_PRICES}", prices.len()));
    }
    for name in repeated(&prices) {
        reader.fault("savings.prices", format!("holds two prices of {name}"));
    }
    SavingsConfig { prices, currency: reader.required("savings.currency", currency) }
}

fn price(entry: &str) -> Result<(String, Price), String> {
    // The last `=` is the separator: a name may contain one, a price cannot.
    let (model, price) = entry.rsplit_once('=').ok_or_else(|| format!("{entry:?} is not like \"MODEL=0.02\""))?;
    let (model, price) = (model.trim(), price.trim());
    if model.is_empty() || model.len() > MAX_NAME_BYTES {
        return Err(format!("{entry:?} names no model, or one of more than {MAX_NAME_BYTES} bytes"));
    }
    let parsed = price.parse().ok().and_then(Price::per_million);
    let parsed = parsed.ok_or_else(|| format!("{price:?} in {entry:?} is not a price from 0 to 1000000000"))?;
    Ok((model.to_owned(), parsed))
}

fn repeated(prices: &[(String, Price)]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    prices.iter().map(|(name, _)| name).filter(|name| !seen.insert(*name)).cloned().collect()
}

fn currency(value: &Value) -> Result<String, String> {
    let text = values::text(value)?;
    let is_code = text.len() == 3 && text.bytes().all(|letter| letter.is_ascii_uppercase());
    if is_code { Ok(text) } else { Err(format!("{value} is not three capital letters, such as \"USD\"")) }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn prices_are_per_million_tokens() {
        let pairs = [("savings.prices", "a=b=0.02, big=13"), ("savings.currency", "EUR")];
        let savings = Config::from_pairs(&pairs).expect("must be free of faults").savings;
        assert_eq!(savings.price("a=b").map(|price| price.of_pico(1_000_000)), Some(20_000_000_000));
        assert_eq!(savings.price("big").map(crate::config::Price::to_per_million), Some(13.0));
        assert_eq!((savings.price("a"), savings.currency.as_str()), (None, "EUR"));
    }

    #[test]
    fn all_invalid_prices_are_reported_at_once() {
        let bad = "none, =1, m=, m=x, m=-1, m=nan, m=inf, m=1e10, twice=1, twice=2";
        let faults = Config::from_pairs(&[("savings.prices", bad), ("savings.currency", "usd")]).unwrap_err();
        let text = faults.to_string();
        for word in
            ["\"none\"", "\"=1\"", "\"m=\"", "\"m=x\"", "\"m=-1\"", "\"m=nan\"", "\"m=inf\"", "\"m=1e10\"", "\"usd\""]
        {
            assert!(text.contains(word), "{word}:\n{text}");
        }
        let twice = Config::from_pairs(&[("savings.prices", "twice=1, twice=2")]).unwrap_err();
        assert!(twice.to_string().contains("two prices of twice"), "{twice}");
    }
}

//! Prices of tokens.

/// `[savings]`
#[derive(Clone, Debug, Default)]
pub struct SavingsConfig {
    /// Prices by model.
    pub prices: Vec<(String, Price)>,
    /// Currency of the prices, in three letters.
    pub currency: String,
}

impl SavingsConfig {
    /// Returns the price of a model, if known.
    pub fn price(&self, model: &str) -> Option<Price> {
        self.prices.iter().find(|(name, _)| name == model).map(|(_, price)| *price)
    }

    /// Returns the highest price.
    pub fn dearest(&self) -> Option<Price> {
        self.prices.iter().map(|(_, price)| *price).max()
    }
}

/// Price of a token in units of 10^-12 of the currency, so a price per million tokens has six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    /// Highest price per million tokens.
    pub const MAX_PER_MILLION: f64 = 1e9;

    /// Converts a price per million tokens. Returns `None` if it is out of range.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 10^15")]
    pub fn per_million(price: f64) -> Option<Self> {
        (0.0..=Self::MAX_PER_MILLION).contains(&price).then(|| Self((price * 1e6).round() as u64))
    }

    /// Returns the price per million tokens.
    #[expect(clippy::cast_precision_loss, reason = "it is below 2^53")]
    pub fn to_per_million(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Returns the cost of `tokens` in units of 10^-12 of the currency.
    pub fn of_pico(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

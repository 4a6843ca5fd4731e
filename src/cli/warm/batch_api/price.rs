//! The price of a job, and the question before it is sent.

use std::io::{self, BufRead, IsTerminal, Write};

use tokio::task::spawn_blocking;

use super::state::{JobPart, JobTarget};
use crate::cli::moving::CommandError;
use crate::cli::progress::{counted, grouped, say};
use crate::config::SavingsConfig;

/// Units of a price in one unit of its currency.
const PICO: u128 = 1_000_000_000_000;

/// Returns the description of a job with its price.
pub(super) fn described(parts: &[JobPart], target: &JobTarget, savings: &SavingsConfig) -> String {
    let requests: u64 = parts.iter().map(|part| part.requests).sum();
    let tokens: u64 = parts.iter().map(|part| part.tokens).sum();
    let batches =
        if parts.len() == 1 { "1 batch".to_owned() } else { format!("{} batches", grouped(parts.len() as u64)) };
    let price = cost(tokens, target, savings).map_or_else(
        || format!("at an unknown price (savings.prices has none for {})", target.model),
        |cost| format!("about {cost}"),
    );
    let (requests, tokens) = (counted(requests, "request"), counted(tokens, "token"));
    format!("{requests} in {batches}, about {tokens}, {price}")
}

/// Returns half of the price of some tokens, if the price of the model is known.
pub(super) fn cost(tokens: u64, target: &JobTarget, savings: &SavingsConfig) -> Option<String> {
    let price = savings.price(&target.model).or_else(|| savings.price(&target.batch_model))?;
    Some(format!("{} {}", amount(price.of_pico(tokens) / 2), savings.currency))
}

/// Formats an amount with two decimals, or with six if it is below one.
fn amount(pico: u128) -> String {
    let (decimals, unit) = if pico >= PICO { (2, PICO / 100) } else { (6, PICO / 1_000_000) };
    // A price is never shown as zero.
    let rounded = pico.div_ceil(unit);
    let scale = 10_u128.pow(decimals);
    format!("{}.{:0width$}", rounded / scale, rounded % scale, width = decimals as usize)
}

/// Asks on the terminal whether to send a job. Fails without a terminal.
pub(super) async fn confirm(described: &str, reads_standard_input: bool) -> Result<bool, CommandError> {
    if reads_standard_input || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        say(&format!("not sent: {described}"));
        return Err("there is no terminal to ask whether to send this; use --yes to send without a question".to_owned());
    }
    write!(io::stderr(), "Send {described}? [y/N] ").ok();
    let answer = spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn target(model: &str) -> JobTarget {
        JobTarget {
            upstream: String::new(),
            path: String::new(),
            model: model.to_owned(),
            batch_model: model.to_owned(),
            dimensions: None,
            namespace: None,
        }
    }

    #[test]
    fn the_price_is_half_of_that_of_a_live_request() {
        let savings = Config::from_pairs(&[]).expect("it is free of faults").savings;
        let part = JobPart { requests: 1_200, tokens: 1_000_000, ..JobPart::new(1) };
        let small = described(std::slice::from_ref(&part), &target("text-embedding-3-small"), &savings);
        assert_eq!(small, "1,200 requests in 1 batch, about 1,000,000 tokens, about 0.010000 USD");
        let large = described(&[part.clone(), part], &target("text-embedding-3-large"), &savings);
        assert_eq!(large, "2,400 requests in 2 batches, about 2,000,000 tokens, about 0.130000 USD");
        assert_eq!(cost(100_000_000, &target("text-embedding-3-large"), &savings).as_deref(), Some("6.50 USD"));
        assert_eq!(cost(1, &target("text-embedding-3-small"), &savings).as_deref(), Some("0.000001 USD"));
    }

    #[test]
    fn an_unknown_price_is_named_as_unknown() {
        let savings = Config::from_pairs(&[]).expect("it is free of faults").savings;
        let said = described(&[JobPart::new(1)], &target("own-model"), &savings);
        assert!(said.ends_with("at an unknown price (savings.prices has none for own-model)"), "{said}");
    }
}

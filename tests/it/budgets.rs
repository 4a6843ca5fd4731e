//! Budgets: hits go on when a budget is spent, everything else is refused, and the counts equal those of the upstream.

mod clients;
mod counting;
mod days;
mod keeping;
mod random;
mod refusing;
mod sharing;
mod shown;

use serde_json::{Value, json};

use crate::harness::Inside;
use crate::harness::client::Answer;
use crate::harness::front::TINY;
use crate::harness::ops::metric;

/// A model whose tokens are known before a call.
const SMALL: &str = "text-embedding-3-small";

/// Series of the count of tokens.
const SPENT: &str = r#"vecho_budget_spent{budget="budget.tokens_per_day",cache_namespace=""}"#;

/// Returns the series of what is spent of the budget of a namespace.
fn spent_by(namespace: &str) -> String {
    format!(r#"vecho_budget_spent{{budget="budget.namespace_tokens_per_day",cache_namespace="{namespace}"}}"#)
}

/// Returns the tokens that vecho has counted today.
async fn spent(vecho: &Inside) -> u64 {
    whole(metric(vecho.admin(), SPENT).await)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test counts few tokens")]
fn whole(number: f64) -> u64 {
    assert!(number >= 0.0 && number.fract() == 0.0, "{number}");
    number as u64
}

/// Requests a text of exactly this many tokens, in a model that is counted before the call.
fn of_tokens(name: &str, tokens: usize) -> Value {
    json!({"model": SMALL, "input": text_of_tokens(name, tokens), "dimensions": 8})
}

/// Returns a text of exactly this many tokens that begins with a name.
fn text_of_tokens(name: &str, tokens: usize) -> String {
    let mut text = name.to_owned();
    let mut count = crate::harness::stub::tokens(text.as_str());
    assert!(count <= tokens, "{name} alone has {count} tokens");
    while count < tokens {
        text.push_str(" a");
        count = crate::harness::stub::tokens(text.as_str());
    }
    assert_eq!(count, tokens, "{text}");
    text
}

/// Checks that an answer is the refusal of a budget, and returns its message.
#[track_caller]
fn assert_refused(answer: &Answer) -> String {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.error(), ("insufficient_quota".to_owned(), json!("budget_exhausted")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some() && answer.header("x-vecho-cache").is_none(), "{answer:?}");
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

fn tiny(texts: &[&str]) -> Value {
    json!({"model": TINY, "input": texts})
}

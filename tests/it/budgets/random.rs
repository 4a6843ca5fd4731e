//! Random requests and failures: what vecho counts equals what the upstream bills, and no budget is exceeded.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::{SMALL, spent, spent_by, whole};
use crate::harness::{Behaviour, Inside, Stub};

/// A small generator, so that a failing run can be repeated.
struct Dice(AtomicU64);

impl Dice {
    /// Returns a number below `sides`.
    fn roll(&self, sides: u64) -> u64 {
        let next = |seed: u64| seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seed = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| Some(next(seed)));
        (next(seed.expect("it has a next one")) >> 33) % sides
    }
}

/// Failures that the upstream does not bill, and answers that it does.
fn weather(dice: &Dice) -> Behaviour {
    match dice.roll(12) {
        0 => Behaviour::Status { code: 500, headers: Vec::new(), body: "{}".to_owned() },
        1 => Behaviour::RateLimit { retry_after_ms: 1 },
        2 => Behaviour::HangUp,
        3 => Behaviour::Status { code: 400, headers: Vec::new(), body: "{}".to_owned() },
        4 => Behaviour::AllZero,
        5 => Behaviour::Reorder,
        6 => Behaviour::Delay(std::time::Duration::from_millis(dice.roll(5))),
        _ => Behaviour::Normal,
    }
}

async fn run(seed: u64, limit: u64) {
    let (stub, dice) = (Stub::start(), std::sync::Arc::new(Dice(AtomicU64::new(seed))));
    let weather_dice = std::sync::Arc::clone(&dice);
    stub.decide(move |_| weather(&weather_dice));
    let (limit, namespace) = (limit.to_string(), format!("team={}", limit / 3));
    let pairs = [
        ("budget.tokens_per_day", limit.as_str()),
        ("budget.namespace_tokens_per_day", namespace.as_str()),
        ("fallback.mode", "error"),
        ("breaker.failures", "0"),
        ("retry.base_wait", "1ms"),
        ("retry.max_wait", "1ms"),
        ("upstream.max_concurrent", "4"),
    ];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    let mut refused = 0_usize;
    for _ in 0..25 {
        let asks = (0..8).map(|_| {
            let words: Vec<String> =
                (0..=dice.roll(4)).map(|_| format!("word {} and {}", dice.roll(400), dice.roll(3))).collect();
            let headers = [("x-vecho-namespace", "team")];
            let is_of_team = dice.roll(3) == 0;
            let vecho = &vecho;
            async move {
                let body = json!({"model": SMALL, "input": words, "dimensions": 8});
                vecho.embed_with(if is_of_team { &headers } else { &[][..] }, body).await
            }
        });
        let answers = futures_util::future::join_all(asks.collect::<Vec<_>>()).await;
        refused +=
            answers.iter().filter(|answer| answer.status == 429 && answer.header("x-should-retry").is_some()).count();
    }
    // Every request has ended, so nothing is set aside any more.
    let (counted, billed) = (spent(&vecho).await, stub.billed_tokens());
    assert_eq!(counted, billed, "seed {seed}");
    let limit: u64 = limit.parse().expect("a number");
    assert!(billed <= limit + 120, "seed {seed}: {billed} of {limit}; only repeated calls may exceed it");
    assert!(whole(vecho.metric(&spent_by("team")).await) <= limit / 3 + 120, "seed {seed}");
    if limit < 2_000 {
        assert!(refused > 0, "seed {seed}: the budget was never spent");
    }
    let stats = vecho.client.get(&format!("http://{}/api/performance/stats", vecho.admin())).await.json();
    for budget in stats["savings"]["budgets"]["list"].as_array().expect("a list") {
        let number = |name: &str| budget[name].as_f64().expect("a number");
        let left = (number("limit") - number("spent")).max(0.0);
        assert!((number("left") - left).abs() < 1e-9, "seed {seed}: a reservation is left: {budget}");
    }
}

#[tokio::test]
async fn counted_tokens_equal_the_billed_ones_within_a_budget_that_is_spent() {
    for seed in [1, 7, 1_234] {
        run(seed, 600).await;
    }
}

#[tokio::test]
async fn counted_tokens_equal_the_billed_ones_within_a_large_budget() {
    for seed in [3, 99] {
        run(seed, 1_000_000).await;
    }
}

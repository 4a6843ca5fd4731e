//! What people see of the budgets: figures, explanations, log lines and health.

use serde_json::{Value, json};

use super::{SMALL, assert_refused, of_tokens};
use crate::harness::{Client, Front, Inside, Stub, Vecho};

async fn savings(vecho: &Inside) -> Value {
    let url = format!("http://{}/api/performance/stats", vecho.admin());
    vecho.client.get(&url).await.json()["savings"].clone()
}

#[tokio::test]
async fn the_figures_show_limit_cost_and_reset_of_each_budget() {
    let stub = Stub::start();
    let pairs = [
        ("budget.tokens_per_day", "40"),
        ("budget.money_per_day", "2.5"),
        ("budget.namespace_tokens_per_day", "team-a=5"),
        ("savings.prices", "text-embedding-3-small=50000"),
    ];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    vecho.embed(of_tokens("one", 20)).await;
    assert_refused(&vecho.embed_with(&[("x-vecho-namespace", "team-a")], of_tokens("two", 6)).await);
    let budgets = savings(&vecho).await["budgets"].clone();
    assert_eq!(budgets["resets_at"], "2023-11-15T00:00:00Z");
    let line = |key: &str, namespace: &str, limit: f64, spent: f64, refused: u64| json!({"key": key, "namespace": namespace, "limit": limit, "spent": spent, "left": limit - spent, "refused": refused});
    let expected = [
        line("budget.tokens_per_day", "", 40.0, 20.0, 0),
        line("budget.money_per_day", "", 2.5, 1.0, 0),
        line("budget.namespace_tokens_per_day", "team-a", 5.0, 0.0, 1),
    ];
    assert_eq!(budgets["list"], json!(expected));
    let series = r#"vecho_budget_refused_total{budget="budget.namespace_tokens_per_day",cache_namespace="team-a"}"#;
    assert_eq!(vecho.metric(series).await.to_string(), "1");
    let limit = r#"vecho_budget_limit{budget="budget.money_per_day",cache_namespace=""}"#;
    assert_eq!(vecho.metric(limit).await.to_string(), "2.5");
}

#[tokio::test]
async fn without_budgets_the_figures_have_none() {
    let vecho = Inside::start("mock:", &[]).await;
    assert_eq!(savings(&vecho).await["budgets"], Value::Null);
}

#[tokio::test]
async fn an_explanation_says_what_the_budgets_would_do() {
    let front = Front::with(&[("budget.tokens_per_day", "10")]).await;
    let body = json!({"model": SMALL, "input": "abcdef", "dimensions": 8}).to_string();
    let budget = front.explain(&body).await["budget"].clone();
    assert_eq!(budget, json!({"counts": true, "expected_tokens": 2, "refusal": null}));
    let large = json!({"model": SMALL, "input": "abcdef".repeat(10), "dimensions": 8}).to_string();
    let refusal = front.explain(&large).await["budget"]["refusal"].clone();
    assert!(refusal.as_str().is_some_and(|text| text.contains("budget.tokens_per_day")), "{refusal}");
    let unknown = json!({"model": SMALL, "input": "a", "messages": []}).to_string();
    let explained = front.explain(&unknown).await;
    assert_eq!((&explained["cacheable"], &explained["budget"]), (&json!(false), &json!({"counts": true})));
    assert_eq!(front.calls(), 0, "an explanation costs nothing");
    let off = Front::start().await;
    assert_eq!(off.explain(&body).await["budget"], Value::Null);
}

#[tokio::test]
async fn the_log_has_one_line_at_80_percent_and_one_when_the_budget_is_spent() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_BUDGET_TOKENS_PER_DAY", "100")]);
    let embed = async |name: &str, tokens: usize| {
        Client::new().post(&format!("{}/embeddings", vecho.base_url()), &of_tokens(name, tokens)).await.status
    };
    assert_eq!(embed("one", 79).await, 200);
    assert!(!vecho.log().contains("most of a budget is spent"), "{}", vecho.log());
    assert_eq!((embed("two", 3).await, embed("three", 3).await), (200, 200));
    for n in 0..10 {
        assert_eq!(embed(&format!("large {n}"), 50).await, 429);
    }
    // A request has found too little left, although 15 tokens are.
    vecho.logged("a budget is spent: inputs").await;
    assert_eq!(embed("four", 15).await, 200);
    let log = vecho.stop().log;
    assert_eq!(log.matches("most of a budget is spent").count(), 1, "{log}");
    assert_eq!(log.matches("a budget is spent: inputs").count(), 1, "{log}");
}

#[tokio::test]
async fn health_warns_while_a_budget_refuses_requests() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "10")]).await;
    assert_eq!(vecho.health().await["warnings"], json!([]));
    vecho.embed(of_tokens("one", 10)).await;
    let health = vecho.health().await;
    let warning = health["warnings"][0].as_str().expect("a warning").to_owned();
    assert!(warning.contains("budget.tokens_per_day") && warning.contains("2023-11-15T00:00:00Z"), "{warning}");
    assert_eq!(health["status"], "degraded");
}

//! Records of tokens and money by model and namespace. Their totals equal the sums of the answers' own headers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::client::{Answer, Client};
use crate::harness::ops::metric;
use crate::harness::{Inside, Stub};

const PRICES: &[(&str, &str)] =
    &[("savings.prices", "tiny=1000000, text-embedding-3-small=20"), ("savings.currency", "EUR")];

/// Returns the billed and saved tokens from an answer's header.
fn header(answer: &Answer) -> [u64; 2] {
    let parts = answer.tokens().strip_prefix("billed=").and_then(|rest| rest.split_once(", saved="));
    let (billed, saved) = parts.unwrap_or_else(|| panic!("two numbers: {}", answer.tokens()));
    [billed, saved].map(|number| number.parse().expect("a number"))
}

async fn savings(vecho: &Inside) -> Value {
    let answer = Client::new().get(&format!("http://{}/api/performance/stats", vecho.admin())).await;
    answer.json()["savings"].clone()
}

fn near(actual: &Value, expected: f64) -> bool {
    actual.as_f64().is_some_and(|actual| (actual - expected).abs() < 1e-9)
}

/// Sends hits, misses, repetitions within a request and between requests, replies from the reply cache, several
/// models and several namespaces.
async fn mixed_run(vecho: &Inside) -> BTreeMap<(&'static str, &'static str), [u64; 2]> {
    let mut told = BTreeMap::new();
    let bodies =
        [json!(["a b", "c", "a b"]), json!("c"), json!(["d e f", "c"]), json!("c"), json!("c"), json!([[1, 2]])];
    for model in ["tiny", "text-embedding-3-small", "unpriced"] {
        for namespace in ["", "team-a", "team-b"] {
            for input in &bodies {
                let headers = [("x-vecho-namespace", namespace)];
                let headers = if namespace.is_empty() { &[][..] } else { &headers };
                let body = json!({"model": model, "input": input, "dimensions": 8});
                let [billed, saved] = header(&vecho.embed_with(headers, body).await);
                let sum: &mut [u64; 2] = told.entry((model, namespace)).or_default();
                *sum = [sum[0] + billed, sum[1] + saved];
            }
        }
    }
    told
}

#[tokio::test]
async fn savings_equal_the_sum_of_the_token_headers() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), PRICES).await;
    let told = mixed_run(&vecho).await;
    let savings = savings(&vecho).await;
    for ((model, namespace), [billed, saved]) in &told {
        assert!(*billed > 0 && *saved > 0, "{model} {namespace}");
        let line = savings["models"].as_array().expect("a list").iter();
        let line = line.clone().find(|line| line["model"] == *model && line["namespace"] == *namespace);
        let line = line.unwrap_or_else(|| panic!("no {model} {namespace}: {savings}"));
        assert_eq!((&line["tokens_billed"], &line["tokens_saved"]), (&json!(billed), &json!(saved)), "{line}");
        assert_eq!((&line["requests"], &line["inputs"]), (&json!(6), &json!(9)), "{line}");
        for (kind, tokens) in [("billed", billed), ("saved", saved)] {
            let series =
                format!(r#"vecho_model_tokens_total{{cache_namespace="{namespace}",kind="{kind}",model="{model}"}}"#);
            assert_eq!(vecho.metric(&series).await.to_string(), tokens.to_string(), "{series}");
        }
    }
    for (place, kind) in ["billed", "saved"].into_iter().enumerate() {
        let sum: u64 = told.values().map(|tokens| tokens[place]).sum();
        assert_eq!(savings[format!("tokens_{kind}")], json!(sum));
        assert_eq!(
            metric(vecho.admin(), &format!(r#"vecho_tokens_total{{kind="{kind}"}}"#)).await.to_string(),
            sum.to_string()
        );
    }
}

#[tokio::test]
async fn costs_are_tokens_times_price_and_unpriced_tokens_are_reported() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), PRICES).await;
    let told = mixed_run(&vecho).await;
    let savings = savings(&vecho).await;
    let sum = |model: &str, place: usize| -> u64 {
        told.iter().filter(|((of, _), _)| *of == model).map(|(_, tokens)| tokens[place]).sum()
    };
    for (place, kind) in ["cost_billed", "cost_saved"].into_iter().enumerate() {
        let expected = float(sum("tiny", place)) + float(sum("text-embedding-3-small", place)) * 20e-6;
        assert!(near(&savings[kind], expected), "{kind} {expected}: {savings}");
    }
    assert_eq!(savings["currency"], "EUR");
    assert_eq!(savings["unpriced_tokens"], json!(sum("unpriced", 0) + sum("unpriced", 1)));
    let lines = savings["models"].as_array().expect("a list");
    let unpriced = lines.iter().find(|line| line["model"] == "unpriced").expect("it is there");
    assert_eq!((&unpriced["cost_saved"], &unpriced["price_per_million_tokens"]), (&json!(null), &json!(null)));
    let series = r#"vecho_model_cost_total{cache_namespace="team-a",kind="saved",model="tiny"}"#;
    let [_, saved] = told[&("tiny", "team-a")];
    assert!((vecho.metric(series).await - float(saved)).abs() < 1e-9);
}

fn float(tokens: u64) -> f64 {
    f64::from(u32::try_from(tokens).expect("a test's tokens are few"))
}

#[tokio::test]
async fn savings_of_an_azure_deployment_are_counted_under_its_name() {
    let vecho = Inside::start("mock:", &[("savings.prices", "team-model=1")]).await;
    let url = format!("http://{}/openai/deployments/team-model/embeddings?api-version=1", vecho.public());
    for _ in 0..3 {
        vecho.client.post(&url, &json!({"input": "one two"})).await;
    }
    let lines = savings(&vecho).await["models"].clone();
    assert_eq!((&lines[0]["model"], &lines[0]["requests"]), (&json!("team-model"), &json!(3)));
    assert!(lines[0]["cost_saved"].as_f64().is_some_and(|cost| cost > 0.0), "{lines}");
}

#[tokio::test]
async fn invented_model_names_do_not_grow_the_scrape() {
    let vecho = Inside::start("mock:", &[]).await;
    let lines = async || {
        let scrape = Client::new().get(&format!("http://{}/metrics", vecho.admin())).await;
        String::from_utf8(scrape.body.to_vec())
            .expect("text")
            .lines()
            .filter(|line| line.contains("vecho_model_"))
            .count()
    };
    let ask = async |name: String| {
        let body = json!({"model": name, "input": "x", "dimensions": 2});
        let answer = vecho.embed_with(&[("x-vecho-namespace", &name)], body).await;
        assert_eq!(answer.status, 200);
    };
    for n in 0..100 {
        ask(format!("made-up-{n}")).await;
    }
    let before = lines().await;
    for n in 100..400 {
        ask(format!("made-up-{n}")).await;
    }
    assert_eq!(lines().await, before);
    assert_eq!(savings(&vecho).await["models"][0]["model"], "other");
}

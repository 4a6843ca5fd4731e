//! Counts that survive the process, whichever way it ends.

use std::path::PathBuf;

use serde_json::Value;

use super::{SPENT, assert_refused, of_tokens, whole};
use crate::disk::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::ops::{metric, metric_becomes};
use crate::harness::{Behaviour, Client, Stub, Vecho, eventually};

fn start(stub: &Stub, folder: &Folder, budget: &str) -> Vecho {
    let environment = [("VECHO_DISK_PATH", folder.text()), ("VECHO_BUDGET_TOKENS_PER_DAY", budget)];
    Vecho::start_with(&stub.base_url(), &environment)
}

async fn embed(vecho: &Vecho, body: &Value) -> Answer {
    Client::new().post(&format!("{}/embeddings", vecho.base_url()), body).await
}

async fn spent(vecho: &Vecho) -> u64 {
    whole(metric(vecho.admin(), SPENT).await)
}

fn file(folder: &Folder) -> PathBuf {
    PathBuf::from(folder.text()).join("spending.json")
}

/// Waits until the file holds this many tokens.
async fn written(folder: &Folder, tokens: u64) {
    let holds = || std::fs::read_to_string(file(folder)).is_ok_and(|text| text.contains(&format!("\"{tokens} ")));
    eventually(&format!("{tokens} tokens in the file"), async || holds()).await;
}

#[tokio::test]
async fn a_restart_keeps_what_was_spent() {
    let (stub, folder) = (Stub::start(), Folder::new());
    for round in 1..=3_u64 {
        let vecho = start(&stub, &folder, "25");
        assert_eq!(spent(&vecho).await, (round - 1) * 10);
        let answer = embed(&vecho, &of_tokens(&format!("round {round}"), 10)).await;
        assert_eq!(answer.status, if round < 3 { 200 } else { 429 }, "{answer:?}");
        let ended = vecho.stop();
        assert!(ended.status.success(), "{}", ended.log);
    }
    assert_eq!(stub.billed_tokens(), 20);
}

#[tokio::test]
async fn a_kill_keeps_what_was_spent_before_the_last_second() {
    let (stub, folder) = (Stub::start(), Folder::new());
    let vecho = start(&stub, &folder, "25");
    assert_eq!(embed(&vecho, &of_tokens("kept", 20)).await.status, 200);
    written(&folder, 20).await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = start(&stub, &folder, "25");
    assert_eq!(spent(&vecho).await, 20);
    assert_refused(&embed(&vecho, &of_tokens("more", 6)).await);
}

#[tokio::test]
async fn calls_under_way_at_a_kill_count_as_spent() {
    let (stub, folder) = (Stub::start(), Folder::new());
    let vecho = start(&stub, &folder, "25");
    stub.always(Behaviour::Gate);
    let body = of_tokens("under way", 20);
    let url = format!("{}/embeddings", vecho.base_url());
    let asked = tokio::spawn(async move { Client::new().send(crate::harness::client::post(&url, &body)).await });
    stub.held(1).await;
    written(&folder, 20).await;
    vecho.signal("KILL");
    vecho.ended();
    assert!(asked.await.expect("it ends").is_err());
    let vecho = start(&stub, &folder, "25");
    assert_eq!(spent(&vecho).await, 20, "the service may have billed it");
    stub.always(Behaviour::Normal);
    assert_refused(&embed(&vecho, &of_tokens("more", 6)).await);
}

#[tokio::test]
async fn a_damaged_file_costs_the_counts_and_no_request() {
    let (stub, folder) = (Stub::start(), Folder::new());
    std::fs::create_dir_all(folder.text()).expect("it can be created");
    std::fs::write(file(&folder), "not a document").expect("it can be written");
    let vecho = start(&stub, &folder, "25");
    assert_eq!(embed(&vecho, &of_tokens("first", 10)).await.status, 200);
    vecho.logged("spending.json cannot be read").await;
    written(&folder, 10).await;
}

#[tokio::test]
async fn a_second_process_in_the_same_folder_leaves_the_file_alone() {
    let (stub, folder) = (Stub::start(), Folder::new());
    let first = start(&stub, &folder, "25");
    assert_eq!(embed(&first, &of_tokens("first", 10)).await.status, 200);
    written(&folder, 10).await;
    let second = start(&stub, &folder, "25");
    second.logged("the file of the budgets cannot be opened").await;
    assert_eq!(embed(&second, &of_tokens("second", 3)).await.status, 200);
    assert!(second.stop().status.success());
    assert!(first.stop().status.success());
    let third = start(&stub, &folder, "25");
    assert_eq!(spent(&third).await, 10, "without the counts of the second");
}

#[tokio::test]
async fn without_a_folder_the_start_warns_that_a_restart_forgets() {
    let stub = Stub::start();
    let vecho =
        Vecho::start_with(&stub.base_url(), &[("VECHO_BUDGET_TOKENS_PER_DAY", "25"), ("VECHO_DISK_ENABLED", "false")]);
    vecho.logged("a restart forgets what was spent today").await;
    let quiet = Vecho::start_with(&stub.base_url(), &[]);
    quiet.logged("applications set").await;
    assert!(!quiet.log().contains("a restart forgets"), "{}", quiet.log());
}

#[tokio::test]
async fn a_reload_changes_the_limit_and_keeps_the_counts() {
    let stub = Stub::start();
    let folder = crate::harness::tls::Folder::new("budget-reload");
    let write = |limit: &str| folder.write("vecho.toml", limit);
    let path = write("budget.tokens_per_day = 100\n");
    let environment = [("VECHO_RELOAD_POLL_EVERY", "0s")];
    let vecho = Vecho::start_args(&stub.base_url(), &environment, &["--config", &path]);
    assert_eq!(embed(&vecho, &of_tokens("first", 50)).await.status, 200);
    let limit = r#"vecho_budget_limit{budget="budget.tokens_per_day",cache_namespace=""}"#;
    let reload = async |text: &str, expected: f64| {
        write(text);
        vecho.signal("HUP");
        metric_becomes(vecho.admin(), limit, expected).await;
    };
    reload("budget.tokens_per_day = 20\n", 20.0).await;
    assert_eq!(spent(&vecho).await, 50, "more than the limit");
    let message = assert_refused(&embed(&vecho, &of_tokens("second", 2)).await);
    assert!(message.contains("is spent"), "{message}");
    reload("budget.tokens_per_day = 60\n", 60.0).await;
    assert_eq!(embed(&vecho, &of_tokens("second", 10)).await.status, 200);
    assert_refused(&embed(&vecho, &of_tokens("third", 2)).await);
    reload("", 0.0).await;
    assert_eq!(embed(&vecho, &of_tokens("third", 50)).await.status, 200, "there is no budget any more");
}

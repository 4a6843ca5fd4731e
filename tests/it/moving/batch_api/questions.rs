//! The price and the question before a job is sent.

use super::super::command::{at, run_with};
use super::job::{Site, names_in};
use crate::harness::ops::metric;

const NO_DISK: (&str, &str) = ("VECHO_DISK_ENABLED", "false");

#[tokio::test]
async fn without_a_terminal_and_without_yes_nothing_is_sent() {
    let site = Site::new("batch-api-ask");
    let refused = site.warm(&site.file(&["one"]), &[]).said("use --yes to send without a question");
    assert_eq!(refused.said("1 request in 1 batch").status, Some(1));
    assert!(site.stub.log().is_empty());
    assert_eq!(names_in(&site.folder.path("")), ["texts.jsonl"], "nothing is left");
}

#[tokio::test]
async fn the_price_is_half_of_that_of_live_requests_and_is_named_before() {
    let site = Site::new("batch-api-price");
    let file = site.folder.write("texts.txt", "Hello world\n".repeat(2) + &"word ".repeat(4_998));
    let own = at(&site.vecho);
    let upstream = site.stub.base_url();
    let fixed = ["--upstream", &upstream, "warm", "--batch-api", "--model", "text-embedding-3-large", &file];
    let arguments: Vec<&str> = own.iter().map(String::as_str).chain(fixed).collect();
    let refused = run_with(&arguments, &[("OPENAI_API_KEY", "sk-own")], b"");
    refused.said("2 requests in 1 batch, about 5,001 tokens, about 0.000326 USD");
}

#[tokio::test]
async fn a_job_counts_towards_the_budgets_and_is_not_sent_if_they_do_not_cover_it() {
    let prices = ("VECHO_SAVINGS_PRICES", "tiny=1000000");
    let small = Site::with("batch-api-refused", &[("VECHO_BUDGET_MONEY_PER_DAY", "0.4"), prices]);
    let refused = small.warm(&small.file(&["one"]), &["--yes"]).said("nothing was sent").said("budget.money_per_day");
    assert_eq!(refused.status, Some(1));
    assert!(small.stub.log().is_empty());
    assert_eq!(names_in(&small.folder.path("")), ["texts.jsonl"], "nothing is left");
    let budgets = [("VECHO_BUDGET_MONEY_PER_DAY", "100"), ("VECHO_BUDGET_TOKENS_PER_DAY", "100"), prices];
    let site = Site::with("batch-api-counted", &budgets);
    site.warm(&site.file(&["one", "two"]), &["--yes"]).well().said("2 were fetched");
    let spent = async |key: &str| {
        metric(site.vecho.admin(), &format!(r#"vecho_budget_spent{{budget="{key}",cache_namespace=""}}"#)).await
    };
    let (tokens, money) = (spent("budget.tokens_per_day").await, spent("budget.money_per_day").await);
    assert!(tokens > 0.0 && (money - tokens / 2.0).abs() < 1e-9, "half of the price: {tokens} {money}");
}

#[tokio::test]
async fn a_job_that_the_cache_cannot_hold_is_sent_only_on_request() {
    let site = Site::with("batch-api-room", &[NO_DISK, ("VECHO_CACHE_MAX_ENTRIES", "2")]);
    let file = site.file(&["one", "two", "three"]);
    let room = ["--yes", "--dimensions", "4", "--quiet"];
    let warm = |more: &[&str]| {
        let arguments = site.arguments(&file, &[&room, more].concat());
        let environment = [("OPENAI_API_KEY", "sk-own"), ("VECHO_CACHE_MAX_ENTRIES", "2")];
        run_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &environment, b"")
    };
    let refused =
        warm(&[]).said("the cache has room for about 2 of these 3 vectors: 1 vector would be paid for and lost");
    assert_eq!(refused.said("nothing was sent").status, Some(1));
    assert!(site.stub.log().is_empty());
    assert_eq!(names_in(&site.folder.path("")), ["texts.jsonl"], "nothing is left");
    warm(&["--beyond-capacity"]).well().said("1 vector would be paid for and lost");
    assert_eq!(site.stub.service().batches.len(), 1);
}

#[tokio::test]
async fn vectors_that_a_restart_would_lose_are_named_before_the_job() {
    let (kept, lost) = (Site::new("batch-api-lasting"), Site::with("batch-api-volatile", &[NO_DISK]));
    for (site, is_named) in [(lost, true), (kept, false)] {
        let warmed = site.warm(&site.file(&["one"]), &["--yes"]).well();
        assert_eq!(warmed.err.contains("keeps vectors only in memory"), is_named, "{}", warmed.err);
    }
}

#[tokio::test]
async fn on_a_terminal_the_command_asks_first() {
    let site = Site::new("batch-api-terminal");
    let file = site.file(&["one"]);
    let command = site.arguments(&file, &[]).iter().map(|part| format!("'{part}'")).collect::<Vec<_>>().join(" ");
    let command = format!("OPENAI_API_KEY=sk-own '{}' {command}", env!("CARGO_BIN_EXE_vecho"));
    for (answer, batches) in [("n\n", 0), ("\n", 0), ("y\n", 1)] {
        let mut script = std::process::Command::new("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut script = script.spawn().expect("util-linux is installed");
        let mut stdin = script.stdin.take().expect("standard input is piped");
        std::io::Write::write_all(&mut stdin, answer.as_bytes()).expect("it reads");
        let output = script.wait_with_output().expect("it must end");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Send 1 request in 1 batch, about 1 token, at an unknown price"), "{said}");
        assert_eq!((site.stub.service().batches.len(), output.status.success()), (batches, batches == 1), "{said}");
    }
}

#[tokio::test]
async fn standard_input_needs_a_state_file_and_yes() {
    let site = Site::new("batch-api-stdin");
    let arguments = |more: &[&str]| site.arguments("-", more);
    let run = |more: &[&str]| {
        let arguments = arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_with(&arguments, &[("OPENAI_API_KEY", "sk-own")], b"one\ntwo\n")
    };
    assert_eq!(run(&["--yes"]).said("use --state FILE").status, Some(1));
    let state = site.folder.path("state");
    let state = ["--state", state.to_str().expect("the path is text")];
    assert_eq!(run(&state).said("use --yes").status, Some(1));
    run(&[&state[..], &["--yes"]].concat()).well().said("2 were fetched");
}

#[tokio::test]
async fn the_built_in_mock_has_no_batch_api() {
    let refused =
        run_with(&["--upstream", "mock:", "warm", "--batch-api", "--model", "m", "--state", "s", "-"], &[], b"");
    assert_eq!(refused.said("has no Batch API").status, Some(1));
}

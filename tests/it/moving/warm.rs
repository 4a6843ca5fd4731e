//! `vecho warm`: it embeds texts through vecho and caches only valid vectors.

use serde_json::json;

use super::command::{NOWHERE, TINY, ask, embed, is_hit, run_at_with, run_with};
use crate::harness::ops::metric;
use crate::harness::redis::Redis;
use crate::harness::stub::Limits;
use crate::harness::tls::{Folder, Identity};
use crate::harness::{Behaviour, Stub, Vecho};

const FILE: &str = "\"one\"\n{\"text\":\"two\",\"id\":7}\n{\"input\":\"three\"}\n{\"input\":[5,6,7]}\n";

fn ten_texts() -> String {
    let lines: Vec<String> = (0..10).map(|n| format!("\"text {n}\"")).collect();
    lines.join("\n")
}

fn warm(vecho: &Vecho, arguments: &[&str], file: &str) -> super::command::Ended {
    run_at_with(vecho, &[&["warm", "--model", TINY, "-"], arguments].concat(), &[], file.as_bytes())
}

#[tokio::test]
async fn warmed_texts_and_tokens_are_hits() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let warmed = warm(&vecho, &[], FILE).well();
    warmed.said("0 were cached already, 4 were fetched, 0 failed; ");
    assert_eq!(stub.inputs_sent(), 4);
    is_hit(&vecho, &stub, &["one", "two", "three"]).await;
    let tokens = ask(&vecho, &json!({"model": TINY, "input": [5, 6, 7]}), None).await;
    assert_eq!(tokens.cache(), "hit");
    warm(&vecho, &[], FILE).well().said("4 were cached already, 0 were fetched, 0 failed; 0 tokens were billed");
    assert_eq!(stub.inputs_sent(), 4);
}

#[tokio::test]
async fn warm_requests_follow_the_given_options() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_UPSTREAM_MAX_CONCURRENT", "1")]);
    let file = ten_texts();
    let arguments = ["--batch", "4", "--concurrency", "1", "--dimensions", "8", "--namespace", "n"];
    warm(&vecho, &arguments, &file).well().said("10 were fetched");
    let sizes: Vec<usize> = stub.embedding_calls().iter().map(|call| call.inputs().len()).collect();
    assert_eq!(sizes, [4, 4, 2]);
    let body = json!({"model": TINY, "input": "text 3", "dimensions": 8});
    assert_eq!(ask(&vecho, &body, None).await.cache(), "miss", "it is in a namespace");
}

#[tokio::test]
async fn an_invalid_line_is_reported_with_its_number_and_others_continue() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let huge = format!("\"{}\"", "x".repeat(1 << 20));
    let file = format!("\"one\"\nnonsense\n\n\"\"\n{huge}\n{{\"input\":[1,\"a\"]}}\n\"two\"");
    let warmed = warm(&vecho, &[], &file);
    assert_eq!(warmed.status, Some(1));
    let warmed = warmed
        .said("line 2: it is neither a text nor an array of tokens")
        .said("line 4: the text is empty")
        .said("line 5: it is longer than 1 MiB")
        .said("line 6: it is not an array of tokens")
        .said("2 were fetched, 4 failed");
    assert!(!warmed.err.contains("line 3"), "{}", warmed.err);
    is_hit(&vecho, &stub, &["one", "two"]).await;
}

#[tokio::test]
async fn a_refused_text_is_isolated_and_reported() {
    let stub = Stub::start();
    stub.set_limits(Limits { tokens_per_input: 20, ..Limits::default() });
    let vecho = Vecho::start(&stub);
    let long = "word ".repeat(50);
    let file = format!("\"one\"\n\"two\"\n\"{long}\"\n\"three\"\n");
    let warmed = warm(&vecho, &[], &file).said("line 3: ").said("3 were fetched, 1 failed");
    assert_eq!(warmed.status, Some(1));
    is_hit(&vecho, &stub, &["one", "two", "three"]).await;
}

#[tokio::test]
async fn throttled_warm_requests_are_retried_after_the_given_delay() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_RETRY_MAX_ATTEMPTS", "1")]);
    for _ in 0..3 {
        stub.next(Behaviour::RateLimit { retry_after_ms: 20 });
    }
    warm(&vecho, &[], FILE).well().said("4 were fetched, 0 failed");
    is_hit(&vecho, &stub, &["one", "two", "three"]).await;
}

#[tokio::test]
async fn calls_of_the_warm_command_are_bulk() {
    let stub = Stub::start();
    // Fifty calls are admitted at once, and five more in each second.
    let settings = [("VECHO_PACE_REQUESTS_PER_MINUTE", "300"), ("VECHO_BATCH_MAX_INPUTS", "1")];
    let vecho = Vecho::start_with(&stub.base_url(), &settings);
    let texts: Vec<String> = (0..60).map(|number| format!("\"paced {number}\"")).collect();
    warm(&vecho, &["--batch", "1"], &texts.join("\n")).well().said("60 were fetched, 0 failed");
    let waits = async |priority: &str| {
        metric(vecho.admin(), &format!(r#"vecho_pace_wait_seconds_count{{priority="{priority}"}}"#)).await
    };
    assert!(waits("bulk").await >= 1.0, "60 calls exceed what is admitted at once");
    assert!(waits("interactive").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn mocks_count_as_failed_when_warming() {
    let stub = Stub::start();
    let settings =
        [("VECHO_RETRY_MAX_ATTEMPTS", "1"), ("VECHO_FALLBACK_MODE", "mock"), ("VECHO_BREAKER_FAILURES", "1")];
    let vecho = Vecho::start_with(&stub.base_url(), &settings);
    // The failure is marked as permanent, so the test does not have to wait for all retries.
    let headers = vec![("x-should-retry", "false".to_owned())];
    stub.always(Behaviour::Status { code: 503, headers, body: "{}".to_owned() });
    assert_eq!(embed(&vecho, &["one"], "float").await.cache(), "mock");
    let warmed = warm(&vecho, &[], FILE).said("0 were fetched, 4 failed");
    assert_eq!(warmed.status, Some(1));
}

#[tokio::test]
async fn a_refused_key_ends_the_warm_command() {
    let stub = Stub::start();
    stub.accept_keys(["right"]);
    let vecho = Vecho::start(&stub);
    let file = ten_texts();
    let arguments = ["warm", "--model", TINY, "--batch", "1", "--concurrency", "1", "-"];
    let refused = run_at_with(&vecho, &arguments, &[("OPENAI_API_KEY", "wrong")], file.as_bytes());
    assert_eq!(refused.status, Some(1));
    refused.said("Incorrect API key provided").said("0 were fetched, 1 failed");
    assert_eq!(stub.embedding_calls().len(), 1);
    run_at_with(&vecho, &arguments, &[("OPENAI_API_KEY", "right")], file.as_bytes()).well().said("10 were fetched");
    let hit = ask(&vecho, &json!({"model": TINY, "input": "text 3"}), Some("right")).await;
    assert_eq!(hit.cache(), "hit", "an application with that key finds it");
}

#[tokio::test]
async fn warming_fetches_nothing_without_a_running_vecho_or_disk_tier() {
    let stub = Stub::start();
    let upstream = stub.base_url();
    let arguments =
        ["--listen", NOWHERE, "--upstream", &upstream, "--set", "disk.enabled=false", "warm", "--model", TINY];
    let refused = run_with(&[&arguments[..], &["-"]].concat(), &[], FILE.as_bytes());
    assert_eq!(refused.status, Some(1));
    refused.said("no vecho runs at `listen`");
    assert_eq!(stub.calls().len(), 0);
}

#[tokio::test]
async fn warming_fills_the_folder_of_a_stopped_vecho() {
    let stub = Stub::start();
    let (upstream, folder) = (stub.base_url(), Folder::new("warmed"));
    let path = format!("disk.path={}", folder.path("disk").display());
    let place = ["--listen", "127.0.0.1:2", "--admin-listen", NOWHERE, "--upstream", &upstream, "--set", &path];
    // The command calls the ops port of its own process, which requires the token.
    let key = [("OPENAI_API_KEY", "sk-app"), ("VECHO_ADMIN_TOKEN", "t0ken")];
    let warmed = run_with(&[&place[..], &["warm", "--model", TINY, "-"]].concat(), &key, FILE.as_bytes()).well();
    warmed.said("4 were fetched, 0 failed").said("applications that send this OPENAI_API_KEY themselves");
    let file = run_with(&[&place[..], &["export", "-"]].concat(), &[], b"").well().said("exported 4 records").out;
    let vecho = Vecho::start(&stub);
    run_at_with(&vecho, &["import", "-"], &[], &file).well();
    let calls = stub.calls().len();
    for text in ["one", "two", "three"] {
        let answer = ask(&vecho, &json!({"model": TINY, "input": text}), Some("sk-app")).await;
        assert_eq!(answer.cache(), "hit", "{text}");
    }
    assert_eq!(stub.calls().len(), calls);
}

#[tokio::test]
async fn warming_reports_the_scope_even_after_failures() {
    let (stub, folder) = (Stub::start(), Folder::new("warmed-whose"));
    let (upstream, path) = (stub.base_url(), format!("disk.path={}", folder.path("disk").display()));
    let place = ["--listen", "127.0.0.1:2", "--admin-listen", NOWHERE, "--upstream", &upstream, "--set", &path];
    let warm = |environment: &[(&str, &str)], file: &str| {
        run_with(&[&place[..], &["warm", "--model", TINY, "-"]].concat(), environment, file.as_bytes())
    };
    let keyless = "the fetched vectors are in scope credential, for callers without a key";
    let warmed = warm(&[], FILE).well().said(keyless);
    assert!(!warmed.err.contains("send this OPENAI_API_KEY"), "{}", warmed.err);
    let failed = warm(&[], "\"one\"\nnonsense\n").said("1 failed").said("vecho: 1 line failed").said(keyless);
    assert_eq!(failed.status, Some(1));
    warm(&[("OPENAI_API_KEY", "sk-app")], "\"one\"\n\n\"\"\nnonsense")
        .said("vecho: 2 lines failed")
        .said("the fetched vectors are in scope credential, for applications that send this OPENAI_API_KEY themselves");
    let own = [("VECHO_UPSTREAM_API_KEY", "sk-own"), ("VECHO_CACHE_SCOPE", "credential")];
    warm(&own, FILE).well().said("for applications that send the key of upstream.api_key themselves");
    let nothing = warm(&[], "{nonsense").said("1 line failed");
    assert!(!nothing.err.contains("what is kept"), "{}", nothing.err);
    // As announced, callers without a key get the records.
    let file = run_with(&[&place[..], &["export", "-"]].concat(), &[], b"").well().out;
    let vecho = Vecho::start(&stub);
    run_at_with(&vecho, &["import", "-"], &[], &file).well();
    is_hit(&vecho, &stub, &["one", "two", "three"]).await;
}

#[tokio::test]
async fn warming_refuses_a_server_that_is_not_vecho() {
    let stub = Stub::start();
    let listen = stub.addr().to_string();
    let arguments = ["--listen", &listen, "warm", "--model", TINY, "-"];
    let refused = run_with(&arguments, &[], FILE.as_bytes()).said("is not vecho");
    assert_eq!(refused.status, Some(1));
}

#[tokio::test]
async fn progress_without_a_terminal_is_printed_as_lines() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_RETRY_MAX_ATTEMPTS", "1")]);
    stub.next(Behaviour::RateLimit { retry_after_ms: 6_500 });
    warm(&vecho, &[], FILE).well().said(" texts, 0/s").said("4 were fetched, 0 failed");
    stub.next(Behaviour::RateLimit { retry_after_ms: 1 });
    let quiet = warm(&vecho, &["--quiet", "--namespace", "n"], FILE).well();
    assert_eq!(quiet.err, "");
}

#[tokio::test]
async fn a_plain_text_file_is_read_line_by_line_with_a_note() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let warmed = warm(&vecho, &[], "First, a \"text\".\r\n\nthe second\n").well();
    warmed.said("the file is read as plain text: one text a line").said("2 were fetched, 0 failed");
    is_hit(&vecho, &stub, &["First, a \"text\".", "the second"]).await;
    let damaged = warm(&vecho, &[], "{\"text\":\"a\"\n\"b\"\n");
    damaged.said("line 1: it is not JSON").said("1 was fetched, 1 failed");
}

#[tokio::test]
async fn at_most_a_hundred_invalid_lines_are_reported() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let file = format!("\"one\"\n{}", "nonsense\n".repeat(105));
    let warmed = warm(&vecho, &[], &file).said("line 101: ").said("1 was fetched, 105 failed");
    assert_eq!(warmed.err.matches("it is neither a text nor").count(), 100, "{}", warmed.err);
    assert_eq!(warmed.err.matches("there are more lines at fault; they are only counted").count(), 1);
}

#[tokio::test]
async fn lines_not_sent_after_an_abort_count_as_failed() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_RETRY_MAX_ATTEMPTS", "1")]);
    let status = |code| Behaviour::Status { code, headers: vec![], body: "{}".to_owned() };
    stub.next(status(400));
    stub.always(status(401));
    // Both halves of the refused request are unfinished when the failure of one half ends the command.
    let warmed = warm(&vecho, &["--concurrency", "1"], &ten_texts()).said("0 were fetched, 10 failed");
    assert_eq!(warmed.status, Some(1));
}

#[tokio::test]
async fn warming_refuses_a_tls_public_port_before_sending() {
    let (stub, folder, own) = (Stub::start(), Folder::new("warm-tls"), Identity::new("localhost"));
    let cert = format!("tls.cert_file={}", folder.write("cert.pem", &own.cert_pem));
    let key = format!("tls.key_file={}", folder.write("key.pem", &own.key_pem));
    let listen = stub.addr().to_string();
    let arguments = ["--listen", &listen, "--set", &cert, "--set", &key, "warm", "--model", TINY, "-"];
    let refused = run_with(&arguments, &[], FILE.as_bytes()).said("the public port speaks TLS");
    assert_eq!((refused.status, stub.calls().len()), (Some(1), 0));
}

#[tokio::test]
async fn warming_fails_if_the_only_persistent_tier_refuses_the_vectors() {
    let stub = Stub::start();
    let mut redis = Redis::absent().with(&["--maxmemory-policy", "noeviction"]);
    redis.go_on();
    let (upstream, url) = (stub.base_url(), format!("redis.url={}", redis.url()));
    let place = ["--listen", "127.0.0.1:2", "--admin-listen", NOWHERE, "--upstream", &upstream];
    let tiers = ["--set", "disk.enabled=false", "--set", &url, "--set", "redis.timeout=5s"];
    let warm = || run_with(&[&place[..], &tiers, &["warm", "--model", TINY, "-"]].concat(), &[], FILE.as_bytes());
    redis.cli(&["config", "set", "maxmemory", "1"]);
    let warmed = warm().said("4 were fetched, 0 failed").said("could not be kept");
    assert_eq!(warmed.status, Some(1));
    redis.cli(&["config", "set", "maxmemory", "0"]);
    warm().well().said("4 were fetched, 0 failed");
}

#[tokio::test]
async fn documents_are_warmed_in_chunks_that_overlap() {
    let stub = Stub::start();
    let (vecho, folder) = (Vecho::start(&stub), Folder::new("warm-chunks"));
    let first = folder.write("first.txt", "one two three four five\nsix seven");
    let second = folder.write("second.md", "\u{feff}eight");
    let arguments = ["warm", "--model", TINY, "--chunk", "3", "--overlap", "1", &first, &second];
    run_at_with(&vecho, &arguments, &[], b"").well().said("5 were fetched");
    is_hit(&vecho, &stub, &["one two three", " three four five", " five\nsix", "six seven", "eight"]).await;
    let refused = run_at_with(&vecho, &["warm", "--model", TINY, "--chunk", "3", "--overlap", "3", &first], &[], b"");
    assert_eq!(refused.said("--overlap must be smaller than --chunk").status, Some(1));
    let binary = folder.write("binary", b"\xff\xfe");
    let refused = run_at_with(&vecho, &["warm", "--model", TINY, "--chunk", "3", &binary, &first], &[], b"");
    assert_eq!(refused.said("binary: chunk 1: it is not UTF-8").status, Some(1));
}

#[tokio::test]
async fn the_name_of_a_file_or_an_option_makes_its_lines_plain_text() {
    let stub = Stub::start();
    let (vecho, folder) = (Vecho::start(&stub), Folder::new("warm-plain"));
    let named = folder.write("texts.txt", "\"quoted\"\n[1,2]\n");
    run_at_with(&vecho, &["warm", "--model", TINY, &named], &[], b"").well().said("2 were fetched");
    let other = folder.write("other.jsonl", "{\"text\":\"a\"}\n");
    run_at_with(&vecho, &["warm", "--model", TINY, "--text", &other], &[], b"").well().said("1 was fetched");
    is_hit(&vecho, &stub, &["\"quoted\"", "[1,2]", "{\"text\":\"a\"}"]).await;
}

#[tokio::test]
async fn a_faulty_line_of_several_files_is_reported_with_its_file() {
    let stub = Stub::start();
    let (vecho, folder) = (Vecho::start(&stub), Folder::new("warm-several"));
    let (first, second) = (folder.write("first.jsonl", "\"one\"\n7\n"), folder.write("second.jsonl", "\"two\"\n"));
    let warmed = run_at_with(&vecho, &["warm", "--model", TINY, &first, &second], &[], b"");
    let warmed = warmed.said("first.jsonl: line 2: it is neither a text nor").said("2 were fetched, 1 failed");
    assert_eq!(warmed.status, Some(1));
    is_hit(&vecho, &stub, &["one", "two"]).await;
    let absent = run_at_with(&vecho, &["warm", "--model", TINY, &first, "/nowhere/x"], &[], b"");
    assert_eq!(absent.said("/nowhere/x: ").status, Some(1));
}

//! Reloading the configuration: live keys change, invalid files change nothing, and other keys wait for the next start.

use std::time::Duration;

use serde_json::{Value, json};
use vecho::app::{App, Surroundings};
use vecho::config::{ConfigSource, Flag};
use vecho::process::clock::Clock;

use crate::harness::client::{Answer, raw};
use crate::harness::ops::{metric, metric_becomes};
use crate::harness::socket::Socket;
use crate::harness::tls::Folder;
use crate::harness::{Behaviour, Client, Stub, Vecho, eventually};

const QUICK: &str = "retry.max_attempts = 1\nbreaker.failures = 0\n";

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

async fn embed(vecho: &Vecho, text: &str) -> Answer {
    Client::new().post(&format!("{}/embeddings", vecho.base_url()), &ask(text)).await
}

/// A vecho whose configuration file the test can change.
struct Changing {
    folder: Folder,
    vecho: Vecho,
}

impl Changing {
    fn start(name: &str, upstream: &str, text: &str) -> Self {
        Self::start_polling(name, upstream, text, "0s")
    }

    fn start_polling(name: &str, upstream: &str, text: &str, poll_every: &str) -> Self {
        let folder = Folder::new(name);
        let file = folder.write("vecho.toml", format!("{QUICK}{text}"));
        let environment = [("VECHO_RELOAD_POLL_EVERY", poll_every)];
        let vecho = Vecho::start_args(upstream, &environment, &["--config", &file]);
        Self { folder, vecho }
    }

    fn write(&self, text: &str) {
        self.folder.write("vecho.toml", format!("{QUICK}{text}"));
    }

    async fn reloads(&self, result: &str) -> f64 {
        let series = format!(r#"vecho_config_reloads_total{{result="{result}"}}"#);
        metric(self.vecho.admin(), &series).await
    }

    /// Changes the file, triggers a reload and waits for its result.
    async fn change(&self, text: &str, result: &str) {
        let before = self.reloads(result).await;
        self.write(text);
        self.vecho.signal("HUP");
        eventually("a re-read configuration", async || self.reloads(result).await > before).await;
    }

    async fn effective(&self, key: &str) -> Value {
        let config = Client::new().get(&self.vecho.ops_url("/api/config")).await.json();
        config.pointer(&format!("/{}", key.replace('.', "/"))).cloned().unwrap_or(config)
    }
}

#[tokio::test]
async fn live_keys_change_on_a_signal() {
    let stub = Stub::start();
    let changing = Changing::start("reload-live", &stub.base_url(), "fallback.mode = 'mock'\n");
    stub.down().await;
    assert_eq!(embed(&changing.vecho, "x").await.header("x-vecho-cache"), Some("mock"));
    changing.change("fallback.mode = 'error'\nlog.level = 'debug'\n", "ok").await;
    assert_eq!(embed(&changing.vecho, "x").await.status, 502);
    changing.vecho.logged("DEBUG vecho").await;
    assert!(changing.vecho.log().contains("fallback.mode, log.level"), "{}", changing.vecho.log());
    assert!(changing.effective("fallback.mode").await.to_string().contains("error"));
}

#[tokio::test]
async fn a_reply_in_progress_during_a_reload_is_not_cached() {
    let stub = Stub::start();
    let changing = Changing::start("reload-rendered", &stub.base_url(), "cache.extra_fields = ['task']\n");
    let body = json!({"model": "tiny", "input": "x", "task": "t"}).to_string();
    let post = || raw(http::Method::POST, &format!("{}/embeddings", changing.vecho.base_url()), body.clone());
    assert_eq!(Client::new().send(post()).await.expect("an answer").cache(), "miss");
    let mut socket = Socket::connect(changing.vecho.public()).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
    let (first, rest) = body.split_at(10);
    socket.send(format!("{head}\r\ncontent-length: {}\r\n\r\n{first}", body.len())).await;
    metric_becomes(changing.vecho.admin(), "vecho_body_bytes_in_flight", 10.0).await;
    changing.change("cache.extra_fields = []\n", "ok").await;
    socket.send(rest).await;
    let under_way = socket.read_to_end().await;
    assert!(under_way.contains("x-vecho-cache: hit"), "it was read under the old configuration: {under_way}");
    assert_eq!(Client::new().send(post()).await.expect("an answer").cache(), "bypass");
}

#[tokio::test]
async fn a_reload_invalidates_cached_replies() {
    let stub = Stub::start();
    let changing = Changing::start("reload-ends-rendered", &stub.base_url(), "cache.extra_fields = ['task']\n");
    let ask = async || {
        let body = json!({"model": "tiny", "input": "x", "task": "t"});
        Client::new().post(&format!("{}/embeddings", changing.vecho.base_url()), &body).await
    };
    for cache in ["miss", "hit", "hit"] {
        assert_eq!(ask().await.cache(), cache);
    }
    let rendered = metric(changing.vecho.admin(), r#"vecho_cache_answers_total{result="served"}"#).await;
    assert!(rendered > 0.5, "the last one came rendered");
    changing.change("cache.extra_fields = []\n", "ok").await;
    assert_eq!(ask().await.cache(), "bypass");
}

#[tokio::test]
async fn a_lossless_request_does_not_join_a_lossy_fetch() {
    let stub = Stub::start();
    let changing = Changing::start("reload-codec", &stub.base_url(), "cache.codec = 'int8'\n");
    let body = json!({"model": "text-embedding-3-small", "input": "x"});
    let ask = || {
        let request = raw(http::Method::POST, &format!("{}/embeddings", changing.vecho.base_url()), body.to_string());
        tokio::spawn(async move { Client::new().send(request).await.expect("an answer").vectors() })
    };
    stub.next(Behaviour::Gate);
    let lossy = ask();
    stub.held(1).await;
    changing.change("cache.codec = 'lossless'\n", "ok").await;
    let exact = ask();
    metric_becomes(changing.vecho.admin(), "vecho_requests_in_flight", 2.0).await;
    stub.release(1);
    let (lossy, exact) = (lossy.await.expect("it must end"), exact.await.expect("it must end"));
    let truth = [Stub::vector("text-embedding-3-small", None, "x")];
    assert_eq!(exact, truth);
    assert_ne!(lossy, truth, "it was asked for under the codec before");
}

#[tokio::test]
async fn a_shorter_ttl_applies_only_to_later_entries() {
    let stub = Stub::start();
    let changing = Changing::start("reload-ttl", &stub.base_url(), "cache.ttl = '1h'\n");
    embed(&changing.vecho, "before").await;
    changing.change("cache.ttl = '1s'\n", "ok").await;
    embed(&changing.vecho, "after").await;
    let expired = async || embed(&changing.vecho, "after").await.header("x-vecho-cache") == Some("miss");
    eventually("the end of a second", expired).await;
    assert_eq!(embed(&changing.vecho, "before").await.header("x-vecho-cache"), Some("hit"));
}

#[tokio::test]
async fn a_longer_ttl_applies_although_the_process_started_with_a_shorter_one() {
    let stub = Stub::start();
    let short = "cache.ttl = '1s'\ncache.stale_for = '0s'\n";
    let changing = Changing::start("reload-longer-ttl", &stub.base_url(), short);
    changing.change("cache.ttl = '1h'\n", "ok").await;
    embed(&changing.vecho, "long").await;
    changing.change(short, "ok").await;
    embed(&changing.vecho, "short").await;
    let expired = async || embed(&changing.vecho, "short").await.header("x-vecho-cache") == Some("miss");
    eventually("the end of a second", expired).await;
    assert_eq!(embed(&changing.vecho, "long").await.header("x-vecho-cache"), Some("hit"));
}

#[tokio::test]
async fn a_changed_file_is_reloaded_without_a_signal() {
    let stub = Stub::start();
    let changing = Changing::start_polling("reload-poll", &stub.base_url(), "fallback.mode = 'mock'\n", "100ms");
    stub.down().await;
    assert_eq!(embed(&changing.vecho, "x").await.status, 200);
    changing.write("fallback.mode = 'error'\n");
    eventually("the polled change", async || embed(&changing.vecho, "x").await.status == 502).await;
}

#[tokio::test]
async fn a_changed_file_is_read_once() {
    let stub = Stub::start();
    let changing = Changing::start_polling("reload-once", &stub.base_url(), "fallback.mode = 'mock'\n", "20ms");
    let reloads = async || changing.reloads("ok").await + changing.reloads("failed").await;
    let before = reloads().await;
    changing.write("fallback.mode = 'error'\n");
    eventually("the polled change", async || reloads().await > before).await;
    // The duration of twenty polls.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let times = reloads().await - before;
    assert!((1.0..=2.0).contains(&times), "once, or twice where the file was read while it was written: {times}");
}

#[tokio::test]
async fn a_reload_keeps_a_log_level_set_through_the_api() {
    let stub = Stub::start();
    let changing = Changing::start("reload-level", &stub.base_url(), "fallback.mode = 'mock'\n");
    let put = raw(http::Method::PUT, &changing.vecho.ops_url("/api/log-level"), "debug");
    assert_eq!(Client::new().send(put).await.expect("an answer").status, 200);
    changing.change("fallback.mode = 'error'\n", "ok").await;
    embed(&changing.vecho, "x").await;
    eventually("a line of that level after the reload", async || {
        let log = changing.vecho.log();
        log.split_once("configuration reloaded").is_some_and(|(_, after)| after.contains("DEBUG vecho"))
    })
    .await;
}

#[tokio::test]
async fn a_change_during_startup_is_not_missed() {
    let folder = Folder::new("reload-start");
    let file = folder.write("vecho.toml", "fallback.mode = 'mock'\n");
    let pairs = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0"), ("upstream.url", "mock:")];
    let flag = |(key, value): (&str, &str)| Flag { flag: "--set", key: key.to_owned(), value: value.to_owned() };
    let source = ConfigSource::new(Some(file.into()), [], pairs.map(flag).into());
    let config = source.load().expect("the file is good");
    folder.write("vecho.toml", "fallback.mode = 'error'\n");
    let surroundings = Surroundings { source: Some(source), ..Surroundings::detached(Clock::System) };
    let app = App::start(config, surroundings).await.expect("it must start");
    let series = r#"vecho_config_reloads_total{result="ok"}"#;
    metric_becomes(app.admin_addr(), series, 1.0).await;
    let config = Client::new().get(&format!("http://{}/api/config", app.admin_addr())).await.json();
    assert_eq!(config["fallback"]["mode"]["value"], "error");
}

#[tokio::test]
async fn an_invalid_file_keeps_the_old_configuration_and_is_logged() {
    let stub = Stub::start();
    let changing = Changing::start("reload-bad", &stub.base_url(), "fallback.mode = 'error'\n");
    stub.down().await;
    for bad in [
        "fallback.mode = 'maybe'\n",
        "fallback.mod = 'mock'\n",
        "this is not TOML",
        "fallback.mode = 'mock'\nlimits.x = 1\n",
    ] {
        changing.change(bad, "failed").await;
        assert_eq!(embed(&changing.vecho, "x").await.status, 502, "after {bad:?}");
    }
    changing.vecho.logged("reload rejected").await;
    let log = changing.vecho.log();
    assert!(log.contains("ERROR") && log.contains("reload rejected"), "{log}");
    assert!(log.contains("\"maybe\" is none of error, stale, mock"), "the faults are told: {log}");
    assert!(changing.reloads("ok").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_failed_reload_shows_in_metrics_until_one_succeeds() {
    let stub = Stub::start();
    let changing = Changing::start("reload-current", &stub.base_url(), "fallback.mode = 'error'\n");
    let current = async || metric(changing.vecho.admin(), "vecho_config_last_reload_successful").await > 0.5;
    assert!(current().await, "nothing was refused yet");
    changing.change("fallback.mode = 'maybe'\n", "failed").await;
    assert!(!current().await);
    changing.change("", "ok").await;
    assert!(current().await);
}

#[tokio::test]
async fn a_key_that_needs_a_restart_is_logged() {
    let stub = Stub::start();
    let changing = Changing::start("reload-restart", &stub.base_url(), "");
    changing.change("upstream.max_concurrent = 3\nfallback.mode = 'error'\n", "ok").await;
    changing.vecho.logged("these changes take effect at the next start").await;
    let log = changing.vecho.log();
    let line = log.lines().find(|line| line.contains("these changes take effect at the next start"));
    assert!(line.is_some_and(|line| line.contains("WARN") && line.contains("upstream.max_concurrent")), "{log}");
    assert!(changing.effective("upstream.max_concurrent").await.to_string().contains("20"), "the value in force");
}

#[tokio::test]
async fn a_rotated_key_file_is_used_by_the_next_call() {
    let (stub, folder) = (Stub::start(), Folder::new("key-file"));
    let file = folder.write("key", "sk-old\n");
    let environment = [("VECHO_UPSTREAM_API_KEY_FILE", file.as_str()), ("VECHO_RELOAD_POLL_EVERY", "100ms")];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    assert_eq!(embed(&vecho, "a").await.status, 200);
    folder.write("key", "sk-new\n");
    vecho.logged("configuration reloaded").await;
    assert_eq!(embed(&vecho, "b").await.status, 200);
    let sent: Vec<_> =
        stub.embedding_calls().iter().map(|call| call.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("Bearer sk-old".to_owned()), Some("Bearer sk-new".to_owned())]);
    assert_eq!(embed(&vecho, "a").await.header("x-vecho-cache"), Some("hit"), "the store does not hang on the key");
    assert!(!vecho.log().contains("sk-"), "{}", vecho.log());
}

#[tokio::test]
async fn a_new_price_applies_to_later_tokens_and_lowers_no_counter() {
    let stub = Stub::start();
    let priced = |price: &str| format!("savings.prices = ['tiny={price}']\n");
    let changing = Changing::start("reload-prices", &stub.base_url(), &priced("1000000"));
    let series = |name: &str| format!(r#"vecho_model_{name}_total{{cache_namespace="",kind="billed",model="tiny"}}"#);
    let cost = async || metric(changing.vecho.admin(), &series("cost")).await;
    let tokens = async || metric(changing.vecho.admin(), &series("tokens")).await;
    embed(&changing.vecho, "one two three").await;
    let (first_tokens, first_cost) = (tokens().await, cost().await);
    assert!(first_tokens > 0.0 && (first_cost - first_tokens).abs() < 1e-9, "{first_tokens} {first_cost}");
    changing.change(&priced("0"), "ok").await;
    embed(&changing.vecho, "four five").await;
    assert!(tokens().await > first_tokens && (cost().await - first_cost).abs() < 1e-9, "free from then on");
    changing.change(&priced("2000000"), "ok").await;
    let before = tokens().await;
    embed(&changing.vecho, "six").await;
    let expected = first_cost + 2.0 * (tokens().await - before);
    assert!((cost().await - expected).abs() < 1e-9, "{expected}");
}

//! The routes behind the commands.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::command::{TINY, bits};
use crate::harness::client::{Answer, raw};
use crate::harness::front::tiny;
use crate::harness::{Inside, Stub, Vecho, socket};

const EXPORT: &str = "/api/performance/cache/export";
const IMPORT: &str = "/api/performance/cache/import";

async fn export(vecho: &Inside) -> Bytes {
    let answer = vecho.client.get(&format!("http://{}{EXPORT}", vecho.admin())).await;
    assert_eq!(answer.status, 200);
    answer.body
}

async fn import(vecho: &Inside, file: impl Into<Bytes>) -> Answer {
    let request = raw(Method::POST, &format!("http://{}{IMPORT}", vecho.admin()), file);
    vecho.client.send(request).await.expect("the answer must arrive")
}

fn texts_of(texts: &[&str]) -> Value {
    json!({"model": TINY, "input": texts})
}

/// Returns the figures in an import's answer: imported, known, expired, damaged, whole.
fn said(answer: &Answer) -> (u64, u64, u64, u64, bool) {
    let body = answer.json();
    let count = |name: &str| body[name].as_u64().unwrap_or_else(|| panic!("no {name}: {body}"));
    let whole = body["whole"].as_bool().expect("whole is a truth value");
    (count("imported"), count("known"), count("expired"), count("damaged"), whole)
}

#[tokio::test]
async fn flipped_bits_in_an_import_never_give_a_wrong_vector() {
    const TEXTS: [&str; 4] = ["one", "two", "three", "four"];
    let stub = Stub::start();
    let (from, to) = (
        Inside::start(&stub.base_url(), &[]).await,
        Inside::start(&stub.base_url(), &[("fallback.mode", "error")]).await,
    );
    from.embed(texts_of(&TEXTS)).await;
    let file = export(&from).await;
    for flip in 0..120 {
        let mut damaged = file.to_vec();
        let place = flip * 7_919 % (damaged.len() * 8);
        damaged[place / 8] ^= 1 << (place % 8);
        let answer = import(&to, damaged).await;
        if place / 8 < 14 {
            assert_eq!(answer.status, 400, "the first line");
            continue;
        }
        let (imported, _, _, damaged, whole) = said(&answer);
        assert!(!whole && damaged <= 1 && imported >= 3, "bit {place}: {:?}", answer.json());
        let answer = to.embed(texts_of(&TEXTS)).await;
        assert_eq!(bits(&answer.vectors()), bits(&tiny(&TEXTS)), "bit {place}");
        let purge = raw(Method::DELETE, &format!("http://{}/api/performance/cache", to.admin()), "");
        assert_eq!(to.client.send(purge).await.expect("it answers").status, 200);
    }
}

#[tokio::test]
async fn imported_records_keep_their_times_and_expired_ones_are_skipped() {
    let stub = Stub::start();
    let settings = [("cache.ttl", "1h"), ("cache.stale_for", "1h"), ("fallback.mode", "stale")];
    let from = Inside::start(&stub.base_url(), &settings).await;
    from.embed(texts_of(&["early"])).await;
    from.clock.advance_ms(30 * 60_000);
    from.embed(texts_of(&["late"])).await;
    let file = export(&from).await;

    let fresh = Inside::start(&stub.base_url(), &settings).await;
    fresh.clock.advance_ms(45 * 60_000);
    assert_eq!(said(&import(&fresh, file.clone()).await), (2, 0, 0, 0, true));
    assert_eq!(fresh.embed(texts_of(&["early"])).await.cache(), "hit");
    fresh.clock.advance_ms(20 * 60_000);
    assert_eq!(fresh.embed(texts_of(&["late"])).await.cache(), "hit");
    assert_eq!(fresh.embed(texts_of(&["early"])).await.cache(), "miss", "its hour was over where it was made");

    let later = Inside::start(&stub.base_url(), &settings).await;
    later.clock.advance_ms(125 * 60_000);
    assert_eq!(said(&import(&later, file).await), (1, 0, 1, 0, true));
    assert_eq!(later.embed(texts_of(&["early"])).await.cache(), "miss");
}

#[tokio::test]
async fn only_records_newer_than_stored_ones_are_imported() {
    let stub = Stub::start();
    let (old, new) = (Inside::start(&stub.base_url(), &[]).await, Inside::start(&stub.base_url(), &[]).await);
    new.clock.advance_ms(60_000);
    old.embed(texts_of(&["a"])).await;
    new.embed(texts_of(&["a"])).await;
    let (older, newer) = (export(&old).await, export(&new).await);
    assert_eq!(said(&import(&new, older).await), (0, 1, 0, 0, true));
    assert_eq!(said(&import(&old, newer.clone()).await), (1, 0, 0, 0, true));
    assert_eq!(said(&import(&old, newer).await), (0, 1, 0, 0, true));
}

#[tokio::test]
async fn imported_records_of_an_older_model_are_not_fresh() {
    let stub = Stub::start();
    let (from, to) = (Inside::start(&stub.base_url(), &[]).await, Inside::start(&stub.base_url(), &[]).await);
    from.embed(texts_of(&["a"])).await;
    stub.always(crate::harness::Behaviour::OtherModel("tiny-v2".to_owned()));
    to.embed(texts_of(&["b"])).await;
    assert_eq!(said(&import(&to, export(&from).await).await).0, 1);
    let answer = to.embed(texts_of(&["a", "b"])).await;
    assert_eq!((answer.json()["model"].as_str(), answer.cache()), (Some("tiny-v2"), "partial"));
}

#[tokio::test]
async fn an_import_larger_than_memory_keeps_memory_bounded() {
    let stub = Stub::start();
    let from = Inside::start(&stub.base_url(), &[]).await;
    let texts: Vec<String> = (0..2_000).map(|n| format!("text {n}")).collect();
    from.embed(json!({"model": TINY, "input": texts})).await;
    let to = Inside::start(&stub.base_url(), &[("cache.max_entries", "100")]).await;
    let (imported, ..) = said(&import(&to, export(&from).await).await);
    assert_eq!(imported, 2_000);
    let stats = to.client.get(&format!("http://{}/api/performance/cache/stats", to.admin())).await.json();
    assert!(stats["cache_size"].as_u64().is_some_and(|size| (1..=100).contains(&size)), "{stats}");
}

#[tokio::test]
async fn export_and_import_require_full_access() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_ADMIN_TOKEN", "t0ken")]);
    for (method, path) in [("GET", EXPORT), ("HEAD", EXPORT), ("POST", IMPORT)] {
        let ask = |headers: &str| {
            let request =
                format!("{method} {path} HTTP/1.1\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n");
            socket::exchange(vecho.admin(), request)
        };
        for headers in [
            "host: evil.example\r\n",
            "host: localhost\r\norigin: https://evil.example\r\n",
            "host: evil.example\r\nauthorization: Bearer t0kem\r\n",
            "host: localhost\r\n",
        ] {
            let answer = ask(headers).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{method} {headers}: {answer}");
        }
        for headers in [
            "x-vecho-admin-token: t0ken\r\nhost: localhost\r\n",
            "host: evil.example\r\nauthorization: Bearer t0ken\r\n",
        ] {
            let answer = ask(headers).await;
            let expected = if method == "POST" { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " };
            assert!(answer.starts_with(expected), "{method} {headers}: {answer}");
        }
    }
}

#[tokio::test]
async fn an_abandoned_export_ends() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let texts: Vec<String> = (0..5_000).map(|n| format!("text {n}")).collect();
    vecho.embed(json!({"model": "text-embedding-3-small", "dimensions": 256, "input": texts})).await;
    let request = Request::get(format!("http://{}{EXPORT}", vecho.admin())).body(Full::default()).expect("it is legal");
    let answer = vecho.client.open(request).await.expect("it answers");
    drop(answer);
    // If a thread were blocked, the next exports would time out.
    let whole = tokio::time::timeout(Duration::from_secs(20), export(&vecho)).await.expect("it must come");
    assert!(whole.len() > 5_000 * 512);
}

#[tokio::test]
async fn an_import_during_shutdown_does_not_report_success() {
    let stub = Stub::start();
    let from = Inside::start(&stub.base_url(), &[]).await;
    from.embed(texts_of(&["one", "two"])).await;
    let file = export(&from).await;
    let vecho = Vecho::start(&stub);
    let mut socket = socket::Socket::connect(vecho.admin()).await;
    let head = format!("POST {IMPORT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", file.len());
    socket.send(head.as_bytes()).await;
    socket.send(&file[..100]).await;
    vecho.signal("TERM");
    vecho.logged("stopping").await;
    socket.offer(&file[100..]).await;
    let answer = socket.read_to_end().await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(vecho.ended().status.success());
}

//! An event that a caller or an upstream can repeat at will causes one log line and a counter.

use std::collections::BTreeMap;

use base64_simd::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::harness::client::post;
use crate::harness::ops::metric_becomes;
use crate::harness::socket::{Socket, exchange};
use crate::harness::tls::{Folder, Identity};
use crate::harness::{Behaviour, Client, Stub, Vecho};

async fn embed(vecho: &Vecho, text: &str) {
    let body = json!({"model": "tiny", "input": text});
    Client::new().post(&format!("{}/embeddings", vecho.base_url()), &body).await;
}

fn warnings<'a>(log: &'a str, part: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains("WARN") && line.contains(part)).collect()
}

#[tokio::test]
async fn repeated_unreadable_answers_are_one_log_line_and_a_count() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    stub.always(Behaviour::AllZero);
    for number in 0..40 {
        embed(&vecho, &number.to_string()).await;
    }
    let log = vecho.stop().log;
    let lines = warnings(&log, "the upstream's answer is invalid");
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("(and 39 more in the last minute)"), "{}", lines[1]);
}

#[tokio::test]
async fn repeated_model_changes_are_one_log_line_and_a_count() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    for number in 0..20 {
        stub.always(Behaviour::ModelName(format!("name-{}", number % 2)));
        embed(&vecho, &number.to_string()).await;
    }
    let log = vecho.stop().log;
    let lines = warnings(&log, "the upstream's model has changed");
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains(" more in the last minute)"), "{}", lines[1]);
}

#[tokio::test]
async fn rotating_bearer_tokens_cause_one_warning_and_are_never_logged() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let (client, url) = (Client::new(), format!("{}/embeddings", vecho.base_url()));
    let send = async |subject: &str, hour: u32| {
        let claims = json!({"iss": "https://issuer", "sub": subject, "aud": "a", "exp": hour}).to_string();
        let token = format!(
            "{}.{}.signatureThatIsSecret{hour}",
            URL_SAFE_NO_PAD.encode_to_string(r#"{"alg":"RS256"}"#),
            URL_SAFE_NO_PAD.encode_to_string(claims)
        );
        let mut request = post(&url, &json!({"model": "tiny", "input": "the same"}));
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("legal"));
        client.send(request).await.expect("an answer")
    };
    for other in 0..5 {
        send(&format!("caller {other}"), 1).await;
    }
    for hour in [1, 1, 2, 2, 3, 4, 5] {
        assert_eq!(send("rotating", hour).await.status, 200);
    }
    let metrics = client.get(&vecho.ops_url("/metrics")).await;
    assert!(str::from_utf8(&metrics.body).expect("text").contains("vecho_rotating_credentials_total 1\n"));
    let log = vecho.stop().log;
    assert_eq!(warnings(&log, "bearer tokens with the same claims, or of the same kind, rotate").len(), 1, "{log}");
    assert!(!log.contains("signatureThatIsSecret") && !log.contains("rotating\""), "{log}");
}

/// Returns how often the most frequent warning or error occurs in a log. Digits are ignored in the comparison.
fn most_repeated(log: &str) -> usize {
    let mut counts = BTreeMap::<String, usize>::new();
    for line in log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")) {
        *counts.entry(line.chars().filter(|letter| !letter.is_ascii_digit()).collect()).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[tokio::test]
async fn bad_heads_failed_handshakes_and_foreign_origins_do_not_flood_the_log() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("floods"), Identity::new("localhost"));
    let files = [folder.write("cert.pem", &identity.cert_pem), folder.write("key.pem", &identity.key_pem)];
    let environment = [("VECHO_TLS_CERT_FILE", files[0].as_str()), ("VECHO_TLS_KEY_FILE", files[1].as_str())];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let foreign =
        "GET /api/config HTTP/1.1\r\nhost: localhost\r\norigin: https://page.example\r\nconnection: close\r\n\r\n";
    for _ in 0..150 {
        let mut socket = Socket::connect(vecho.public()).await;
        socket.offer("this is no handshake\r\n\r\n").await;
        socket.read_to_end().await;
        assert!(exchange(vecho.admin(), "no head\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert!(exchange(vecho.admin(), "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert!(exchange(vecho.admin(), foreign).await.starts_with("HTTP/1.1 403"));
    }
    metric_becomes(vecho.admin(), r#"vecho_rejected_total{reason="header"}"#, 450.0).await;
    metric_becomes(vecho.admin(), r#"vecho_rejected_total{reason="forbidden"}"#, 150.0).await;
    let log = vecho.stop().log;
    assert!(most_repeated(&log) <= 2 && log.lines().count() < 60, "{log}");
}

#[tokio::test]
async fn ignored_dimensions_of_many_models_are_two_log_lines() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let item = json!({"index": 0, "embedding": [0.5, 0.5, 0.5]});
    let body = json!({"object": "list", "data": [item], "model": "m"}).to_string();
    let headers = vec![("content-type", "application/json".to_owned())];
    stub.always(Behaviour::Status { code: 200, headers, body });
    for number in 0..40 {
        let ask = json!({"model": format!("m-{number}"), "input": "a", "dimensions": 2});
        let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &ask).await;
        assert_eq!((answer.status, answer.vectors()[0].len()), (200, 3));
    }
    let log = vecho.stop().log;
    let lines = warnings(&log, "the upstream ignores `dimensions`");
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("(and 39 more in the last minute)"), "{}", lines[1]);
}

#[tokio::test]
async fn a_long_name_of_a_model_is_in_no_header_series_or_log_line() {
    for length in [4 << 10, 1 << 20] {
        let stub = Stub::start();
        let vecho = Vecho::start(&stub);
        // The stub also names the model in a header, and no client accepts a header of a megabyte.
        // A request with a longer name passes through.
        let (theirs, asked) = ("t".repeat(length.min(200_000)), "a".repeat(length.min(4 << 10)));
        let embed = async |model: &str, text: &str| {
            let body = json!({"model": model, "input": text, "dimensions": 2});
            Client::new().post(&format!("{}/embeddings", vecho.base_url()), &body).await
        };
        stub.always(Behaviour::ModelName(theirs.clone()));
        embed("tiny", "a").await;
        stub.always(Behaviour::ModelName(theirs.replace('t', "u")));
        let answers = [embed("tiny", "b").await, embed("tiny", "b").await, embed(&asked, "c").await];
        assert!(answers.iter().all(|answer| answer.status == 200));
        stub.down().await;
        let mut mocks = Vec::new();
        for number in 0..8 {
            mocks.push(embed(&asked, &number.to_string()).await);
        }
        assert!(mocks.iter().any(|mock| mock.status == 200), "the upstream counts as unavailable");
        for answer in answers.iter().chain(&mocks) {
            assert!(answer.headers.values().all(|value| value.len() <= 512), "{length}: {:?}", answer.headers);
        }
        for page in ["/metrics", "/api/performance/stats", "/api/performance/health", "/api/dashboard"] {
            let page = Client::new().get(&vecho.ops_url(page)).await.body;
            let page = str::from_utf8(&page).expect("pages are text");
            assert!(!["t", "u", "a"].iter().any(|letter| page.contains(&letter.repeat(300))), "{length}: {page}");
        }
        let log = vecho.stop().log;
        let longest = log.lines().map(str::len).max().unwrap_or(0);
        assert!(longest < 1_500, "a line of {longest} bytes");
    }
}

//! Commands and processes in the environment of an application whose `OPENAI_API_KEY` is a token.

use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::issued::signed;
use crate::harness::client::post;
use crate::harness::tls::Folder;
use crate::harness::{Client, Stub, Vecho};

/// Returns the `number`th token of a principal that is valid now.
fn valid(principal: &str, number: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs();
    let claims = json!({"iss": "i", "sub": principal, "aud": "a", "jti": number, "exp": now + 3_600 + number});
    signed(&claims, "s3cr3t")
}

async fn embed(vecho: &Vecho, token: &str, text: &str) -> crate::harness::client::Answer {
    let mut request = post(&format!("{}/embeddings", vecho.base_url()), &json!({"model": "tiny", "input": text}));
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    Client::new().send(request).await.expect("an answer")
}

/// Runs a command and returns its output.
fn run(environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut command = Vecho::command(environment);
    let output = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it must start");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("output is text");
    assert!(!text.contains("s3cr3t"), "a secret is printed: {text}");
    text
}

#[tokio::test]
async fn the_token_of_an_application_in_the_environment_is_left_to_it() {
    let (stub, folder) = (Stub::start(), Folder::new("tokens-warm"));
    let [first, second] = [valid("me", 1), valid("me", 2)];
    let environment = [("VECHO_AUTH_IDENTITY", "token"), ("OPENAI_API_KEY", first.as_str())];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let texts = folder.write("texts.jsonl", "\"a\"\n\"b\"\n");
    let (public, admin) = (vecho.public().to_string(), vecho.admin().to_string());
    let base = stub.base_url();
    let ports = [
        ("VECHO_LISTEN", public.as_str()),
        ("VECHO_ADMIN_LISTEN", admin.as_str()),
        ("VECHO_UPSTREAM_URL", base.as_str()),
    ];
    let warmed = run(&[&ports[..], &environment].concat(), &["warm", &texts, "--model", "tiny"]);
    assert_eq!(stub.inputs_sent(), 2, "{warmed}");
    assert_eq!(embed(&vecho, &second, "proof").await.cache(), "miss");
    for text in ["a", "b"] {
        assert_eq!(embed(&vecho, &second, text).await.cache(), "hit", "{warmed}");
    }
    let senders: Vec<_> = stub.calls().iter().map(|call| call.header("authorization").map(str::to_owned)).collect();
    assert_eq!(senders.last(), Some(&Some(format!("Bearer {second}"))), "each caller pays by its own token");
    let log = vecho.stop().log;
    for token in [&first, &second] {
        let signature = token.rsplit('.').next().expect("a token has parts");
        assert!(!log.contains(signature) && !warmed.contains(signature), "{log}");
    }
}

#[tokio::test]
async fn an_imported_batch_job_belongs_to_the_owner_of_the_token() {
    let (stub, folder) = (Stub::start(), Folder::new("tokens-batch"));
    let [first, second] = [valid("me", 1), valid("me", 2)];
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_AUTH_IDENTITY", "token")]);
    let request = json!({"custom_id": "1", "method": "POST", "url": "/v1/embeddings",
                         "body": {"model": "tiny", "input": "a", "encoding_format": "float"}});
    let item = json!({"object": "embedding", "index": 0, "embedding": Stub::vector("tiny", None, "a")});
    let body =
        json!({"object": "list", "data": [item], "model": "tiny", "usage": {"prompt_tokens": 1, "total_tokens": 1}});
    let answer = json!({"custom_id": "1", "response": {"status_code": 200, "body": body}, "error": null});
    let files =
        [folder.write("requests.jsonl", request.to_string()), folder.write("answers.jsonl", answer.to_string())];
    let (public, admin, base) = (vecho.public().to_string(), vecho.admin().to_string(), stub.base_url());
    // The command does not know the setting of the running vecho, and asks it.
    let environment = [
        ("VECHO_LISTEN", public.as_str()),
        ("VECHO_ADMIN_LISTEN", admin.as_str()),
        ("VECHO_UPSTREAM_URL", &base),
        ("OPENAI_API_KEY", &first),
    ];
    let imported = run(&environment, &["import-batch", &files[0], &files[1]]);
    assert!(imported.contains("imported 1 record"), "{imported}");
    embed(&vecho, &second, "proof").await;
    assert_eq!(embed(&vecho, &second, "a").await.cache(), "hit", "{imported}");
    assert_eq!(embed(&vecho, &valid("other", 1), "a").await.cache(), "miss");
}

#[tokio::test]
async fn the_doctor_names_the_setting_for_tokens_that_rotate() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    for number in 0..3 {
        embed(&vecho, &valid("me", number), "a").await;
    }
    let (public, admin, base) = (vecho.public().to_string(), vecho.admin().to_string(), stub.base_url());
    let environment =
        [("VECHO_LISTEN", public.as_str()), ("VECHO_ADMIN_LISTEN", admin.as_str()), ("VECHO_UPSTREAM_URL", &base)];
    let report: Value = serde_json::from_str(&run(&environment, &["doctor", "--json"])).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    let tokens = checks.iter().find(|check| check["check"] == "tokens").expect("a check of tokens");
    assert_eq!(tokens["verdict"], "warning");
    assert!(tokens["remedy"].as_str().expect("a remedy").contains("auth.identity"), "{tokens}");
}

#[tokio::test]
async fn a_token_as_the_key_of_vecho_is_warned_of() {
    let token = valid("me", 1);
    let text = run(&[("OPENAI_API_KEY", &token), ("VECHO_DISK_ENABLED", "false")], &["check"]);
    assert!(text.contains("is a token that expires") && text.contains("auth.identity"), "{text}");
    let text = run(&[("OPENAI_API_KEY", "sk-s3cret"), ("VECHO_DISK_ENABLED", "false")], &["check"]);
    assert!(!text.contains("is a token that expires"), "{text}");
}

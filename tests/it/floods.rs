//! What a caller or an upstream can repeat at will is one line in the log, and a count.

use base64_simd::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::harness::client::post;
use crate::harness::{Behaviour, Client, Stub, Vecho};

async fn embed(vecho: &Vecho, text: &str) {
    let body = json!({"model": "tiny", "input": text});
    Client::new().post(&format!("{}/embeddings", vecho.base_url()), &body).await;
}

fn warnings<'a>(log: &'a str, part: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains("WARN") && line.contains(part)).collect()
}

#[tokio::test]
async fn answers_that_cannot_be_read_are_one_line_and_a_count() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    stub.always(Behaviour::AllZero);
    for number in 0..40 {
        embed(&vecho, &number.to_string()).await;
    }
    let log = vecho.stop().log;
    let lines = warnings(&log, "an answer was passed on and not stored");
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("(and 39 more in the last minute)"), "{}", lines[1]);
}

#[tokio::test]
async fn a_model_whose_name_changes_with_each_call_is_one_line_and_a_count() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    for number in 0..20 {
        stub.always(Behaviour::ModelName(format!("name-{}", number % 2)));
        embed(&vecho, &number.to_string()).await;
    }
    let log = vecho.stop().log;
    let lines = warnings(&log, "another model answers than before");
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains(" more in the last minute)"), "{}", lines[1]);
}

#[tokio::test]
async fn bearer_tokens_that_rotate_are_warned_of_once_and_never_logged() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let (client, url) = (Client::new(), format!("{}/embeddings", vecho.base_url()));
    let send = async |subject: &str, hour: u32| {
        let claims = json!({"iss": "https://issuer", "sub": subject, "aud": "a", "exp": hour}).to_string();
        let token = format!("e30.{}.signatureThatIsSecret{hour}", URL_SAFE_NO_PAD.encode_to_string(claims));
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

//! Interim answers, and bytes that follow an answer.

use serde_json::json;

use crate::harness::Inside;
use crate::harness::scripted::{Act, Scripted, ok, one_vector};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Disables retries and the fallback.
const PLAIN: [(&str, &str); 2] = [("retry.max_attempts", "1"), ("fallback.mode", "error")];

#[tokio::test]
async fn a_few_interim_responses_are_skipped() {
    let server = Scripted::start(|arrival| {
        let answer = if arrival.head.contains("/embeddings") { one_vector(0.25) } else { ok("{}") };
        Act::Say(format!("{HINTS}{CONTINUE}{}{answer}", HINTS.repeat(6)))
    })
    .await;
    let vecho = Inside::start(&server.base_url(), &PLAIN).await;
    let models = format!("http://{}/v1/models", vecho.public());
    assert_eq!(vecho.client.get(&models).await.status, 200);
    let embedded = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
    assert_eq!((embedded.status, embedded.vectors()), (200, vec![vec![0.25, 0.5]]));
}

#[tokio::test]
async fn too_many_interim_responses_are_a_502() {
    for end in [one_vector(0.25), String::new()] {
        let flood = format!("{}{end}", CONTINUE.repeat(5_000));
        let server = Scripted::start(move |_| Act::Say(flood.clone())).await;
        let vecho = Inside::start(&server.base_url(), &PLAIN).await;
        let models = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
        let embedded = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
        for answer in [models, embedded] {
            assert_eq!((answer.status, answer.error().1), (502, json!("upstream_unavailable")));
            assert!(answer.json()["error"]["message"].to_string().contains("interim answers"), "{:?}", answer.body);
        }
    }
}

#[tokio::test]
async fn an_extra_response_on_a_connection_reaches_no_other_request() {
    let forged = || one_vector(0.75);
    let server = Scripted::start(move |arrival| {
        let is_embeddings = arrival.head.contains("/embeddings");
        Act::Say(if is_embeddings { one_vector(0.25) } else { format!("{}{}{}", ok("{}"), forged(), forged()) })
    })
    .await;
    let vecho = Inside::start(&server.base_url(), &PLAIN).await;
    let models = format!("http://{}/v1/models", vecho.public());
    for round in 0..10 {
        assert_eq!(vecho.client.get(&models).await.json(), json!({}), "round {round}");
        let embedded = vecho.embed(json!({"model": "tiny", "input": format!("{round}")})).await;
        assert_eq!((embedded.status, embedded.vectors()), (200, vec![vec![0.25, 0.5]]), "round {round}");
    }
    let passed: Vec<usize> = connections_of(&server, false);
    assert!(connections_of(&server, true).iter().all(|connection| !passed.contains(connection)));
}

fn connections_of(server: &Scripted, embeddings: bool) -> Vec<usize> {
    let is_wanted = |head: &str| head.contains("/embeddings") == embeddings;
    server.arrivals().iter().filter(|arrival| is_wanted(&arrival.head)).map(|arrival| arrival.connection).collect()
}

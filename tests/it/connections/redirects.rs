//! Redirects of the upstream: embeddings calls follow one; requests that pass through get a rewritten `location`.

use http::Method;
use serde_json::json;

use crate::harness::Inside;
use crate::harness::client::raw;
use crate::harness::scripted::{Act, Arrival, Scripted, answer, ok, one_vector};

const CREDENTIALS: [(&str, &str); 6] = [
    ("authorization", "Bearer sk-secret"),
    ("api-key", "secret"),
    ("x-api-key", "secret"),
    ("x-goog-api-key", "secret"),
    ("ocp-apim-subscription-key", "secret"),
    ("cookie", "secret=1"),
];

fn moved(status: &str, location: &str) -> Act {
    Act::Say(answer(status, &format!("location: {location}\r\n"), "{}"))
}

fn path(arrival: &Arrival) -> &str {
    arrival.head.split(' ').nth(1).expect("a request line")
}

#[tokio::test]
async fn an_embeddings_call_follows_a_redirect_with_its_method_body_and_credentials() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = Scripted::start(move |arrival| match path(arrival) {
            "/v1/embeddings" => moved(status, "/v2/embeddings?x=1"),
            _ => Act::Say(one_vector(0.25)),
        })
        .await;
        let vecho = Inside::start(&server.base_url(), &[]).await;
        let miss = vecho.embed_with(&CREDENTIALS, json!({"model": "tiny", "input": "a"})).await;
        assert_eq!((miss.status, miss.cache(), miss.vectors()), (200, "miss", vec![vec![0.25, 0.5]]), "{status}");
        let hit = vecho.embed_with(&CREDENTIALS, json!({"model": "tiny", "input": "a"})).await;
        assert_eq!((hit.status, hit.cache()), (200, "hit"), "{status}");
        let [first, second] = &server.arrivals()[..] else { panic!("two calls: {:?}", server.arrivals()) };
        assert!(second.head.starts_with("POST /v2/embeddings?x=1 "), "{second:?}");
        assert_eq!(first.body, second.body);
        for (name, value) in CREDENTIALS {
            assert_eq!(second.header(name), Some(value));
        }
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_port() {
    let inner = Scripted::start(|_| Act::Say(one_vector(0.25))).await;
    let location = format!("{}/embeddings", inner.base_url());
    let outer = Scripted::start(move |_| moved("307 Temporary Redirect", &location)).await;
    for held in [&[][..], &[("upstream.api_key", "sk-held")][..]] {
        let vecho = Inside::start(&outer.base_url(), held).await;
        let headers = [&CREDENTIALS[..], &[("x-custom", "1")]].concat();
        let miss = vecho.embed_with(&headers, json!({"model": "tiny", "input": "a"})).await;
        assert_eq!((miss.status, miss.vectors()), (200, vec![vec![0.25, 0.5]]));
        let arrivals = inner.arrivals();
        let last = arrivals.last().expect("the call was followed");
        assert!(!last.head.contains("secret") && !last.head.contains("sk-held"), "{}", last.head);
        assert_eq!((last.header("x-custom"), last.header("host")), (Some("1"), Some(&*inner.addr().to_string())));
    }
}

#[tokio::test]
async fn only_one_redirect_is_followed() {
    let server = Scripted::start(|_| moved("307 Temporary Redirect", "/v1/embeddings")).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    let answer = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
    assert_eq!((answer.status, server.arrivals().len()), (307, 2));
}

#[tokio::test]
async fn the_location_of_a_redirect_that_is_not_followed_is_mapped_for_the_caller() {
    let server = Scripted::start(|arrival| {
        let host = arrival.header("host").expect("a host");
        moved("302 Found", &format!("http://{host}/api/v1/embeddings/2"))
    });
    let server = server.await;
    let vecho = Inside::start(&format!("{}/api/v1", server.root_url()), &[]).await;
    let answer = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("/v1/embeddings/2")));
}

#[tokio::test]
async fn redirects_that_change_the_method_are_passed_on() {
    for status in ["301 Moved Permanently", "302 Found", "303 See Other"] {
        let server = Scripted::start(move |_| moved(status, "/v2/embeddings")).await;
        let vecho = Inside::start(&server.base_url(), &[]).await;
        let answer = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
        assert_eq!((answer.status.to_string().as_str(), server.arrivals().len()), (&status[..3], 1));
    }
}

#[tokio::test]
async fn a_location_at_the_upstream_is_mapped_for_the_caller() {
    let server = Scripted::start(|arrival| {
        let host = arrival.header("host").expect("a host");
        match path(arrival) {
            "/api/v1/models" => moved("307 Temporary Redirect", &format!("http://{host}/api/v1/models/?x=1")),
            "/api/v1/files" => moved("201 Created", &format!("http://{host}/api/v1/files/7")),
            "/api/v1/login" => moved("302 Found", "https://elsewhere.example/login"),
            _ => Act::Say(ok("{}")),
        }
    })
    .await;
    let vecho = Inside::start(&format!("{}/api/v1", server.root_url()), &[]).await;
    for (method, path, location) in [
        (Method::GET, "/v1/models", "/v1/models/?x=1"),
        (Method::GET, "/models", "/models/?x=1"),
        (Method::POST, "/v1/files", "/v1/files/7"),
        (Method::GET, "/v1/login", "https://elsewhere.example/login"),
    ] {
        let answer = vecho.client.send(raw(method, &format!("http://{}{path}", vecho.public()), "")).await;
        assert_eq!(answer.expect("an answer").header("location"), Some(location), "{path}");
    }
    let followed = vecho.client.get(&format!("http://{}/v1/models/?x=1", vecho.public())).await;
    assert_eq!((followed.status, path(server.arrivals().last().expect("a request"))), (200, "/api/v1/models/?x=1"));
}

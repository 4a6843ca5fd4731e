//! CORS: web pages can read embeddings if the upstream allows it, on a miss, on a hit, and after a preflight.

use http::{Method, Request};
use http_body_util::Full;

use crate::harness::client::Answer;
use crate::harness::front::{Ask, texts_of, tiny};
use crate::harness::stub::Call;
use crate::harness::{Behaviour, Client, Front, Inside};

const A: &str = "https://a.example";
const B: &str = "https://b.example";
const ALLOW: &str = "access-control-allow-origin";

/// Builds a request of a web page for the text "a".
fn page(front: &Front, origin: &str) -> Ask {
    front.post(texts_of(&["a"]).to_string()).header("origin", origin)
}

/// Makes the stub answer every origin with these CORS headers.
fn allows(front: &Front, allowed: &str) {
    let headers = [(ALLOW, allowed), ("vary", "origin"), ("access-control-expose-headers", "x-request-id")];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    front.stub.always(Behaviour::Headers(headers));
}

/// Makes the stub allow exactly the origin of each request.
fn echoes(front: &Front) {
    front.stub.decide(|call: &Call| match call.header("origin") {
        Some(origin) => Behaviour::Headers(vec![(ALLOW, origin.to_owned()), ("vary", "origin".to_owned())]),
        None => Behaviour::Normal,
    });
}

fn shown(answer: &Answer) -> (&str, Option<&str>) {
    assert_eq!((answer.status, answer.vectors()), (200, tiny(&["a"])));
    (answer.cache(), answer.header(ALLOW))
}

async fn preflight(url: &str, origin: &str) -> Answer {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(url)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    Client::new().send(request.body(Full::default()).expect("it is legal")).await.expect("it is answered")
}

#[tokio::test]
async fn a_page_can_read_misses_and_hits() {
    let front = Front::start().await;
    allows(&front, "*");
    for cache in ["miss", "hit", "hit", "hit"] {
        let answer = page(&front, A).send().await;
        assert_eq!(shown(&answer), (cache, Some("*")));
        assert_eq!(answer.header("vary"), Some("origin"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-request-id"));
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn one_wildcard_answer_serves_all_origins() {
    let front = Front::start().await;
    allows(&front, "*");
    page(&front, A).send().await;
    for _ in 0..3 {
        assert_eq!(shown(&page(&front, B).send().await), ("hit", Some("*")));
    }
}

#[tokio::test]
async fn a_stored_text_is_fetched_once_more_for_each_new_origin() {
    let front = Front::start().await;
    echoes(&front);
    assert_eq!(shown(&front.embed(&["a"]).await), ("miss", None));
    for (origin, cache) in [(A, "miss"), (A, "hit"), (B, "miss"), (A, "hit"), (B, "hit"), (B, "hit")] {
        assert_eq!(shown(&page(&front, origin).send().await), (cache, Some(origin)), "{origin}");
    }
    assert_eq!(front.calls(), 3);
    assert_eq!(shown(&front.embed(&["a"]).await), ("hit", None), "no page, no header");
}

#[tokio::test]
async fn hits_have_no_cors_header_if_the_upstream_sends_none() {
    let front = Front::start().await;
    for cache in ["miss", "hit", "hit"] {
        assert_eq!(shown(&page(&front, A).send().await), (cache, None));
    }
}

#[tokio::test]
async fn misses_of_two_origins_do_not_share_a_call() {
    let front = Front::with(&[("upstream.max_concurrent", "1")]).await;
    echoes(&front);
    // Both origins are known, so their misses could share a call.
    for origin in [A, B] {
        page(&front, origin).send().await;
    }
    front.stub.when(|call| call.texts() == ["first"], Behaviour::Gate);
    let first = front.post(texts_of(&["first"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    let ask = |text: &str, origin| front.post(texts_of(&[text]).to_string()).header("origin", origin).send_meanwhile();
    let (one, other) = (ask("one", A), ask("other", B));
    front.reaches("vecho_requests_in_flight", 3.0).await;
    front.stub.release_all();
    let (one, other) = (one.await.expect("it is answered"), other.await.expect("it is answered"));
    assert_eq!((one.header(ALLOW), other.header(ALLOW)), (Some(A), Some(B)));
    assert_eq!(first.await.expect("it is answered").status, 200);
    assert_eq!(front.texts_sent().iter().filter(|texts| texts.len() > 1).count(), 0);
}

#[tokio::test]
async fn a_waiting_page_of_a_known_origin_can_read_a_shared_answer() {
    let front = Front::start().await;
    echoes(&front);
    page(&front, A).send().await;
    front.stub.when(|call| call.texts() == ["new"], Behaviour::Gate);
    let ask = || front.post(texts_of(&["new"]).to_string());
    let lead = ask().send_meanwhile();
    front.stub.held(1).await;
    let joined = ask().header("origin", A).send_meanwhile();
    front.reaches("vecho_requests_in_flight", 2.0).await;
    front.stub.release_all();
    assert_eq!(lead.await.expect("it is answered").header(ALLOW), None);
    assert_eq!(joined.await.expect("it is answered").header(ALLOW), Some(A));
}

#[tokio::test]
async fn a_page_of_a_new_origin_does_not_join_another_call() {
    let front = Front::start().await;
    front.stub.decide(|call: &Call| match call.header("origin") {
        Some(origin) => Behaviour::Headers(vec![(ALLOW, origin.to_owned())]),
        None => Behaviour::Gate,
    });
    let lead = front.post(texts_of(&["a"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    assert_eq!(shown(&page(&front, A).send().await), ("miss", Some(A)));
    front.stub.release_all();
    assert_eq!(lead.await.expect("it is answered").header(ALLOW), None);
}

#[tokio::test]
async fn a_bypassed_request_stores_the_headers_of_its_origin() {
    let front = Front::start().await;
    allows(&front, A);
    front.embed(&["a"]).await;
    let odd = front.post(r#"{"model":"tiny","input":"a","nothing":1}"#).header("origin", A).send().await;
    assert_eq!((odd.cache(), odd.header(ALLOW)), ("bypass", Some(A)));
    assert_eq!(shown(&page(&front, A).send().await), ("hit", Some(A)));
}

#[tokio::test]
async fn a_preflight_passes_through_and_allows_later_hits() {
    let front = Front::start().await;
    let headers = [(ALLOW, A), ("access-control-allow-headers", "authorization"), ("access-control-max-age", "600")];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    front
        .stub
        .when(|call| call.method == Method::OPTIONS, Behaviour::Status { code: 204, headers, body: String::new() });
    front.embed(&["a"]).await;
    let allowed = preflight(&front.url("/v1/embeddings"), A).await;
    assert_eq!((allowed.status, allowed.header(ALLOW)), (204, Some(A)));
    assert_eq!(allowed.header("access-control-allow-headers"), Some("authorization"));
    let hit = page(&front, A).send().await;
    assert_eq!(shown(&hit), ("hit", Some(A)));
    assert_eq!(hit.header("access-control-max-age"), None);
    assert_eq!(shown(&page(&front, B).send().await), ("miss", None), "another origin is asked about anew");
}

#[tokio::test]
async fn vechos_own_errors_are_readable_by_allowed_origins() {
    let front = Front::start().await;
    echoes(&front);
    page(&front, A).send().await;
    let refused =
        page(&front, A).header("x-vecho-namespace", "n").header("cache-control", "only-if-cached").send().await;
    assert_eq!((refused.status, refused.header(ALLOW)), (504, Some(A)));
}

#[tokio::test]
async fn only_if_cached_is_obeyed_for_an_unknown_origin() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    let answer = page(&front, A).header("cache-control", "only-if-cached").send().await;
    assert_eq!(shown(&answer), ("hit", None));
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn the_built_in_mock_allows_every_origin() {
    let vecho = Inside::start("mock:", &[]).await;
    let allowed = preflight(&vecho.embeddings_url(), A).await;
    assert_eq!((allowed.status, allowed.header(ALLOW)), (204, Some("*")));
    assert_eq!(allowed.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert!(allowed.body.is_empty());
    for cache in ["miss", "hit", "hit"] {
        let answer = vecho.embed_with(&[("origin", A)], texts_of(&["a"])).await;
        assert_eq!((answer.cache(), answer.header(ALLOW)), (cache, Some("*")));
    }
    let refused = vecho.embed_with(&[("origin", A)], serde_json::json!({"model": "m"})).await;
    assert_eq!((refused.status, refused.header(ALLOW)), (400, Some("*")));
}

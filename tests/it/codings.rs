//! Content codings: compressed requests are cached like uncompressed ones, and compressed answers are decoded.

use bytes::Bytes;
use serde_json::json;

use crate::harness::encode::encode;
use crate::harness::front::{Ask, texts_of, tiny};
use crate::harness::{Behaviour, Front, Inside};

const CODINGS: [&str; 9] =
    ["gzip", "x-gzip", "deflate", "br", "zstd", "GZip", "gzip, br", "deflate , zstd", "identity, gzip"];

/// Builds a request whose body is encoded with these codings.
fn encoded(front: &Front, codings: &str, body: &str) -> Ask {
    front.post(encode(codings, body.as_bytes())).header("content-encoding", codings)
}

#[tokio::test]
async fn compressed_requests_share_their_entries_with_plain_ones() {
    let front = Front::start().await;
    let plain = front.embed(&["a", "b"]).await;
    for codings in CODINGS {
        let answer = encoded(&front, codings, &texts_of(&["a", "b"]).to_string()).send().await;
        assert_eq!((answer.status, answer.cache()), (200, "hit"), "{codings}");
        assert_eq!(answer.vectors(), plain.vectors(), "{codings}");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_call_for_a_compressed_request_is_plain_json() {
    let front = Front::start().await;
    for (number, codings) in CODINGS.iter().enumerate() {
        let text = format!("text {number}");
        let answer = encoded(&front, codings, &texts_of(&[&text]).to_string()).send().await;
        assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&[&text])), "{codings}");
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!((call.header("content-encoding"), call.texts()), (None, vec![text]), "{codings}");
        assert_eq!(call.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn an_unsupported_compressed_request_is_forwarded_byte_for_byte() {
    let front = Front::start().await;
    for codings in CODINGS {
        let body = encode(codings, br#"{"model":"tiny","input":"a","nothing":1}"#);
        let answer = front.post(body.clone()).header("content-encoding", codings).send().await;
        let reason = answer.header("x-vecho-bypass-reason").expect("a reason");
        assert!(answer.cache() == "bypass" && reason.starts_with("unknown_field"), "{codings}: {reason}");
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!((&call.body, call.header("content-encoding")), (&Bytes::from(body), Some(codings)));
    }
}

#[tokio::test]
async fn a_body_that_does_not_match_its_coding_is_forwarded_byte_for_byte() {
    let front = Front::start().await;
    let plain = texts_of(&["a"]).to_string();
    let zipped = encode("gzip", plain.as_bytes());
    let cases = [
        ("gzip", plain.clone().into_bytes()),
        ("gzip", zipped[..zipped.len() - 3].to_vec()),
        ("gzip", [zipped.as_slice(), b"more"].concat()),
        ("br", zipped.clone()),
        ("compress", zipped.clone()),
        ("gzip, gzip", zipped.clone()),
        ("gzip", Vec::new()),
    ];
    for (codings, body) in cases {
        let answer = front.post(body.clone()).header("content-encoding", codings).send().await;
        assert_eq!((answer.cache(), answer.header("x-vecho-bypass-reason")), ("bypass", Some("content_encoding")));
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!((&call.body, call.header("content-encoding")), (&Bytes::from(body), Some(codings)));
    }
}

#[tokio::test]
async fn a_body_that_decodes_beyond_the_limit_is_refused_in_every_coding() {
    let front = Front::with(&[("limits.max_body_bytes", "1000000")]).await;
    let large = json!({"model": "tiny", "input": "a".repeat(2_000_000)}).to_string();
    for codings in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let answer = encoded(&front, codings, &large).send().await;
        let error = ("invalid_request_error".to_owned(), json!("body_too_large"));
        assert_eq!((answer.status, answer.error()), (413, error), "{codings}");
    }
    assert_eq!(front.calls(), 0);
}

#[tokio::test]
async fn a_compressed_body_reserves_memory_for_its_decoded_bytes() {
    let front = Front::start().await;
    let body = json!({"model": "tiny", "input": "a".repeat(20_000)}).to_string();
    front.stub.always(Behaviour::Gate);
    let waiting = encoded(&front, "gzip", &body).send_meanwhile();
    front.stub.held(1).await;
    let held = front.metric("vecho_body_bytes_in_flight").await;
    assert!(held > 20_000.0, "{held}");
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    assert_eq!(waiting.await.expect("it is answered").status, 200);
}

#[tokio::test]
async fn explain_reads_compressed_requests() {
    let vecho = Inside::start("mock:", &[]).await;
    let url = format!("http://{}/api/performance/cache/explain", vecho.admin());
    let mut request =
        crate::harness::client::raw(http::Method::POST, &url, encode("br", texts_of(&["a"]).to_string().as_bytes()));
    request.headers_mut().insert("content-encoding", http::HeaderValue::from_static("br"));
    let explained = vecho.client.send(request).await.expect("it is answered").json();
    assert_eq!(explained["cacheable"], json!(true), "{explained}");
}

#[tokio::test]
async fn compressed_answers_are_read_and_stored() {
    let front = Front::start().await;
    for (number, codings) in CODINGS.iter().enumerate() {
        let text = format!("text {number}");
        front.stub.next(Behaviour::Encoded(codings));
        for cache in ["miss", "hit"] {
            let answer = front.embed(&[&text]).await;
            assert_eq!((answer.cache(), answer.vectors()), (cache, tiny(&[&text])), "{codings}");
            assert_eq!(answer.header("content-encoding"), None);
        }
    }
    assert_eq!(front.calls(), CODINGS.len());
}

#[tokio::test]
async fn a_large_compressed_answer_in_small_pieces_is_read() {
    let front = Front::start().await;
    let texts: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let slow = Behaviour::SlowBody { chunk_bytes: 700, pause: std::time::Duration::ZERO };
    front.stub.next(Behaviour::All(vec![Behaviour::Encoded("gzip"), slow]));
    let answer = front.embed(&texts).await;
    assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&texts)));
}

/// The body of an answer always matches its `content-encoding` header.
#[tokio::test]
async fn compressed_errors_reach_the_caller_with_headers_that_describe_their_body() {
    let front = Front::start().await;
    let body = json!({"error": {"message": "no", "type": "x", "param": null, "code": null}}).to_string();
    for codings in ["gzip", "br", "zstd", "deflate"] {
        let refusal = Behaviour::Status { code: 422, headers: Vec::new(), body: body.clone() };
        front.stub.next(Behaviour::All(vec![refusal, Behaviour::Encoded(codings)]));
        let answer = front.embed(&["a"]).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (422, None), "{codings}");
        assert_eq!(answer.body, body, "{codings}");
    }
    // A body in an unknown coding keeps its header.
    let headers = vec![("content-encoding", "compress".to_owned())];
    front.stub.next(Behaviour::Status { code: 422, headers, body: body.clone() });
    let answer = front.embed(&["a"]).await;
    assert_eq!((answer.header("content-encoding"), &answer.body[..]), (Some("compress"), body.as_bytes()));
}

#[tokio::test]
async fn an_oversized_compressed_answer_is_streamed_to_the_caller() {
    let front = Front::with(&[("upstream.max_answer_bytes", "20000"), ("retry.max_attempts", "1")]).await;
    let page = Bytes::from(vec![b' '; 3_000_000]);
    let bomb = Behaviour::Status { code: 200, headers: Vec::new(), body: String::from_utf8_lossy(&page).into_owned() };
    front.stub.always(Behaviour::All(vec![bomb, Behaviour::Encoded("gzip")]));
    let answer = front.embed(&["a"]).await;
    assert_eq!((answer.cache(), answer.header("content-encoding")), ("bypass", Some("gzip")));
    assert_eq!(answer.body, encode("gzip", &page));
}

#[tokio::test]
async fn an_unreadable_compressed_answer_is_passed_on_without_its_coding() {
    let front = Front::start().await;
    let refusal = Behaviour::Status { code: 200, headers: Vec::new(), body: r#"{"data":"odd"}"#.to_owned() };
    front.stub.always(Behaviour::All(vec![refusal, Behaviour::Encoded("gzip")]));
    let answer = front.embed(&["a"]).await;
    assert_eq!((answer.cache(), answer.header("x-vecho-bypass-reason")), ("bypass", Some("unreadable_answer")));
    let plain = match answer.header("content-encoding") {
        None => answer.body.to_vec(),
        Some(codings) => {
            assert_eq!(answer.body, encode(codings, br#"{"data":"odd"}"#));
            br#"{"data":"odd"}"#.to_vec()
        }
    };
    assert_eq!(plain, br#"{"data":"odd"}"#);
}

#[tokio::test]
async fn calls_offer_codings_to_an_upstream_on_this_machine_only_if_configured() {
    for (settings, offer) in [
        (&[][..], None),
        (&[("upstream.compression", "auto")], None),
        (&[("upstream.compression", "off")], None),
        (&[("upstream.compression", "on")], Some("gzip, br, zstd")),
    ] {
        let front = Front::with(settings).await;
        let answer = front.post(texts_of(&["a"]).to_string()).header("accept-encoding", "gzip, deflate").send().await;
        assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&["a"])), "{settings:?}");
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!(call.header("accept-encoding"), offer, "{settings:?}");
    }
}

#[tokio::test]
async fn an_answer_in_an_offered_coding_has_the_vectors_of_a_plain_one() {
    let front = Front::with(&[("upstream.compression", "on")]).await;
    for coding in ["gzip", "br", "zstd"] {
        front.stub.next(Behaviour::Encoded(coding));
        let answer = front.embed(&[coding]).await;
        assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&[coding])));
        assert_eq!(front.embed(&[coding]).await.vectors(), tiny(&[coding]));
    }
}

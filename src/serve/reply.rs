//! Responses without a handler: the server is full, or a request head is unreadable or not allowed.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;

use super::head::BadHead;

/// Returns the response to a connection over the limit.
pub(super) fn server_full() -> Vec<u8> {
    let body =
        envelope("All connections of this server are taken. Try again in a moment.", "server_error", "overloaded");
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n";
    with_body(head, &body)
}

/// Returns true if `written` is a complete 4xx head without a body, as hyper sends it for an unreadable request head.
pub(super) fn is_bare_refusal(written: &[u8]) -> bool {
    // Byte 9 is the first digit of the status, after `HTTP/1.1 `.
    written.starts_with(b"HTTP/1.") && written.get(9) == Some(&b'4') && written.ends_with(b"\r\n\r\n")
}

/// Adds an error body in the format of the API to hyper's 4xx head.
pub(super) fn explain_refusal(bare_head: &[u8]) -> Vec<u8> {
    let bare_head = String::from_utf8_lossy(bare_head);
    let mut lines = bare_head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut head = format!("{status_line}\r\n");
    // Of hyper's headers only the date is kept: its `content-length: 0` would contradict the body.
    if let Some(date) = lines.find(|line| line.starts_with("date:")) {
        head.push_str(date);
        head.push_str("\r\n");
    }
    let (message, code) = match status_line.get(9..12) {
        Some("431") => ("The headers of the request are larger than this server accepts.", "headers_too_large"),
        Some("414") => ("The address of the request is longer than this server accepts.", "uri_too_long"),
        _ => ("The request could not be read as HTTP.", "unreadable_request"),
    };
    with_body(&head, &envelope(message, "invalid_request_error", code))
}

/// Returns the response to a rejected request head.
pub(super) fn bad_head(bad: BadHead, version: Version) -> Response<Full<Bytes>> {
    let message = match bad {
        BadHead::NoHost => "The request names no host.",
        BadHead::SeveralHosts => "The request names more than one host.",
        BadHead::MalformedHost => "The host that the request names is not a name or an address with an optional port.",
        BadHead::TransferCoding => "The body of the request has another transfer coding than `chunked`.",
        BadHead::TwoLengths => "The request has both `Content-Length` and `Transfer-Encoding`.",
    };
    let body = envelope(message, "invalid_request_error", "unreadable_request");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // An HTTP/2 stream ends by itself, and HTTP/2 forbids this header.
    if version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn with_body(head: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    // The rest of the peer's bytes cannot be delimited, so the connection must close.
    format!("{head}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

/// Formats an error body of the API. The messages are constants of this file and need no escaping.
fn envelope(message: &str, kind: &str, code: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
        connection: close\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";

    #[test]
    fn a_bare_refusal_keeps_its_status_and_gets_a_body() {
        let reply = String::from_utf8(explain_refusal(BARE)).expect("replies are text");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head ends");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(head.contains("\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT"));
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        assert_eq!(head.matches("content-length").count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(parsed["error"]["type"], "invalid_request_error");
        assert!(parsed["error"]["param"].is_null());
        assert_eq!(parsed["error"]["code"], "headers_too_large");
    }

    #[test]
    fn a_full_server_replies_with_the_overload_envelope() {
        let reply = String::from_utf8(server_full()).expect("replies are text");
        assert!(reply.starts_with("HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"), "{reply}");
        let (_, body) = reply.split_once("\r\n\r\n").expect("a head ends");
        let parsed: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(
            (&parsed["error"]["type"], &parsed["error"]["code"]),
            (&"server_error".into(), &"overloaded".into())
        );
    }

    #[test]
    fn only_a_bare_4xx_head_is_a_refusal() {
        assert!(is_bare_refusal(BARE));
        assert!(!is_bare_refusal(b"HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!is_bare_refusal(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"));
        assert!(!is_bare_refusal(b"HTTP/1.1 4"));
    }
}

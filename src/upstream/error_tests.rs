//! Classes of failures, and the limits and times that error bodies state.

use super::*;
use crate::wire::envelope;

fn failure(status: u16, body: &str) -> Failure {
    let status = StatusCode::from_u16(status).expect("a status");
    Failure::of_reply(UpstreamReply { status, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) })
}

#[test]
fn every_status_has_its_failure_class() {
    for status in [500, 502, 503, 504, 520, 524] {
        assert_eq!(failure(status, "").class, Class::Unavailable(UnavailableReason::Status), "{status}");
    }
    for status in [301, 400, 401, 403, 404, 408, 409, 413, 422, 501] {
        assert_eq!(failure(status, "").class, Class::Refused, "{status}");
    }
    assert_eq!(failure(429, "{}").class, Class::Throttled);
    let quota = envelope("You exceeded", "insufficient_quota", None, Some("insufficient_quota"));
    assert_eq!(failure(429, std::str::from_utf8(&quota).expect("text")).class, Class::Refused);
}

#[test]
fn limits_are_recognised_in_the_messages_of_several_servers() {
    let too_large = [
        (
            TooLarge::Size,
            400,
            r#"{"error":{"message":"Requested 346134 tokens, max 300000 tokens per request","type":"max_tokens_per_request","code":"max_tokens_per_request"}}"#,
        ),
        (TooLarge::Inputs, 400, r#"{"error":{"message":"batch size is invalid, it should not be larger than 10."}}"#),
        (
            TooLarge::Inputs,
            400,
            r#"{"error":{"message":"Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 3000 instead."}}"#,
        ),
        (
            TooLarge::Inputs,
            422,
            r#"{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}"#,
        ),
        (TooLarge::Inputs, 400, r#"{"error":{"message":"Too many inputs. The max number of inputs is 2048."}}"#),
        (
            TooLarge::Size,
            400,
            r#"{"detail":"The max allowed tokens per submitted batch is 120000. Your batch has 250000 tokens after truncation. Please lower the number of inputs."}"#,
        ),
        (
            TooLarge::Inputs,
            400,
            r#"{"error":{"code":400,"message":"* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch","status":"INVALID_ARGUMENT"}}"#,
        ),
        (TooLarge::Inputs, 400, r#"{"message":"total number of texts must be at most 96 - received 131"}"#),
    ];
    for (of_what, status, body) in too_large {
        assert_eq!(failure(status, body).too_large_by(), Some(of_what), "{body}");
    }
    let other = [
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in your prompt; 0 for the completion). Please reduce your prompt; inputs"}}"#,
        ),
        (400, r#"{"error":{"message":"'$.input' is invalid."}}"#),
        (429, "too many inputs"),
        (400, r#"{"error":{"message":"one of the inputs exceeds the limit of 512 tokens"}}"#),
        // One text may be too long, or all of them together.
        (413, ""),
        (413, r#"{"error":"`inputs` must have less than 512 tokens. Given: 600","error_type":"Validation"}"#),
    ];
    for (status, body) in other {
        assert_eq!(failure(status, body).too_large_by(), None, "{body}");
    }
}

#[test]
fn retry_after_is_read_in_seconds_and_milliseconds() {
    let mut throttled = failure(429, "{}");
    let headers = &mut throttled.reply.as_mut().expect("a reply").headers;
    headers.insert("retry-after", "2".parse().expect("a value"));
    assert_eq!(throttled.retry_after(), Some(Duration::from_secs(2)));
    let headers = &mut throttled.reply.as_mut().expect("a reply").headers;
    headers.insert("retry-after-ms", "150".parse().expect("a value"));
    assert_eq!(throttled.retry_after(), Some(Duration::from_millis(150)));
}

#[test]
fn retry_after_may_be_a_date() {
    let mut throttled = failure(429, "{}");
    let mut wish = |at: SystemTime| {
        let value = httpdate::fmt_http_date(at).parse().expect("a value");
        throttled.reply.as_mut().expect("a reply").headers.insert("retry-after", value);
        throttled.retry_after()
    };
    let wait = wish(SystemTime::now() + Duration::from_secs(100)).expect("it was said");
    assert!((Duration::from_secs(95)..=Duration::from_secs(100)).contains(&wait), "{wait:?}");
    assert_eq!(wish(SystemTime::now() - Duration::from_secs(100)), None);
}

#[test]
fn a_request_too_large_for_the_rate_limit_may_pass_in_parts() {
    let body = r#"{"error":{"message":"Request too large for m on tokens per min (TPM): Limit 10000, Requested 20000.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    assert_eq!(failure(429, body).too_large_by(), Some(TooLarge::Size));
    assert_eq!(failure(429, r#"{"error":{"message":"Rate limit reached"}}"#).too_large_by(), None);
}

#[test]
fn errors_about_the_credential_are_not_blamed_on_the_input_or_the_form() {
    let quota = envelope("You exceeded", "insufficient_quota", None, Some("insufficient_quota"));
    let quota = std::str::from_utf8(&quota).expect("text");
    for (status, body, may_be) in [(429, quota, false), (401, "{}", false), (403, "{}", true), (400, "{}", true)] {
        let failure = failure(status, body);
        assert_eq!((failure.class, failure.may_be_a_neighbours()), (Class::Refused, may_be), "{status}");
        assert_eq!(failure.may_be_of_the_form(), may_be, "{status}");
    }
}

//! Trace context of a request, and its headers in W3C Trace Context format.

use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::SdkTracer;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Size of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Size of `tracestate` in bytes that the standard asks every participant to propagate.
const MAX_STATE_BYTES: usize = 512;

/// Place in a trace, under which child spans can begin. Empty if tracing is off. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TraceContext(pub(super) Option<Arc<SpanParent>>);

/// Contents of a [`TraceContext`].
#[derive(Debug)]
pub(super) struct SpanParent {
    pub(super) tracer: SdkTracer,
    pub(super) span: SpanContext,
}

impl TraceContext {
    /// Empty context: tracing is off or not wanted.
    pub const NONE: &'static Self = &Self(None);

    /// Returns true if the context is not empty.
    pub const fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Returns true if both are in the same trace.
    pub fn is_same_trace(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => one.span.trace_id() == other.span.trace_id(),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Returns true if both are the same span.
    pub fn is_same_span(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => one.span.span_id() == other.span.span_id(),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Writes this context into the headers of a request, and replaces an existing one. An empty context changes
    /// nothing.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(parent) = &self.0 {
            write(&parent.span, headers);
        }
    }
}

fn write(span: &SpanContext, headers: &mut HeaderMap) {
    // Version 00 defines only the sampled flag. Other bits of the caller must not be passed on.
    let sampled = span.trace_flags() & TraceFlags::SAMPLED;
    let parent = format!("00-{}-{}-{sampled:02x}", span.trace_id(), span.span_id());
    headers.insert(TRACEPARENT, HeaderValue::from_str(&parent).expect("hexadecimal digits must be a header value"));
    // A state belongs to its `traceparent`, so the previous one must not stay, even without a successor.
    headers.remove(TRACESTATE);
    let state = span.trace_state().header();
    if let Some(state) = HeaderValue::from_str(&state).ok().filter(|state| !state.is_empty()) {
        headers.insert(TRACESTATE, state);
    }
}

/// Reads the caller's context, if there is exactly one. A malformed context counts as absent, as the standard demands.
pub(super) fn read(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let (trace_id, span_id, flags) = parse(parent.to_str().ok()?.trim())?;
    // A malformed state is discarded. It does not invalidate the `traceparent`.
    let state = TraceState::from_str(&states(headers)).unwrap_or_default();
    let span = SpanContext::new(trace_id, span_id, flags, true, state);
    span.is_valid().then_some(span)
}

/// Parses version 00 strictly, and of later versions the part that they share with it.
fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    // The standard allows only lowercase digits.
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // `get` also fails if the size is inside a character, so the slice below is safe.
    let known = text.get(..LENGTH)?;
    let mut parts = known.split('-');
    let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version.len(), trace_id.len(), span_id.len(), flags.len()];
    let is_whole = lengths == [2, 32, 16, 2] && [version, trace_id, span_id, flags].into_iter().all(is_hex);
    let rest = &text[LENGTH..];
    // A later version may append fields. Version ff is forbidden.
    let may_go_on = version != "00" && rest.starts_with('-');
    if !is_whole || version == "ff" || !(rest.is_empty() || may_go_on) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some((TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?, flags))
}

/// Joins several `tracestate` headers into one list. Truncates long lists to their beginning, which is the newest part,
/// because each span and each call has a copy.
fn states(headers: &HeaderMap) -> String {
    let values = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let mut states = String::new();
    for state in values.flat_map(|value| value.split(',')).map(str::trim).filter(|state| !state.is_empty()) {
        if states.len() + state.len() >= MAX_STATE_BYTES {
            break;
        }
        states.push_str(if states.is_empty() { "" } else { "," });
        states.push_str(state);
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn trace_context_headers_round_trip() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let sent = headers(&[("traceparent", &parent), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        let span = read(&sent).expect("it is well formed");
        assert!(span.is_sampled() && span.is_remote());
        let mut written = headers(&[("traceparent", "old"), ("tracestate", "old"), ("x", "y")]);
        write(&span, &mut written);
        assert_eq!(written, headers(&[("traceparent", &parent), ("tracestate", "a=1,b=2"), ("x", "y")]));
    }

    #[test]
    fn a_later_traceparent_version_is_read_by_the_known_fields() {
        for (parent, sampled) in [
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-03"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), true),
        ] {
            assert_eq!(read(&headers(&[("traceparent", &parent)])).map(|span| span.is_sampled()), Some(sampled));
        }
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        for parent in [
            String::new(),
            "nonsense".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}"),
            format!("+0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00_{TRACE}_{SPAN}_01"),
        ] {
            assert_eq!(read(&headers(&[("traceparent", &parent), ("tracestate", "a=1")])), None, "{parent}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(read(&headers(&[("traceparent", &good), ("traceparent", &good)])), None, "two are none");
    }

    #[test]
    fn a_long_tracestate_is_truncated_to_its_newest_entries() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let long: Vec<String> = (0..32).map(|n| format!("k{n}={}", "v".repeat(100))).collect();
        let sent = headers(&[
            ("traceparent", &parent),
            ("tracestate", &long[..16].join(",")),
            ("tracestate", &long[16..].join(", ")),
        ]);
        assert_eq!(read(&sent).expect("the parent is fine").trace_state().header(), long[..4].join(","));
    }

    #[test]
    fn a_malformed_tracestate_is_dropped_but_the_parent_is_kept() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let span =
            read(&headers(&[("traceparent", &parent), ("tracestate", "no equals sign")])).expect("the parent is fine");
        assert_eq!(span.trace_state().header(), "");
    }
}

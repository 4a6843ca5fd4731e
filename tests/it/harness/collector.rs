//! A collector of traces: a stub that accepts deliveries, and accessors for the spans in them.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message as _;

use super::stub::{Call, Stub};
use super::{Behaviour, eventually};

/// A running collector.
pub(crate) struct Collector {
    pub(crate) stub: Stub,
}

/// One span as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) proto: proto::Span,
    pub(crate) resource: Vec<KeyValue>,
}

impl Collector {
    /// Starts a collector that accepts every delivery.
    pub(crate) fn start() -> Self {
        let stub = Stub::start();
        stub.always(answer(200, Vec::new()));
        Self { stub }
    }

    /// Returns its base URL.
    pub(crate) fn url(&self) -> String {
        self.stub.root_url()
    }

    /// Returns all deliveries, including refused attempts.
    pub(crate) fn deliveries(&self) -> Vec<Call> {
        self.stub.calls()
    }

    /// Returns the body of each delivery.
    pub(crate) fn bytes(&self) -> Vec<Bytes> {
        self.deliveries().into_iter().map(|call| call.body).collect()
    }

    /// Returns the spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.deliveries().iter().flat_map(|call| spans_of(&call.body)).collect()
    }

    /// Waits until this many spans have arrived, and returns them.
    pub(crate) async fn has(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans have arrived"), async || self.spans().len() >= count).await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{:#?}", names(&spans));
        spans
    }

    /// Waits until spans of all these names have arrived, in any order, and returns all spans.
    pub(crate) async fn has_all(&self, wanted: &[&str]) -> Vec<Span> {
        let has = |spans: &[Span]| wanted.iter().all(|name| spans.iter().any(|span| span.proto.name == **name));
        eventually(&format!("{wanted:?} have arrived"), async || has(&self.spans())).await;
        self.spans()
    }
}

/// Returns an answer of a collector.
pub(crate) fn answer(code: u16, body: Vec<u8>) -> Behaviour {
    let body = String::from_utf8(body).expect("a test's answer is text");
    Behaviour::Status { code, headers: Vec::new(), body }
}

fn spans_of(body: &Bytes) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("what arrives is OTLP");
    let resources = request.resource_spans.into_iter().flat_map(|spans| {
        let resource = spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        spans.scope_spans.into_iter().map(move |scope| (resource.clone(), scope.spans))
    });
    let spans = resources
        .flat_map(|(resource, spans)| spans.into_iter().map(move |proto| Span { proto, resource: resource.clone() }));
    spans.collect()
}

/// Returns the names of spans, for messages.
pub(crate) fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.proto.name.as_str()).collect()
}

/// Returns the only span of this name.
pub(crate) fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = all(spans, name);
    assert_eq!(found.len(), 1, "one {name:?} in {:?}", names(spans));
    found[0]
}

/// Returns the spans of this name.
pub(crate) fn all<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.proto.name == name).collect()
}

impl Span {
    pub(crate) fn trace_id(&self) -> String {
        hex(&self.proto.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.proto.span_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.proto.parent_span_id)
    }

    /// Returns the value of an attribute as text.
    pub(crate) fn said(&self, name: &str) -> Option<String> {
        said(&self.proto.attributes, name)
    }

    /// Returns the value of a resource attribute as text.
    pub(crate) fn resource(&self, name: &str) -> Option<String> {
        said(&self.resource, name)
    }

    /// Returns true if the span has an error status.
    pub(crate) fn has_failed(&self) -> bool {
        let code = self.proto.status.as_ref().map_or(0, |status| status.code);
        code == proto::status::StatusCode::Error as i32
    }

    /// Returns the ids of the linked spans.
    pub(crate) fn links(&self) -> Vec<String> {
        self.proto.links.iter().map(|link| hex(&link.span_id)).collect()
    }

    /// Returns true if the time of this span includes that of `inner`.
    pub(crate) fn spans_over(&self, inner: &Self) -> bool {
        let (outer, inner) = (&self.proto, &inner.proto);
        outer.start_time_unix_nano <= inner.start_time_unix_nano && inner.end_time_unix_nano <= outer.end_time_unix_nano
    }
}

fn said(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|pair| pair.key == name)?.value.clone();
    match value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

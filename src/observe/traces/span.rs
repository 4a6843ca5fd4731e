//! One span: it begins under a context, collects attributes, and ends when it is dropped.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

use super::attribute::{self, Attribute};
use super::context::{SpanParent, TraceContext};

/// Largest size of a text attribute in bytes. Names of models come from callers.
const MAX_TEXT_BYTES: usize = 256;

/// Limit on the links of one span. A call may carry inputs of this many requests; links to further ones are left out.
pub const MAX_LINKS: u32 = 128;

/// Span in progress. It ends when it is dropped. Empty if tracing is off. If its trace is not recorded, it ignores
/// attributes.
#[derive(Debug, Default)]
pub struct Span(Option<Box<ActiveSpan>>);

#[derive(Debug)]
struct ActiveSpan {
    context: TraceContext,
    /// The recorded span. A lock allows several places to add attributes.
    recorded: Mutex<SdkSpan>,
}

impl Span {
    /// Begins a span under `parent`, or the first one of a trace.
    pub(super) fn begin(tracer: &SdkTracer, parent: &Context, builder: SpanBuilder) -> Self {
        let span = tracer.build_with_context(builder, parent);
        // The context exists for unrecorded spans, too, since they must be propagated with their flag.
        let parent = SpanParent { tracer: tracer.clone(), span: span.span_context().clone() };
        Self(Some(Box::new(ActiveSpan { context: TraceContext(Some(Arc::new(parent))), recorded: Mutex::new(span) })))
    }

    /// Returns the context for child spans.
    pub fn context(&self) -> TraceContext {
        self.0.as_ref().map_or_else(TraceContext::default, |live| live.context.clone())
    }

    /// Returns true if the span is recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|live| live.context.is_recorded())
    }

    /// Sets a text attribute. A long text is cut.
    pub fn text(&self, attribute: Attribute, text: &str) {
        if self.is_recorded() {
            let end = text.floor_char_boundary(MAX_TEXT_BYTES);
            self.set(attribute, text[..end].to_owned());
        }
    }

    /// Sets a number attribute.
    pub fn count(&self, attribute: Attribute, number: impl TryInto<i64>) {
        if self.is_recorded() {
            self.set(attribute, number.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Sets an attribute with a costly value, which is computed only if the span is recorded.
    pub fn shown(&self, attribute: Attribute, value: impl FnOnce() -> String) {
        if self.is_recorded() {
            self.set(attribute, value());
        }
    }

    /// Marks the span as failed, with the error type in a word.
    pub fn fail(&self, how: impl Display) {
        if self.is_recorded() {
            self.set(attribute::ERROR_TYPE, how.to_string());
            // The attribute names the error, so the status needs no description.
            self.with(|span| span.set_status(Status::error("")));
        }
    }

    /// Links the span to another trace. The trace state of the other is left out: it belongs to a caller, a call may
    /// have many callers, and the ids suffice.
    pub fn link(&self, other: &TraceContext) {
        if let Some(SpanParent { span: to, .. }) = other.0.as_deref()
            && self.is_recorded()
        {
            let state = TraceState::default();
            let to = SpanContext::new(to.trace_id(), to.span_id(), to.trace_flags(), to.is_remote(), state);
            self.with(|span| span.add_link(to, Vec::new()));
        }
    }

    fn set(&self, attribute: Attribute, value: impl Into<Value>) {
        self.with(|span| span.set_attribute(KeyValue::new(attribute.name, value)));
    }

    fn with(&self, act: impl FnOnce(&mut SdkSpan)) {
        if let Some(live) = &self.0 {
            // A panic while an attribute is set leaves a span that can still be exported.
            act(&mut live.recorded.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl TraceContext {
    fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|parent| parent.span.is_sampled())
    }

    /// Begins a span for the look-up of `keys` in a tier.
    pub fn look_up(&self, tier: &'static str, keys: usize) -> Span {
        let span = self.below(attribute::LOOK_UP.name, Some(tier), SpanKind::Internal);
        span.text(attribute::TIER, tier);
        span.count(attribute::KEYS, keys);
        span
    }

    /// Begins a span for a wait for keys. This request fetches `led` of them and waits for the fetches of others for
    /// `joined`.
    pub fn wait(&self, led: usize, joined: usize) -> Span {
        let span = self.below(attribute::WAIT.name, None, SpanKind::Internal);
        span.count(attribute::LED, led);
        span.count(attribute::WAITED_FOR, joined);
        span
    }

    /// Begins a span for leases of keys.
    pub fn lease(&self, keys: usize) -> Span {
        let span = self.below(attribute::LEASE.name, None, SpanKind::Internal);
        span.count(attribute::KEYS, keys);
        span
    }

    /// Begins a span for the time that inputs wait in the queue.
    pub fn queue(&self, inputs: usize) -> Span {
        let span = self.below(attribute::QUEUE.name, None, SpanKind::Internal);
        span.count(attribute::INPUTS, inputs);
        span
    }

    /// Begins a span for an embeddings call.
    pub fn call(&self, model: &str) -> Span {
        let span = self.below(attribute::CALL.name, Some(model), SpanKind::Client);
        span.text(attribute::METHOD, "POST");
        span.text(attribute::OPERATION, "embeddings");
        span.text(attribute::REQUEST_MODEL, model);
        span
    }

    /// Begins a span for a forwarded request.
    pub fn forward(&self, method: &http::Method) -> Span {
        let method = known_method(method);
        let span = self.below("", Some(method), SpanKind::Client);
        span.text(attribute::METHOD, method);
        span
    }

    /// Begins a child span. The last word of a name with several words is a placeholder for `about`.
    fn below(&self, name: &'static str, about: Option<&str>, kind: SpanKind) -> Span {
        let Some(above) = &self.0 else { return Span::default() };
        // The name of an unrecorded span is never exported, which spares its formatting.
        let builder = SpanBuilder::from_name(if self.is_recorded() { named(name, about) } else { String::new() });
        // Only the ids of the parent are known here, so it counts as remote.
        let parent = Context::new().with_remote_span_context(above.span.clone());
        Span::begin(&above.tracer, &parent, builder.with_kind(kind))
    }
}

fn named(name: &str, about: Option<&str>) -> String {
    let Some(about) = about else { return name.to_owned() };
    let about = &about[..about.floor_char_boundary(MAX_TEXT_BYTES)];
    match name.rsplit_once(' ') {
        Some((start, _)) => format!("{start} {about}").trim_end().to_owned(),
        None => about.to_owned(),
    }
}

/// Returns the name of a standard HTTP method, and `_OTHER` for any other, because callers can invent methods.
pub(super) fn known_method(method: &http::Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PATCH", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

//! The beginning of every trace: a request, and the caller's trace that it may belong to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::request::Parts;
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanLimits};

use super::attribute;
use super::context::read;
use super::export::Exporter;
use super::queue::Queue;
use super::span::{MAX_LINKS, Span, known_method};
use crate::config::{Live, Traces};
use crate::connector::TlsError;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// Begins the spans of requests. Empty where traces are off. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    tracer: SdkTracer,
    /// How the public port is spoken to.
    scheme: &'static str,
    export: Tasks,
    /// Finished spans that are not delivered yet.
    waiting: Arc<AtomicUsize>,
}

impl Tracer {
    /// A tracer as the configuration has it, with a task that delivers what it records.
    pub fn start(live: &Live, version: &'static str, metrics: &Arc<Metrics>) -> Result<Self, TlsError> {
        let config = live.load();
        let traces = &config.traces;
        let Some(target) = traces.target.clone() else { return Ok(Self::default()) };
        let (resource, export) = (resource(traces, version), Tasks::new());
        let (queue, queued) = Queue::new(traces.queue_spans, Arc::clone(metrics));
        let waiting = Arc::clone(&queued.waiting);
        let exporter = Exporter::new(live.clone(), target, &resource, (queued, export.clone()))?;
        export.spawn(exporter.run(Arc::clone(metrics)));
        // Everything is said, so that nothing is read from the environment behind the configuration's back.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.sample_ratio))))
            .with_span_limits(SpanLimits { max_links_per_span: MAX_LINKS, ..SpanLimits::default() })
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder("vecho").with_version(version).build();
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        Ok(Self(Some(Arc::new(On { tracer: provider.tracer_with_scope(scope), scheme, export, waiting }))))
    }

    /// Begins the span of a request, in its caller's trace where it names one. `route` tells the pattern of its path.
    pub fn request(&self, head: &Parts, route: impl FnOnce() -> Option<&'static str>) -> Span {
        let Some(on) = &self.0 else { return Span::default() };
        let route = route();
        let caller = read(&head.headers);
        let parent = caller.map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller));
        let method = known_method(&head.method);
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let span = Span::begin(&on.tracer, &parent, SpanBuilder::from_name(name).with_kind(SpanKind::Server));
        span.text(attribute::METHOD, method);
        span.text(attribute::SCHEME, on.scheme);
        span.text(attribute::PATH, head.uri.path());
        if let Some(route) = route {
            span.text(attribute::ROUTE, route);
            span.text(attribute::OPERATION, "embeddings");
        }
        span
    }

    /// Delivers what is finished, within `patience`; says how many spans are lost.
    pub async fn close(&self, patience: Duration) -> usize {
        let Some(on) = &self.0 else { return 0 };
        on.export.stop();
        on.export.join(patience).await;
        on.waiting.load(Ordering::Relaxed)
    }
}

fn resource(traces: &Traces, version: &'static str) -> Resource {
    let said = traces.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // What was said goes last, and so goes before what is known.
    let known = [KeyValue::new("service.version", version), KeyValue::new("telemetry.sdk.language", "rust")];
    Resource::builder_empty().with_attributes(known.into_iter().chain(said)).build()
}

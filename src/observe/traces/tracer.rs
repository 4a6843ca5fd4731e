//! Start of every trace: the span of a request, as part of the caller's trace if there is one.

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
use super::queue::SpanQueue;
use super::span::{MAX_LINKS, Span, known_method};
use crate::config::{Live, TracesConfig};
use crate::observe::metrics::Metrics;
use crate::process::connector::TlsError;
use crate::process::tasks::Tasks;

/// Tracer of requests. Empty if tracing is off. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    tracer: SdkTracer,
    /// URL scheme of the public port.
    scheme: &'static str,
    export: Tasks,
    /// Number of finished spans that are not delivered yet.
    waiting: Arc<AtomicUsize>,
}

impl Tracer {
    /// Creates a tracer from the configuration, with a task that exports its spans.
    pub fn start(live: &Live, version: &'static str, metrics: &Arc<Metrics>) -> Result<Self, TlsError> {
        let config = live.load();
        let traces = &config.traces;
        let Some(target) = traces.target.clone() else { return Ok(Self::default()) };
        let (resource, export) = (resource(traces, version), Tasks::new());
        let (queue, queued) = SpanQueue::new(traces.queue_spans, Arc::clone(metrics));
        let waiting = Arc::clone(&queued.waiting);
        let exporter = Exporter::new(live.clone(), target, &resource, (queued, export.clone()))?;
        export.spawn(exporter.run(Arc::clone(metrics)));
        // Every option is set here, so the SDK reads none from environment variables.
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

    /// Begins the span of a request, in the caller's trace if there is one. `route` returns the pattern of its path.
    pub fn request(&self, head: &Parts, route: impl FnOnce() -> Option<&'static str>) -> Span {
        let Some(on) = &self.0 else { return Span::default() };
        // The pattern is computed only if tracing is on.
        let route = route();
        // The caller's sampling decision holds for this span, too, since the sampler follows the parent.
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

    /// Delivers finished spans, within `timeout`, and returns the number of lost ones.
    pub async fn close(&self, timeout: Duration) -> usize {
        let Some(on) = &self.0 else { return 0 };
        // The exporter delivers the rest of the queue after the stop, and the join waits for that.
        on.export.stop();
        on.export.join(timeout).await;
        on.waiting.load(Ordering::Relaxed)
    }
}

fn resource(traces: &TracesConfig, version: &'static str) -> Resource {
    let said = traces.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // Configured attributes come last, so they override the known ones.
    let known = [KeyValue::new("service.version", version), KeyValue::new("telemetry.sdk.language", "rust")];
    Resource::builder_empty().with_attributes(known.into_iter().chain(said)).build()
}

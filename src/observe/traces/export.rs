//! Export of finished spans: batched, encoded, posted as OTLP over HTTP, and retried for a while.
//!
//! One task does all of it, so a collector that is down or slow costs requests nothing and only fills the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::queue::FinishedSpans;
use crate::config::Live;
use crate::observe::metrics::{Metrics, SpanResult};
use crate::process::connector::{Connecting, TimedConnector, TlsError};
use crate::process::errors::cause_of;
use crate::process::tasks::Tasks;

/// Largest number of spans in one delivery.
const MOST_SPANS: usize = 512;
/// Attempts to deliver the same spans before they are given up.
const MOST_TRIES: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Limit on a response body, of which only the count of rejected spans is used.
const MOST_ANSWER_BYTES: usize = 64 * 1024;
/// Time that an unused connection to the collector is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Exporter of finished spans.
pub(super) struct Exporter {
    client: legacy::Client<TimedConnector, Full<Bytes>>,
    connector: TimedConnector,
    live: Live,
    target: Uri,
    resource: ResourceAttributesWithSchema,
    finished: Receiver<SpanData>,
    waiting: Arc<AtomicUsize>,
    tasks: Tasks,
    /// True if the last delivery succeeded. Each change is logged once.
    is_up: bool,
}

/// Reason why a delivery failed.
struct DeliveryError {
    cause: String,
    /// Delay requested by the collector before a retry, zero if none; `None` if a retry is useless.
    again: Option<Duration>,
}

impl Exporter {
    /// Creates an exporter of queued spans to `target`, which runs until `tasks` are told to stop.
    pub(super) fn new(
        live: Live,
        target: Uri,
        resource: &Resource,
        (queued, tasks): (FinishedSpans, Tasks),
    ) -> Result<Self, TlsError> {
        let FinishedSpans { finished, waiting } = queued;
        let config = live.load();
        let connector = TimedConnector::new(Connecting {
            limit: config.traces.timeout,
            limit_key: "traces.timeout",
            ca_file: config.traces.ca_file.as_deref(),
            ca_key: "traces.ca_file",
            proxies: &config.traces.proxies,
            identity: None,
        })?;
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            // One task posts one batch at a time, so one idle connection is enough.
            .pool_max_idle_per_host(1)
            .build(connector.clone());
        Ok(Self { client, connector, live, target, resource: resource.into(), finished, waiting, tasks, is_up: true })
    }

    /// Delivers spans until the tasks are told to stop, and then the remaining ones.
    pub(super) async fn run(mut self, metrics: Arc<Metrics>) {
        loop {
            let batch = self.gather().await;
            // An empty batch occurs only after the stop.
            if batch.is_empty() {
                return;
            }
            let spans = batch.len();
            // All attempts share one encoded body.
            let body = self.encode(batch);
            let result = self.deliver(&body).await;
            self.settle(&metrics, spans, &result);
        }
    }

    /// Returns the next spans to deliver; none once the queue is empty at shutdown.
    async fn gather(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        tokio::select! {
            // A cancelled `fill` loses no spans: it has put them into the batch already.
            () = fill(&mut self.finished, &mut batch, self.live.load().traces.send_every) => {}
            () = self.tasks.stopped() => {}
        }
        // After the stop, the queue may still hold spans for several batches.
        while batch.len() < MOST_SPANS
            && let Ok(span) = self.finished.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    fn encode(&self, batch: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// Posts a batch until it succeeds or a retry is useless.
    async fn deliver(&mut self, body: &Bytes) -> Result<usize, DeliveryError> {
        // The interval of deliveries is also the first wait before a retry.
        let send_every = self.live.load().traces.send_every;
        let mut tries = 1;
        loop {
            let error = match self.post(body).await {
                // During a shutdown there is no time for retries.
                Err(error) if tries < MOST_TRIES && error.again.is_some() && !self.tasks.is_stopping() => error,
                result => return result,
            };
            self.note_state(Some(&error.cause));
            // The wait doubles with each attempt, or is as long as the collector requests, up to the maximum.
            let pause = (send_every * 2_u32.pow(tries - 1)).max(error.again.unwrap_or_default());
            tokio::select! {
                () = sleep(pause.min(LONGEST_PAUSE)) => {}
                // A stop ends the wait. The last attempt follows at once.
                () = self.tasks.stopped() => {}
            }
            tries += 1;
        }
    }

    /// Posts a batch once, and returns the number of spans that the collector rejected.
    async fn post(&self, body: &Bytes) -> Result<usize, DeliveryError> {
        // The timeout is live, so each attempt reads it again.
        let limit = self.live.load().traces.timeout;
        match timeout(limit, self.exchange(body.clone())).await {
            Ok(result) => result,
            Err(_) => Err(DeliveryError::passing("it did not answer within traces.timeout")),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<usize, DeliveryError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers();
        self.connector.authorize(&self.target, request.headers_mut());
        let response = self.client.request(request).await.map_err(|error| DeliveryError::passing(cause_of(&error)))?;
        if let Some(refusal) = self.connector.proxy_refusal(&self.target, response.status()) {
            return Err(DeliveryError::passing(refusal.to_string()));
        }
        let (head, body) = response.into_parts();
        // The body is read after an error, too, so the connection can be reused.
        let body = Limited::new(body, MOST_ANSWER_BYTES).collect().await;
        if head.status.is_success() {
            // If the response cannot be decoded, the spans count as accepted.
            let said = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
            let refused = said.and_then(|said| said.partial_success).map_or(0, |partial| partial.rejected_spans);
            return Ok(usize::try_from(refused).unwrap_or(0));
        }
        Err(DeliveryError::of_status(head.status, &head.headers))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.live.load().traces.headers.clone().unwrap_or_default();
        // These two come last, so configured headers cannot replace them.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = HeaderValue::from_static(concat!("vecho/", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent);
        headers
    }

    /// Counts the outcome of `spans`, and logs a change of state.
    fn settle(&mut self, metrics: &Metrics, spans: usize, result: &Result<usize, DeliveryError>) {
        let failed = result.as_ref().map_or(spans, |refused| (*refused).min(spans));
        metrics.traces.spans(SpanResult::Exported, spans - failed);
        metrics.traces.spans(SpanResult::Failed, failed);
        // At shutdown, lost spans are reported as still waiting.
        if result.is_ok() || !self.tasks.is_stopping() {
            self.waiting.fetch_sub(spans, Ordering::Relaxed);
        }
        match result {
            Ok(refused @ 1..) => self.note_state(Some(&format!("it refused {refused} of {spans} spans"))),
            Ok(0) => self.note_state(None),
            Err(error) => self.note_state(Some(&error.cause)),
        }
    }

    fn note_state(&mut self, error: Option<&str>) {
        let was_up = std::mem::replace(&mut self.is_up, error.is_none());
        match error {
            Some(cause) if was_up => {
                let host = self.target.authority().map_or("", |authority| authority.as_str());
                tracing::warn!(
                    collector = host,
                    cause,
                    "cannot deliver traces to the collector; requests are not delayed"
                );
            }
            None if !was_up => tracing::info!("traces are delivered to the collector again"),
            _ => {}
        }
    }
}

/// Waits for a first span and then for more, until the batch is full or the first has waited for `send_every`.
async fn fill(finished: &mut Receiver<SpanData>, batch: &mut Vec<SpanData>, send_every: Duration) {
    if finished.recv_many(batch, MOST_SPANS).await == 0 {
        // No sender is left, so no span will ever arrive.
        std::future::pending::<()>().await;
    }
    let until = Instant::now() + send_every;
    while batch.len() < MOST_SPANS {
        let room = MOST_SPANS - batch.len();
        match timeout_at(until, finished.recv_many(batch, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

impl DeliveryError {
    fn passing(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), again: Some(Duration::ZERO) }
    }

    /// Classifies a status. OTLP lists the statuses that permit a retry; after any other a retry is useless.
    fn of_status(status: StatusCode, headers: &HeaderMap) -> Self {
        let may_try_again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        let said = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let again = may_try_again.then(|| said.map_or(Duration::ZERO, Duration::from_secs));
        Self { cause: format!("it answers {status}"), again }
    }
}

//! `upstream`: a stand-in for the embeddings service. It sends correct vectors after a fixed delay and counts its
//! calls.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::oneshot;
use vecho::process::tasks::Tasks;

use super::Fault;
use crate::Outcome;
use crate::vectors::{self, DEFAULT_DIMENSION, Grid};

/// Calls and inputs since the last reset.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    inputs: AtomicU64,
}

#[derive(Clone)]
struct Service {
    counts: Arc<Counts>,
    delay: Option<DelayLine>,
}

/// The part of a request that determines the response.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    input: Input<'a>,
    model: Cow<'a, str>,
    dimensions: Option<usize>,
    encoding_format: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Many(#[serde(borrow)] Vec<Cow<'a, str>>),
}

/// An upstream on the thread of the load generator. So both can poll instead of sleeping, and no server pays for waking
/// them. Stops when dropped.
pub(crate) struct Upstream {
    /// Its address.
    pub(crate) public: SocketAddr,
    tasks: Tasks,
}

impl Upstream {
    /// Starts one on the current runtime. Each call is answered `delay_ms` after it was read.
    pub(crate) async fn start(delay_ms: u64) -> Outcome<Self> {
        let (service, tasks) = (Service::new(delay_ms), Tasks::new());
        let public = super::serve_until_stop(move |request| service.clone().answer(request), &tasks).await?;
        Ok(Self { public, tasks })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Serves embeddings in a process of its own. Each call is answered `delay_ms` after it was read.
pub(super) async fn serve(delay_ms: u64) -> Outcome<()> {
    let service = Service::new(delay_ms);
    super::serve(move |request| service.clone().answer(request)).await
}

impl Service {
    fn new(delay_ms: u64) -> Self {
        let delay = (delay_ms > 0).then(|| DelayLine::start(Duration::from_millis(delay_ms)));
        Self { counts: Arc::default(), delay }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Fault> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer = match (&head.method, head.uri.path()) {
            (&Method::POST, "/v1/embeddings") => self.embed(&body).await?,
            (&Method::GET, "/count") => self.counts.json(),
            (&Method::POST, "/reset") => self.counts.reset(),
            _ => return Ok(empty(StatusCode::NOT_FOUND)),
        };
        let mut response = Response::new(Full::new(Bytes::from(answer)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn embed(&self, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let asked: Asked<'_> = serde_json::from_slice(body)?;
        let texts = asked.texts();
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.counts.inputs.fetch_add(texts.len() as u64, Ordering::Relaxed);
        let due = self.delay.as_ref().map(DelayLine::wait);
        let answer = asked.answer(texts)?;
        if let Some(due) = due {
            due.await?;
        }
        Ok(answer)
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

impl Asked<'_> {
    fn texts(&self) -> &[Cow<'_, str>] {
        match &self.input {
            Input::One(text) => std::slice::from_ref(text),
            Input::Many(texts) => texts,
        }
    }

    fn answer(&self, texts: &[Cow<'_, str>]) -> Result<Vec<u8>, Fault> {
        let dimension = self.dimensions.unwrap_or(DEFAULT_DIMENSION);
        let (base64, grid) = (self.encoding_format.as_deref() == Some("base64"), Grid::of(&self.model));
        let mut json = Vec::with_capacity(texts.len() * (dimension * if base64 { 6 } else { 13 } + 60) + 200);
        json.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
        for (index, text) in texts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(json, "{comma}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":")?;
            push_vector(&vectors::le_bytes(text.as_bytes(), dimension, grid), base64, &mut json)?;
            json.push(b'}');
        }
        let tokens: usize = texts.iter().map(|text| text.len().div_ceil(4)).sum();
        write!(json, "],\"model\":{},", serde_json::to_string(&self.model)?)?;
        write!(json, "\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}")?;
        Ok(json)
    }
}

fn push_vector(le_bytes: &[u8], base64: bool, json: &mut Vec<u8>) -> Result<(), Fault> {
    if base64 {
        json.push(b'"');
        base64_simd::STANDARD.encode_append(le_bytes, json);
        json.push(b'"');
        return Ok(());
    }
    let components = le_bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    Ok(serde_json::to_writer(json, &components.collect::<Vec<f32>>())?)
}

impl Counts {
    fn json(&self) -> Vec<u8> {
        let (calls, inputs) = (self.calls.load(Ordering::Relaxed), self.inputs.load(Ordering::Relaxed));
        format!("{{\"calls\":{calls},\"inputs\":{inputs}}}").into_bytes()
    }

    fn reset(&self) -> Vec<u8> {
        self.calls.store(0, Ordering::Relaxed);
        self.inputs.store(0, Ordering::Relaxed);
        self.json()
    }
}

/// Delays every call by the same time, accurate to some microseconds.
///
/// The runtime's timer rounds up to whole milliseconds. With one call per millisecond, rounding would turn a small
/// delay in the proxy into either zero or a whole millisecond. The delay is the same for all calls, so a queue and one
/// thread suffice.
#[derive(Clone)]
struct DelayLine {
    delay: Duration,
    queue: mpsc::Sender<(Instant, oneshot::Sender<()>)>,
}

impl DelayLine {
    fn start(delay: Duration) -> Self {
        let (queue, waiting) = mpsc::channel::<(Instant, oneshot::Sender<()>)>();
        std::thread::spawn(move || {
            for (due, waiter) in waiting {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // The caller may have hung up.
                let _ = waiter.send(());
            }
        });
        Self { delay, queue }
    }

    fn wait(&self) -> oneshot::Receiver<()> {
        let (waiter, due) = oneshot::channel();
        self.queue.send((Instant::now() + self.delay, waiter)).expect("the delay line's thread must live");
        due
    }
}

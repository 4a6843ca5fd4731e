//! One call to the upstream: the connection pool, the credential that vecho holds, the deadlines of a call.

use std::error::Error;
use std::iter;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::headers::KEY_HEADERS;
use super::room::Share;
use super::{Failure, Reply, RouteKind, Terms, Why, classify_path};
use crate::config::{Config, KeyHeader, Live};
use crate::connector::{Connecting, TimedConnector, TlsError, cause_of};
use crate::traces::TraceContext;
use crate::wire::Encoding;

/// Any error of a body or a connection.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request body on its way up.
pub type ClientBody = UnsyncBoxBody<Bytes, BoxError>;

/// An upstream inside this process: path and body in, answer out.
pub type InProcess = Arc<dyn Fn(&str, &[u8]) -> Reply + Send + Sync>;

/// What a body on its way up fails with when its client sends no more of it in time.
#[derive(Debug, thiserror::Error)]
#[error("no more of the body arrived in time")]
pub struct BodyStalled;

/// A request that could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The upstream did not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Its answer did not begin in time.
    #[error("it did not begin to answer within limits.request_timeout")]
    Late,
    /// The body that was to be sent failed: the client's side of it.
    #[error("the request body ended early")]
    RequestBody,
    /// The client sent no more of it in time.
    #[error("no more of the request body arrived within limits.body_timeout")]
    RequestStalled,
    /// The body that was to be sent is larger than what is collected in one piece.
    #[error("the body is larger than {max_bytes} bytes")]
    TooLarge {
        /// What is allowed.
        max_bytes: usize,
    },
}

/// Makes calls. Cheap to clone by `Arc`.
pub struct Client {
    target: Target,
    live: Live,
}

enum Target {
    Http(Box<legacy::Client<TimedConnector, ClientBody>>),
    InProcess(InProcess),
}

impl Client {
    /// A client for the configured upstream.
    pub fn http(live: Live) -> Result<Self, TlsError> {
        let config = live.load();
        let upstream = &config.upstream;
        let connector = TimedConnector::new(Connecting {
            limit: upstream.connect_timeout,
            limit_key: "upstream.connect_timeout",
            ca_file: upstream.ca_file.as_deref(),
            ca_key: "upstream.ca_file",
        })?;
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(upstream.idle_timeout)
            .pool_max_idle_per_host(upstream.max_concurrent.max(32))
            .build(connector);
        Ok(Self { target: Target::Http(Box::new(client)), live })
    }

    /// A client whose upstream is a function.
    pub fn in_process(embedder: InProcess, live: Live) -> Self {
        Self { target: Target::InProcess(embedder), live }
    }

    /// Posts a JSON body and reads the whole answer within the configured limits. Who asked may be gone by then: what
    /// is paid for is read to its end, if there is room for it. The call goes up under its own place in its trace.
    pub(super) async fn post(
        &self,
        terms: &Terms,
        body: Bytes,
        call: &TraceContext,
        share: &Share,
    ) -> Result<Reply, Failure> {
        let client = match &self.target {
            Target::Http(client) => client,
            Target::InProcess(embedder) => return post_in_process(embedder, terms, body).await,
        };
        let config = self.live.load();
        let mut request = Request::new(Full::new(body).map_err(BoxError::from).boxed_unsync());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = terms.uri.clone();
        *request.headers_mut() = terms.headers.clone();
        call.write(request.headers_mut());
        authorize(&config, request.headers_mut());
        let until = Instant::now() + config.upstream.call_timeout;
        let headers_until = config.upstream.headers_timeout.map_or(until, |limit| until.min(Instant::now() + limit));
        let response = timeout_at(headers_until, client.request(request))
            .await
            .map_err(|_| Failure::unavailable(Why::Timeout, "the upstream sent no answer in time"))?
            .map_err(|error| failure_of(&error))?;
        timeout_at(until, read_reply(response, config.upstream.max_answer_bytes, terms.encoding, share))
            .await
            .map_err(|_| Failure::unavailable(Why::Timeout, "the upstream's answer did not end in time"))?
    }

    /// Forwards a request as it is, but for the credential that vecho holds, and streams the answer.
    pub async fn forward(&self, mut request: Request<ClientBody>) -> Result<Response<ForwardedBody>, OpenError> {
        let client = match &self.target {
            Target::Http(client) => client,
            Target::InProcess(embedder) => {
                return forward_in_process(embedder, request, self.live.load().limits.max_body_bytes).await;
            }
        };
        authorize(&self.live.load(), request.headers_mut());
        let response = client.request(request).await.map_err(|error| open_error(&error))?;
        Ok(response.map(ForwardedBody::Streamed))
    }
}

/// The body of a forwarded answer.
pub enum ForwardedBody {
    /// As it comes.
    Streamed(Incoming),
    /// At hand already.
    Whole(Bytes),
}

/// Embedding is work for a processor, so not for the threads that serve connections.
async fn post_in_process(embedder: &InProcess, terms: &Terms, body: Bytes) -> Result<Reply, Failure> {
    let (embedder, path) = (Arc::clone(embedder), terms.uri.path().to_owned());
    tokio::task::spawn_blocking(move || embedder(&path, &body))
        .await
        .map_err(|_| Failure::unavailable(Why::Stopping, "the built-in embedder gave no answer"))
}

async fn forward_in_process(
    embedder: &InProcess,
    request: Request<ClientBody>,
    max_bytes: usize,
) -> Result<Response<ForwardedBody>, OpenError> {
    let (parts, body) = request.into_parts();
    // Only embeddings are answered from what the body says.
    let body = match classify_path(parts.uri.path()) {
        RouteKind::Other => Bytes::new(),
        RouteKind::Embeddings | RouteKind::Deployment => collect_request(body, max_bytes).await?,
    };
    let reply = embedder(parts.uri.path(), &body);
    let mut response = Response::new(ForwardedBody::Whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

async fn collect_request(mut body: ClientBody, max_bytes: usize) -> Result<Bytes, OpenError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|error| body_error(&*error))?.into_data() {
            if whole.len() + piece.len() > max_bytes {
                return Err(OpenError::TooLarge { max_bytes });
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(whole.freeze())
}

/// Puts the key that vecho holds, if any, in place of whatever credential came along.
fn authorize(config: &Config, headers: &mut HeaderMap) {
    let Some(key) = &config.upstream.api_key else {
        return;
    };
    for name in KEY_HEADERS.iter().chain(&config.auth.credential_headers) {
        headers.remove(name);
    }
    let (name, text) = match config.upstream.api_key_header {
        KeyHeader::Authorization => ("authorization", format!("Bearer {}", key.reveal())),
        KeyHeader::ApiKey => ("api-key", key.reveal().to_owned()),
    };
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

async fn read_reply(
    response: Response<Incoming>,
    max_bytes: usize,
    asked: Encoding,
    share: &Share,
) -> Result<Reply, Failure> {
    let (parts, body) = response.into_parts();
    let (mut body, mut pieces, mut bytes) = (Limited::new(body, max_bytes), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|error| body_failure(&*error, asked))?.into_data() {
            bytes += piece.len();
            if !share.cover(memory_bytes(bytes, asked)).await {
                return Err(Failure::no_room(asked));
            }
            pieces.push(piece);
        }
    }
    Ok(Reply { status: parts.status, headers: parts.headers, body: join(pieces, bytes) })
}

fn body_failure(error: &(dyn Error + Send + Sync + 'static), asked: Encoding) -> Failure {
    if error.is::<LengthLimitError>() {
        Failure::too_large(asked)
    } else {
        Failure::unavailable(Why::Cut, "the upstream's answer was cut off")
    }
}

/// What an answer of that many bytes takes with its vectors: three quarters of it again where it is base64, a quarter
/// or less where it is numbers.
const fn memory_bytes(wire_bytes: usize, asked: Encoding) -> u64 {
    let vectors = match asked {
        Encoding::Base64 => wire_bytes / 4 * 3,
        Encoding::Float => wire_bytes / 4,
    };
    (wire_bytes + vectors) as u64
}

fn join(mut pieces: Vec<Bytes>, bytes: usize) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(bytes);
    // Each goes as soon as it is copied.
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

fn failure_of(error: &legacy::Error) -> Failure {
    let why = if error.is_connect() { Why::Connect } else { Why::Dropped };
    Failure::unavailable(why, cause_of(error))
}

fn open_error(error: &legacy::Error) -> OpenError {
    let from_body =
        error.source().and_then(|source| source.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_user);
    if from_body { body_error(error) } else { OpenError::Unavailable(cause_of(error)) }
}

/// Why the body that was to be sent failed: its client fell silent, or left.
fn body_error(error: &(dyn Error + 'static)) -> OpenError {
    let mut causes = iter::successors(Some(error), |error| (**error).source());
    if causes.any(<dyn Error>::is::<BodyStalled>) { OpenError::RequestStalled } else { OpenError::RequestBody }
}

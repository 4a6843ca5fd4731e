//! An upstream inside this process.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;

use super::body::{ClientBody, ForwardedBody};
use super::connections::{ForwardError, body_error};
use super::{Failure, LaneProperties, RouteKind, UnavailableReason, UpstreamReply, classify_path};

/// Maximum size of a request body that is collected. Bodies that vecho can parse are in memory already.
const MAX_COLLECTED_BYTES: usize = 1 << 20;

/// An upstream inside this process: takes a request, returns an answer.
pub type InProcess = Arc<dyn Fn(&InProcessRequest<'_>) -> UpstreamReply + Send + Sync>;

/// A request to an upstream inside this process.
pub struct InProcessRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// Runs an embeddings call on the blocking pool, because embedding is CPU-bound.
pub(super) async fn post(
    embedder: &InProcess,
    properties: &LaneProperties,
    body: Bytes,
) -> Result<UpstreamReply, Failure> {
    // The blocking task may outlive this future, so it owns its arguments.
    let (embedder, path, headers) =
        (Arc::clone(embedder), properties.uri.path().to_owned(), properties.headers.clone());
    let embed =
        move || embedder(&InProcessRequest { method: &Method::POST, path: &path, headers: &headers, body: &body });
    tokio::task::spawn_blocking(embed)
        .await
        .map_err(|_| Failure::unavailable(UnavailableReason::Stopping, "the built-in embedder gave no answer"))
}

/// Answers a request that passes through.
pub(super) async fn forward(
    embedder: &InProcess,
    request: Request<ClientBody>,
    max_bytes: usize,
) -> Result<Response<ForwardedBody>, ForwardError> {
    let (parts, body) = request.into_parts();
    // Only embeddings requests are answered from their body.
    let body = match (classify_path(parts.uri.path()), body.bytes()) {
        (RouteKind::Other, _) => Bytes::new(),
        (RouteKind::Embeddings | RouteKind::Deployment, Some(whole)) => whole.clone(),
        (RouteKind::Embeddings | RouteKind::Deployment, None) => {
            collect_request(body, max_bytes.min(MAX_COLLECTED_BYTES)).await?
        }
    };
    let embedder = Arc::clone(embedder);
    let embed = move || {
        let (path, headers) = (parts.uri.path(), &parts.headers);
        embedder(&InProcessRequest { method: &parts.method, path, headers, body: &body })
    };
    let reply = tokio::task::spawn_blocking(embed)
        .await
        .map_err(|error| ForwardError::Unanswered { upstream: "mock:".to_owned(), cause: error.to_string() })?;
    let mut response = Response::new(ForwardedBody::Whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

async fn collect_request(mut body: ClientBody, max_bytes: usize) -> Result<Bytes, ForwardError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // A frame without data holds trailers, which the embedder does not read.
        if let Ok(piece) = frame.map_err(|error| body_error(&*error))?.into_data() {
            // The limit is checked before the copy, so memory never exceeds it.
            if whole.len() + piece.len() > max_bytes {
                return Err(ForwardError::TooLarge { max_bytes });
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(whole.freeze())
}

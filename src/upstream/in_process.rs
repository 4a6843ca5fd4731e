//! An upstream inside this process.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt;

use super::body::ClientBody;
use super::client::ForwardedBody;
use super::connections::{OpenError, body_error};
use super::{Failure, Reply, RouteKind, Terms, Why, classify_path};

/// An upstream inside this process: path and body in, answer out.
pub type InProcess = Arc<dyn Fn(&str, &[u8]) -> Reply + Send + Sync>;

/// Embedding is work for a processor, so not for the threads that serve connections.
pub(super) async fn post(embedder: &InProcess, terms: &Terms, body: Bytes) -> Result<Reply, Failure> {
    let (embedder, path) = (Arc::clone(embedder), terms.uri.path().to_owned());
    tokio::task::spawn_blocking(move || embedder(&path, &body))
        .await
        .map_err(|_| Failure::unavailable(Why::Stopping, "the built-in embedder gave no answer"))
}

/// Answers a request that passes through.
pub(super) async fn forward(
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

//! Export and import of the cache as a file.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt, BodyStream};
use tokio::time::timeout;

use super::AdminContext;
use super::reply::{self, AdminResponse, Refusal};
use crate::cache::transfer;
use crate::process::errors::BoxError;

/// Path for exports.
pub const EXPORT_PATH: &str = "/api/performance/cache/export";
/// Path for imports.
pub const IMPORT_PATH: &str = "/api/performance/cache/import";

const CONTENT_TYPE: &str = "application/octet-stream";

/// Longest pause between two pieces of an incoming file. The sender may itself read from a slow pipe.
const PAUSE: Duration = Duration::from_mins(1);

/// `GET /api/performance/cache/export`
pub(super) async fn export(context: &AdminContext) -> AdminResponse {
    let file = transfer::export(Arc::clone(context.caches.tiers()), context.clock.now_ms()).await;
    reply::streamed(CONTENT_TYPE, file)
}

/// Returns the headers of an export without the file, so a client can check its access with `HEAD`.
pub(super) fn no_export() -> AdminResponse {
    reply::bytes(StatusCode::OK, CONTENT_TYPE, "")
}

/// `POST /api/performance/cache/import`: the body is the file.
pub(super) async fn import<B>(context: &AdminContext, body: B) -> Result<AdminResponse, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = Box::pin(BodyStream::new(body.map_err(Into::<BoxError>::into)));
    let pieces = stream::unfold(body, |mut body| async {
        let next = timeout(PAUSE, body.next()).await.unwrap_or_else(|late| Some(Err(late.into())))?;
        // A frame of trailers holds no data and becomes an empty piece.
        Some((next.map(|frame| frame.into_data().unwrap_or_default()), body))
    });
    let codec = context.live.load().cache.codec;
    let imported = transfer::import(context.caches.tiers(), &context.clock, codec, Box::pin(pieces)).await;
    // The lower tiers may have closed before the last records arrived.
    if context.lifecycle.is_draining() {
        return Err(Refusal::BadBody("the process is stopping; repeat this after its restart".to_owned()));
    }
    let imported = imported.map_err(|error| Refusal::BadBody(error.to_string()))?;
    Ok(reply::ok(&imported))
}

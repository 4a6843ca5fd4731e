//! Export and import of the cache as a file.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt, BodyStream};
use tokio::time::timeout;

use super::reply::{self, AdminResponse, Refusal};
use super::{AdminContext, body};
use crate::cache::purges::JobStart;
use crate::cache::transfer::{self, ImportRules};
use crate::process::errors::BoxError;

/// Path for exports.
pub const EXPORT_PATH: &str = "/api/performance/cache/export";
/// Path for imports.
pub(super) const IMPORT_PATH: &str = "/api/performance/cache/import";

/// Returns the path for an import of the vectors of a job that began at this time.
pub fn import_path(job_began_ms: Option<u64>) -> String {
    job_began_ms.map_or_else(|| IMPORT_PATH.to_owned(), |ms| format!("{IMPORT_PATH}?{JOB_BEGAN}={ms}"))
}

/// Query parameter of imports: the start of the job that made the vectors.
const JOB_BEGAN: &str = "job_began_ms";
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

/// `POST /api/performance/cache/import?job_began_ms=`: the body is the file. Its vectors may be those of a job; then the
/// purges since the start of the job cover them.
pub(super) async fn import<B>(context: &AdminContext, head: &request::Parts, body: B) -> Result<AdminResponse, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let config = context.live.load();
    let [began] = body::parameters(head.uri.query(), [JOB_BEGAN])?;
    let job = began.map(|began| began.parse().map_err(|_| not_a_time(&began))).transpose()?;
    let job = job.map(|began_ms| JobStart { began_ms, remembered_ms: config.cache.forgotten_for_ms() });
    let rules = ImportRules { codec: config.cache.codec, job };
    let body = Box::pin(BodyStream::new(body.map_err(Into::<BoxError>::into)));
    let pieces = stream::unfold(body, |mut body| async {
        let next = timeout(PAUSE, body.next()).await.unwrap_or_else(|late| Some(Err(late.into())))?;
        // A frame of trailers holds no data and becomes an empty piece.
        Some((next.map(|frame| frame.into_data().unwrap_or_default()), body))
    });
    let imported = transfer::import(context.caches.tiers(), &context.clock, rules, Box::pin(pieces)).await;
    // The lower tiers may have closed before the last records arrived.
    if context.lifecycle.is_draining() {
        return Err(Refusal::BadBody("the process is stopping; repeat this after its restart".to_owned()));
    }
    let imported = imported.map_err(|error| Refusal::BadBody(error.to_string()))?;
    Ok(reply::ok(&imported))
}

fn not_a_time(value: &str) -> Refusal {
    let message = format!("`{value}` is no time in milliseconds since the Unix epoch.");
    Refusal::BadParameter { param: JOB_BEGAN.to_owned(), message }
}

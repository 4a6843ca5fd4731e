//! Interim answers (status 1xx) that precede an answer: a few are skipped, a flood is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tokio::sync::Notify;

use super::body::ClientBody;
use super::pool::HttpClient;
use super::send_error::{MAX_INTERIM, SendError};

/// Count of interim answers to one request.
#[derive(Default)]
struct Interim {
    count: AtomicU32,
    too_many: Notify,
}

/// Sends a request. Its connection is closed if the answer does not begin after a bounded number of interim answers.
pub(super) async fn send(
    client: &HttpClient,
    mut request: Request<ClientBody>,
) -> Result<Response<Incoming>, SendError> {
    let interim = Arc::<Interim>::default();
    let counted = Arc::clone(&interim);
    // hyper skips interim answers without a limit. Its callback can only count them, so the flood ends the wait below.
    on_informational(&mut request, move |_| {
        if counted.count.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIM {
            // `notify_one` stores a permit, so the signal is kept until the select is polled.
            counted.too_many.notify_one();
        }
    });
    tokio::select! {
        // If both are ready, the answer followed a flood, which is an error in any case.
        biased;
        () = interim.too_many.notified() => Err(SendError::InterimFlood),
        response = client.request(request) => Ok(response?),
    }
}

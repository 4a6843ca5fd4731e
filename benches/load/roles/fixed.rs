//! `static`: reads the request and always answers the same bytes. No HTTP server can do less.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use vecho::process::tasks::Tasks;
use vecho::process::workers::Workers;

use super::{Fault, drain};
use crate::Outcome;

/// Serves the content of `file` with `workers` threads. Connections are distributed as in vecho, because threads that
/// accept by themselves may get unequal numbers of them. The main thread is the first worker and accepts.
pub(super) async fn serve(file: &str, workers: usize) -> Outcome<()> {
    let bytes = Bytes::from(std::fs::read(file)?);
    let length = HeaderValue::from(bytes.len());
    let (workers, tasks) = (Workers::start(workers)?, Tasks::new());
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    super::announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let (assignment, bytes, length) = (workers.assign(), bytes.clone(), length.clone());
        let answer = move |request| answer(request, bytes.clone(), length.clone());
        if assignment.is_here() {
            tasks.spawn(async move {
                super::connection(stream, answer).await;
                drop(assignment);
            });
            continue;
        }
        // A socket belongs to the runtime that polls it, so the other runtime registers it anew.
        let (runtime, socket) = (assignment.runtime().clone(), stream.into_std()?);
        tasks.spawn_on(&runtime, async move {
            if let Ok(stream) = TcpStream::from_std(socket) {
                super::connection(stream, answer).await;
            }
            drop(assignment);
        });
    }
}

async fn answer(request: Request<Incoming>, bytes: Bytes, length: HeaderValue) -> Result<Response<Full<Bytes>>, Fault> {
    drain(request.into_body()).await?;
    let mut response = Response::new(Full::new(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    Ok(response)
}

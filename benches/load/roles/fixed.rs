//! `static`: reads the request and always answers the same bytes. No HTTP server can do less.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use vecho::process::tasks::Tasks;

use super::{Fault, drain};
use crate::Outcome;

/// Serves the content of `file` on `workers` threads. Each has a runtime of its own and accepts from the same socket.
pub(super) fn serve(file: &str, workers: usize) -> Outcome<()> {
    let bytes = Bytes::from(std::fs::read(file)?);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let threads: Vec<_> = (0..workers)
        .map(|_| Ok((listener.try_clone()?, bytes.clone())))
        .map(|worker: Outcome<_>| worker.map(|(listener, bytes)| thread::spawn(move || work(listener, bytes))))
        .collect::<Outcome<_>>()?;
    super::announce(address);
    threads.into_iter().try_for_each(|thread| thread.join().expect("a worker must not panic"))
}

fn work(listener: TcpListener, bytes: Bytes) -> Outcome<()> {
    let length = HeaderValue::from(bytes.len());
    super::runtime()?.block_on(async {
        let (listener, tasks) = (tokio::net::TcpListener::from_std(listener)?, Tasks::new());
        super::accept(listener, move |request| answer(request, bytes.clone(), length.clone()), &tasks);
        tasks.stopped().await;
        Ok(())
    })
}

async fn answer(request: Request<Incoming>, bytes: Bytes, length: HeaderValue) -> Result<Response<Full<Bytes>>, Fault> {
    drain(request.into_body()).await?;
    let mut response = Response::new(Full::new(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    Ok(response)
}

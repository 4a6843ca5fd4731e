//! `static`: reads the request and always answers the same bytes. No HTTP server can do less.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{Fault, drain};
use crate::Outcome;

/// Serves the content of `file`.
pub(super) async fn serve(file: &str) -> Outcome<()> {
    let bytes = Bytes::from(std::fs::read(file)?);
    let length = HeaderValue::from(bytes.len());
    super::serve(move |request: Request<Incoming>| answer(request, bytes.clone(), length.clone())).await
}

async fn answer(request: Request<Incoming>, bytes: Bytes, length: HeaderValue) -> Result<Response<Full<Bytes>>, Fault> {
    drain(request.into_body()).await?;
    let mut response = Response::new(Full::new(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    Ok(response)
}

//! `thin`: hyper's server and hyper-util's client with nothing between them; the minimum cost of a proxy.

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::Fault;
use crate::Outcome;

/// Forwards everything to the server at `address`.
pub(super) async fn serve(address: &str) -> Outcome<()> {
    let authority: Authority = address.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    super::serve(move |request: Request<Incoming>| forward(client.clone(), authority.clone(), request)).await
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Fault> {
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(target)?;
    Ok(client.request(request).await?)
}

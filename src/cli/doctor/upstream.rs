//! The upstream: name resolution, TCP, TLS, and one request without a body or a credential. With a forward proxy, the
//! first two lead to the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::DATE;
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service as _;

use super::check::{CheckResult, STEP_TIMEOUT};
use crate::cli::client::{RequestBody, whole};
use crate::config::{Config, UpstreamTarget};
use crate::process::certificate::ReloadableCertificate;
use crate::process::connector::{Connecting, ForwardProxy, ProxyError, TimedConnector};
use crate::process::errors::{cause_of, root_cause_of};
use crate::upstream::port_of;

const CHECK: &str = "upstream";

/// Result for the upstream, with the facts that other checks need.
pub(super) struct UpstreamReport {
    pub(super) result: CheckResult,
    /// Addresses of the upstream; none if a proxy resolves its name.
    pub(super) addresses: Vec<SocketAddr>,
    /// Seconds by which this machine's clock is ahead of the upstream's, if it tells the time.
    pub(super) clock_ahead_s: Option<i64>,
}

/// A step that failed, and the remedy.
pub(super) struct FailedStep {
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Checks each step of a call, without its cost.
pub(super) async fn check(config: &Config) -> UpstreamReport {
    let mut report = UpstreamReport {
        result: CheckResult::ok(CHECK, "the built-in mock needs no network"),
        addresses: Vec::new(),
        clock_ahead_s: None,
    };
    let UpstreamTarget::Http(uri) = &config.upstream.target else { return report };
    report.result = match steps(config, uri, &mut report).await {
        Ok(result) => result,
        Err(FailedStep { message, remedy }) => CheckResult::fault(CHECK, format!("{uri}: {message}"), remedy),
    };
    report
}

async fn steps(config: &Config, uri: &Uri, report: &mut UpstreamReport) -> Result<CheckResult, FailedStep> {
    let begun = Instant::now();
    let proxy = config.upstream.egress.proxies.proxy_for(uri);
    let way = if let Some(proxy) = proxy {
        let address = connect(&resolve(&proxy.uri, &proxy.named_by).await?, &proxy.named_by).await?;
        format!("the proxy {proxy} at {address}")
    } else {
        report.addresses = resolve(uri, "upstream.url").await?;
        connect(&report.addresses, "upstream.url").await?.to_string()
    };
    if uri.scheme_str() == Some("https") {
        handshake(config, uri, proxy.map(AsRef::as_ref)).await?;
    }
    let connected_ms = begun.elapsed().as_millis();
    let (status, headers) = request(config, uri).await?;
    report.clock_ahead_s = clock_ahead_s(&headers);
    let joint = if proxy.is_some() { "through" } else { "to" };
    let certificate = if config.upstream.egress.identity.is_some() { ", with the client certificate" } else { "" };
    let message =
        format!("{uri}: connected {joint} {way} in {connected_ms} ms{certificate}; it answers (status {status})");
    if status >= 500 {
        let remedy = "look at the state of the service, and at any proxy in front of it";
        return Ok(CheckResult::warning(CHECK, message, remedy));
    }
    Ok(CheckResult::ok(CHECK, message))
}

/// Resolves the host of an address that `key` names.
async fn resolve(uri: &Uri, key: &str) -> Result<Vec<SocketAddr>, FailedStep> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let found = timeout(STEP_TIMEOUT, lookup_host((host, port_of(uri).unwrap_or(80)))).await;
    let cause = match found {
        Ok(Ok(found)) => return Ok(found.collect()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => late(),
    };
    let message = format!("DNS fails: {host} cannot be resolved: {cause}");
    Err(FailedStep { message, remedy: format!("correct the host in {key}, or the resolver of this machine") })
}

/// Connects to the first address that accepts, each within its own timeout.
async fn connect(addresses: &[SocketAddr], key: &str) -> Result<SocketAddr, FailedStep> {
    let mut message = "DNS fails: the name has no address".to_owned();
    for address in addresses {
        let cause = match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(*address),
            Ok(Err(error)) => error.to_string(),
            Err(_) => late(),
        };
        message = format!("TCP fails: {address}: {cause}");
    }
    let remedy = format!("start the service, correct the port in {key}, or let the firewall pass the connection");
    Err(FailedStep { message, remedy })
}

async fn handshake(config: &Config, uri: &Uri, proxy: Option<&ForwardProxy>) -> Result<(), FailedStep> {
    let Err(error) = connector(config)?.call(uri.clone()).await else { return Ok(()) };
    if let Some(refused) = error.downcast_ref::<ProxyError>() {
        return Err(refusal(refused, proxy));
    }
    let cause = root_cause_of(&*error);
    let remedy = if cause.contains("InvalidContentType") {
        "write http:// in upstream.url if the server has no TLS on this port"
    } else if cause.contains("CertificateRequired") || cause.contains("certificate required") {
        "name a client certificate in upstream.cert_file and upstream.key_file"
    } else if cause.contains("certificate") {
        "correct the host in upstream.url, or name the server's root certificate in upstream.ca_file"
    } else {
        "look for a proxy or a firewall that ends TLS connections"
    };
    Err(FailedStep { message: format!("TLS fails: {cause}"), remedy: remedy.to_owned() })
}

fn refusal(error: &ProxyError, proxy: Option<&ForwardProxy>) -> FailedStep {
    let key = proxy.map_or("upstream.proxy", |proxy| proxy.named_by.as_str());
    let remedy = format!("correct {key}, let the proxy pass the host, or add the host to NO_PROXY");
    FailedStep { message: error.to_string(), remedy }
}

/// Sends a request that no service bills: no body, no credential, and only the base path.
async fn request(config: &Config, uri: &Uri) -> Result<(u16, HeaderMap), FailedStep> {
    let mut head = Request::new(whole(""));
    *head.method_mut() = Method::HEAD;
    *head.uri_mut() = uri.clone();
    let answer = timeout(STEP_TIMEOUT, send(config, head)).await.unwrap_or_else(|_| Ok(Err(late())))?;
    answer.map(|answer| (answer.status().as_u16(), answer.headers().clone())).map_err(|cause| {
        let remedy = if cause.contains("CertificateRequired") {
            "name a client certificate in upstream.cert_file and upstream.key_file"
        } else {
            "look whether the server on this port speaks HTTP, and https:// if it wants TLS"
        };
        FailedStep { message: format!("HTTP fails: {cause}"), remedy: remedy.to_owned() }
    })
}

/// Sends a request over a connection of its own, as calls are sent. The inner error is that of the connection.
pub(super) async fn send(
    config: &Config,
    mut request: Request<RequestBody>,
) -> Result<Result<Response<Incoming>, String>, FailedStep> {
    let (connector, uri) = (connector(config)?, request.uri().clone());
    connector.authorize(&uri, request.headers_mut());
    let pool: Pool<_, RequestBody> = Pool::builder(TokioExecutor::new()).build(connector.clone());
    let answer = match pool.request(request).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(cause_of(&error))),
    };
    match connector.proxy_refusal(&uri, answer.status()) {
        Some(error) => Err(refusal(&error, config.upstream.egress.proxies.proxy_for(&uri).map(AsRef::as_ref))),
        None => Ok(Ok(answer)),
    }
}

fn connector(config: &Config) -> Result<TimedConnector, FailedStep> {
    let failed = |message: String| FailedStep { message, remedy: "correct the files of upstream".to_owned() };
    let files = config.upstream.egress.identity.clone();
    let identity = files.map(|files| ReloadableCertificate::load(files.cert_file, files.key_file)).transpose();
    let identity = identity.map_err(|error| failed(error.to_string()))?.map(Arc::new);
    let connecting = Connecting {
        limit: STEP_TIMEOUT,
        limit_key: "5 s",
        ca_file: config.upstream.ca_file.as_deref(),
        ca_key: "upstream.ca_file",
        proxies: &config.upstream.egress.proxies,
        identity: identity.as_ref(),
    };
    TimedConnector::new(connecting).map_err(|error| failed(error.to_string()))
}

/// Returns the difference between this machine's clock and the date of an answer.
fn clock_ahead_s(headers: &HeaderMap) -> Option<i64> {
    let theirs = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let seconds = |at: SystemTime| i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok();
    Some(seconds(SystemTime::now())? - seconds(theirs)?)
}

fn late() -> String {
    format!("no answer within {} s", STEP_TIMEOUT.as_secs())
}

//! The upstream: name resolution, TCP, TLS, and one request without a body or a credential.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use http::header::DATE;
use http::{HeaderMap, Method, Request, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service as _;

use super::check::{CheckResult, STEP_TIMEOUT};
use crate::cli::client::{RequestBody, whole};
use crate::config::{Config, UpstreamTarget};
use crate::process::connector::{Connecting, TimedConnector};
use crate::process::errors::{cause_of, root_cause_of};
use crate::upstream::port_of;

const CHECK: &str = "upstream";

/// Result for the upstream, with the facts that other checks need.
pub(super) struct UpstreamReport {
    pub(super) result: CheckResult,
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
    report.addresses = resolve(uri).await?;
    let address = connect(&report.addresses).await?;
    if uri.scheme_str() == Some("https") {
        handshake(config, uri).await?;
    }
    let connected_ms = begun.elapsed().as_millis();
    let (status, headers) = request(config, uri).await?;
    report.clock_ahead_s = clock_ahead_s(&headers);
    let message = format!("{uri}: connected to {address} in {connected_ms} ms; it answers (status {status})");
    if status >= 500 {
        let remedy = "look at the state of the service, and at any proxy in front of it";
        return Ok(CheckResult::warning(CHECK, message, remedy));
    }
    Ok(CheckResult::ok(CHECK, message))
}

async fn resolve(uri: &Uri) -> Result<Vec<SocketAddr>, FailedStep> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let found = timeout(STEP_TIMEOUT, lookup_host((host, port_of(uri).unwrap_or(80)))).await;
    let cause = match found {
        Ok(Ok(found)) => return Ok(found.collect()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => late(),
    };
    let message = format!("DNS fails: {host} cannot be resolved: {cause}");
    Err(FailedStep { message, remedy: "correct the host in upstream.url, or the resolver of this machine".to_owned() })
}

/// Connects to the first address that accepts, each within its own timeout.
async fn connect(addresses: &[SocketAddr]) -> Result<SocketAddr, FailedStep> {
    let mut message = "DNS fails: the name has no address".to_owned();
    for address in addresses {
        let cause = match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(*address),
            Ok(Err(error)) => error.to_string(),
            Err(_) => late(),
        };
        message = format!("TCP fails: {address}: {cause}");
    }
    let remedy = "start the service, correct the port in upstream.url, or let the firewall pass the connection";
    Err(FailedStep { message, remedy: remedy.to_owned() })
}

async fn handshake(config: &Config, uri: &Uri) -> Result<(), FailedStep> {
    let Err(error) = connector(config)?.call(uri.clone()).await else { return Ok(()) };
    let cause = root_cause_of(&*error);
    let remedy = if cause.contains("InvalidContentType") {
        "write http:// in upstream.url if the server has no TLS on this port"
    } else if cause.contains("certificate") {
        "correct the host in upstream.url, or name the server's root certificate in upstream.ca_file"
    } else {
        "look for a proxy or a firewall that ends TLS connections"
    };
    Err(FailedStep { message: format!("TLS fails: {cause}"), remedy: remedy.to_owned() })
}

/// Sends a request that no service bills: no body, no credential, and only the base path.
async fn request(config: &Config, uri: &Uri) -> Result<(u16, HeaderMap), FailedStep> {
    let mut head = Request::new(whole(""));
    *head.method_mut() = Method::HEAD;
    *head.uri_mut() = uri.clone();
    let cause = match timeout(STEP_TIMEOUT, pool(config)?.request(head)).await {
        Ok(Ok(answer)) => return Ok((answer.status().as_u16(), answer.headers().clone())),
        Ok(Err(error)) => cause_of(&error),
        Err(_) => late(),
    };
    let remedy = "look whether the server on this port speaks HTTP, and https:// if it wants TLS";
    Err(FailedStep { message: format!("HTTP fails: {cause}"), remedy: remedy.to_owned() })
}

/// Returns a client with the upstream's connector.
pub(super) fn pool(config: &Config) -> Result<Pool<TimedConnector, RequestBody>, FailedStep> {
    Ok(Pool::builder(TokioExecutor::new()).build(connector(config)?))
}

fn connector(config: &Config) -> Result<TimedConnector, FailedStep> {
    let connecting = Connecting {
        limit: STEP_TIMEOUT,
        limit_key: "5 s",
        ca_file: config.upstream.ca_file.as_deref(),
        ca_key: "upstream.ca_file",
    };
    TimedConnector::new(connecting)
        .map_err(|error| FailedStep { message: error.to_string(), remedy: "correct upstream.ca_file".to_owned() })
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

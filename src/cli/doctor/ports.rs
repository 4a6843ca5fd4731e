//! Both ports: free, or taken by a vecho or by another server.

use std::io;
use std::net::{SocketAddr, TcpListener};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::check::{CheckResult, STEP_TIMEOUT};
use crate::cli::client::{Client, read_whole, whole};
use crate::config::Config;

/// A request that vecho answers itself: it has never seen this input, and may not call the upstream for it.
const UNCACHED: &str = r#"{"model":"vecho-doctor","input":"vecho doctor"}"#;
/// Member of vecho's answer to that request.
const NOT_CACHED: &[u8] = b"\"not_cached\"";

/// Results for both ports.
pub(super) struct PortResults {
    pub(super) results: [CheckResult; 2],
    /// The vecho that has the ops port.
    pub(super) running: Option<RunningVecho>,
}

/// Facts that a running vecho shows on its metrics page.
pub(super) struct RunningVecho {
    pub(super) version: String,
    /// Number of callers whose tokens are renewed and begin with an empty cache each time.
    pub(super) rotating_callers: u64,
}

/// Checks both ports.
pub(super) async fn check(config: &Config) -> PortResults {
    let (public, ops) = (config.listen, config.admin_listen);
    let free_ops = free("ops port", "admin_listen", ops);
    let running = if free_ops.is_none() { running(config).await } else { None };
    let of_ops = free_ops.unwrap_or_else(|| match &running {
        Some(running) => CheckResult::ok("ops port", runs(ops, &running.version)),
        None => taken("ops port", "admin_listen", ops),
    });
    let of_public = match free("public port", "listen", public) {
        Some(result) => result,
        None if is_vecho(config, running.is_some()).await => {
            CheckResult::ok("public port", format!("{public}: a vecho listens there"))
        }
        None => taken("public port", "listen", public),
    };
    PortResults { results: [of_public, of_ops], running }
}

fn runs(address: SocketAddr, version: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let other = if version == own { String::new() } else { format!("; this program is {own}") };
    format!("{address}: vecho {version} runs there{other}")
}

/// Returns the result for a port that is free or cannot be used, and `None` if a server has it.
fn free(check: &'static str, key: &str, address: SocketAddr) -> Option<CheckResult> {
    let fault = match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => return Some(CheckResult::ok(check, format!("{address}: any free port"))),
        Ok(_) => return Some(CheckResult::ok(check, format!("{address} is free"))),
        Err(error) => error,
    };
    let remedy = match fault.kind() {
        io::ErrorKind::AddrInUse => return None,
        io::ErrorKind::PermissionDenied => {
            format!("set {key} to a port of 1024 or above, or grant CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => format!("set {key} to an address of this machine"),
        _ => format!("set {key} to another address"),
    };
    Some(CheckResult::fault(check, format!("{address} cannot be bound: {fault}"), remedy))
}

fn taken(check: &'static str, key: &str, address: SocketAddr) -> CheckResult {
    let message = format!("{address} is taken by a server that is not vecho");
    CheckResult::fault(check, message, format!("stop it, or set {key} to another port"))
}

/// Returns the facts of the vecho on the ops port.
async fn running(config: &Config) -> Option<RunningVecho> {
    // The server may be a stranger, and this route needs no token.
    let client = Client::of_ops_port(config).without_token();
    let answer = client.request_head(Method::GET, "/metrics", STEP_TIMEOUT).await.ok()?;
    let metrics = timeout(STEP_TIMEOUT, read_whole(answer.into_body())).await.ok()?.ok()?;
    let metrics = std::str::from_utf8(&metrics).ok()?;
    let (_, rest) = metrics.split_once("vecho_build_info{version=\"")?;
    let rotating = metrics.lines().find_map(|line| line.strip_prefix("vecho_rotating_credentials_total "));
    let rotating_callers = rotating.and_then(|count| count.parse().ok()).unwrap_or(0);
    Some(RunningVecho { version: rest.split('"').next()?.to_owned(), rotating_callers })
}

/// Returns true if the server on the public port is a vecho. A port with TLS is judged by the ops port.
async fn is_vecho(config: &Config, has_ops_port: bool) -> bool {
    if config.tls.is_some() {
        return has_ops_port;
    }
    let client = Client::of_public_port(config);
    let mut request = client.request(Method::POST, "/v1/embeddings", whole(UNCACHED));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("only-if-cached"));
    let Ok(Ok(answer)) = timeout(STEP_TIMEOUT, client.send(request)).await else { return false };
    if answer.status() != StatusCode::GATEWAY_TIMEOUT {
        return false;
    }
    let body = timeout(STEP_TIMEOUT, read_whole(answer.into_body())).await.ok().and_then(Result::ok);
    body.is_some_and(|body| body.windows(NOT_CACHED.len()).any(|part| part == NOT_CACHED))
}

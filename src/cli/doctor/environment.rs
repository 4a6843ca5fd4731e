//! The environment: the base URL of applications, and calls that would come back to vecho.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use http::Uri;

use super::check::CheckResult;
use crate::cli::surrounding::Surrounding;
use crate::config::{Config, UpstreamTarget};
use crate::upstream::port_of;

const CHECK: &str = "environment";

/// Checks the variable of applications and the addresses of the upstream.
pub(super) fn check(config: &Config, surrounding: &Surrounding, upstream: &[SocketAddr]) -> Vec<CheckResult> {
    let results = [loop_fault(config, upstream), base_url(config, surrounding)];
    let mut results: Vec<CheckResult> = results.into_iter().flatten().collect();
    if results.is_empty() {
        let is_unknown = upstream.is_empty() && config.upstream.target != UpstreamTarget::Mock;
        let message = if is_unknown {
            "nothing unusual; the addresses of the upstream are unknown"
        } else {
            "nothing unusual; the upstream is not vecho itself"
        };
        results.push(CheckResult::ok(CHECK, message));
    }
    results
}

/// Reports an upstream whose name leads to a port of vecho. The configuration itself refuses such an address.
fn loop_fault(config: &Config, upstream: &[SocketAddr]) -> Option<CheckResult> {
    let ports = [("listen", config.listen), ("admin_listen", config.admin_listen)];
    let (key, port) = ports.into_iter().find(|(_, port)| upstream.iter().any(|called| takes(*port, *called)))?;
    let target = &config.upstream.target;
    let message = format!("upstream.url {target} is vecho itself ({key} {port}): each call would come back to it");
    Some(CheckResult::fault(CHECK, message, "set upstream.url to the service behind vecho"))
}

/// Returns true if a socket bound to `bound` accepts calls to `called`.
fn takes(bound: SocketAddr, called: SocketAddr) -> bool {
    let (at, to) = (bound.ip().to_canonical(), called.ip().to_canonical());
    bound.port() == called.port() && (at == to || (at.is_unspecified() && is_local(to)))
}

/// Returns true if this machine has an address: only then can a socket be bound to it.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Reports where applications with this environment send their requests. vecho itself does not read the variable.
fn base_url(config: &Config, surrounding: &Surrounding) -> Option<CheckResult> {
    let uri: Uri = surrounding.base_url.as_deref()?.parse().ok()?;
    let host = uri.host()?;
    let port = port_of(&uri)?;
    let is_ours = port == config.listen.port() && is_this_machine(host);
    let is_upstream = matches!(&config.upstream.target, UpstreamTarget::Http(target)
        if target.host() == Some(host) && port_of(target) == Some(port));
    if is_ours {
        return Some(CheckResult::ok(CHECK, format!("OPENAI_BASE_URL is vecho's public port ({host}:{port})")));
    }
    // Another host may be a name of this machine or a proxy in front of it.
    is_upstream.then(|| {
        let message = format!("OPENAI_BASE_URL is the upstream ({host}): applications with it bypass vecho");
        let remedy = format!("set it to the address of the public port, {}", config.listen);
        CheckResult::warning(CHECK, message, remedy)
    })
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_local)
}

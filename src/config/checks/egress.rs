//! The way to servers: forward proxies, the client certificate, and the protocol.

use http::Uri;

use crate::config::proxies::ProxyChoice;
use crate::config::reader::Reader;
use crate::config::{EgressConfig, TlsConfig, UpstreamTarget, values};
use crate::process::connector::ProxyRules;

pub(super) fn egress(reader: &mut Reader, target: &UpstreamTarget) -> EgressConfig {
    let called = match target {
        UpstreamTarget::Http(uri) => Some(uri),
        UpstreamTarget::Mock => None,
    };
    EgressConfig {
        proxies: proxies(reader, "upstream.proxy", called),
        identity: identity(reader, "upstream.cert_file", "upstream.key_file"),
        http2: reader.choice("upstream.http2", &[("off", false), ("auto", true)]),
    }
}

/// Reads a key that selects proxies for calls to `target`.
pub(super) fn proxies(reader: &mut Reader, name: &'static str, target: Option<&Uri>) -> ProxyRules {
    let choice = reader.required(name, |value| ProxyChoice::parse(&values::text(value)?, name));
    reader.show(name, choice.shown());
    match (choice, target) {
        (ProxyChoice::Always(proxy), _) => ProxyRules::always(proxy),
        (ProxyChoice::Environment, Some(target)) => reader.proxies_of_environment(target),
        (ProxyChoice::Environment | ProxyChoice::Direct, _) => ProxyRules::default(),
    }
}

/// Reads a client certificate and its key, of which neither may be missing.
pub(super) fn identity(reader: &mut Reader, cert: &'static str, key: &'static str) -> Option<TlsConfig> {
    match (reader.file(cert), reader.file(key)) {
        (Some(cert_file), Some(key_file)) => Some(TlsConfig { cert_file, key_file }),
        (None, None) => None,
        (found, _) => {
            let (set, missing) = if found.is_some() { (cert, key) } else { (key, cert) };
            reader.fault(set, format!("needs {missing} beside it"));
            None
        }
    }
}

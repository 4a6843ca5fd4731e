//! The way to the upstream.

use crate::config::TlsConfig;
use crate::process::connector::ProxyRules;

/// Proxies, client certificate and protocol of `[upstream]`.
#[derive(Clone, Debug)]
pub struct EgressConfig {
    /// `upstream.proxy`, with the variables of the environment if it is `env`.
    pub proxies: ProxyRules,
    /// `upstream.cert_file` and `upstream.key_file`.
    pub identity: Option<TlsConfig>,
    /// `upstream.http2`: true if HTTP/2 is offered.
    pub http2: bool,
}

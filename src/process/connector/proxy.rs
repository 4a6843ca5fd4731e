//! Forward proxies, and the rules that select one for an address.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderValue, Uri};

/// A forward proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardProxy {
    /// Its scheme, host and port, without credentials.
    pub uri: Uri,
    /// Value of `proxy-authorization`, marked as sensitive.
    pub credentials: Option<HeaderValue>,
    /// The key or the environment variable that names it.
    pub named_by: String,
}

/// Formats the proxy without its credentials.
impl fmt::Display for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map_or("", http::uri::Authority::as_str);
        write!(f, "{}://{authority} ({})", self.uri.scheme_str().unwrap_or("http"), self.named_by)
    }
}

/// Forward proxies by scheme of the called address, and the addresses that are called directly. The default has no
/// proxy. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// Proxy for `http` addresses.
    pub http: Option<Arc<ForwardProxy>>,
    /// Proxy for `https` addresses.
    pub https: Option<Arc<ForwardProxy>>,
    /// Rules of `NO_PROXY`.
    pub exempt: Arc<[String]>,
}

impl ProxyRules {
    /// Returns rules that select one proxy for every address.
    pub fn always(proxy: ForwardProxy) -> Self {
        let proxy = Some(Arc::new(proxy));
        Self { http: proxy.clone(), https: proxy, exempt: Arc::default() }
    }

    /// Returns the proxy for an address, if it is not called directly.
    pub fn proxy_for(&self, uri: &Uri) -> Option<&Arc<ForwardProxy>> {
        let proxy = if is_https(uri) { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.exempts(uri))
    }

    /// Returns true if a rule of `NO_PROXY` covers an address.
    pub fn exempts(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let called = Called {
            scheme: uri.scheme_str().unwrap_or("http"),
            host: &host.trim_end_matches('.').to_ascii_lowercase(),
            port: port_or_default(uri),
        };
        self.exempt.iter().any(|rule| called.is_covered_by(rule))
    }
}

/// Returns true for an `https` address.
pub(super) fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

/// Returns the port of an address, or that of its scheme.
pub(super) fn port_or_default(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 })
}

/// Parts of a called address that rules compare.
struct Called<'a> {
    scheme: &'a str,
    /// The host in lower case, without brackets and final dot.
    host: &'a str,
    port: u16,
}

impl Called<'_> {
    /// Returns true if a rule covers the address. A rule is `*`, a name (which covers all names below it), an address or
    /// a network, each with or without a port or a scheme.
    fn is_covered_by(&self, rule: &str) -> bool {
        let rule = rule.trim().to_ascii_lowercase();
        // httpx accepts `all://` and the schemes of addresses in front of a rule.
        let (scheme, rule) = rule.split_once("://").unwrap_or(("all", &rule));
        if scheme != "all" && scheme != self.scheme {
            return false;
        }
        let (name, of_port) = match rule.rsplit_once(':') {
            // An IPv6 address without brackets contains colons itself.
            Some((name, number)) if !name.contains(':') || name.ends_with(']') => (name, number.parse().ok()),
            _ => (rule, None),
        };
        if of_port.is_some_and(|of_port: u16| of_port != self.port) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let domain = name.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
        let is_below = || self.host.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
        name == "*" || (!domain.is_empty() && is_below()) || is_in_network(self.host, name)
    }
}

fn is_in_network(host: &str, network: &str) -> bool {
    let Some((address, length)) = network.split_once('/') else {
        return false;
    };
    let (Ok(host), Ok(address), Ok(length)) = (host.parse(), address.parse(), length.parse::<u32>()) else {
        return false;
    };
    let same_front = |one: u128, other: u128, width: u32| {
        let rest = width.saturating_sub(length);
        // A shift by the full width would overflow, so the length 0 is a case of its own.
        length <= width && (length == 0 || one >> rest == other >> rest)
    };
    match (host, address) {
        (IpAddr::V4(host), IpAddr::V4(address)) => {
            same_front(u128::from(u32::from(host)), u128::from(u32::from(address)), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(address)) => same_front(host.into(), address.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> ForwardProxy {
        ForwardProxy { uri: Uri::from_static("http://proxy:3128"), credentials: None, named_by: "test".to_owned() }
    }

    fn exempt(rules: &str, url: &str) -> bool {
        let rules = rules.split([',', ' ']).map(str::to_owned).collect();
        let all = ProxyRules { exempt: rules, ..ProxyRules::always(proxy()) };
        all.proxy_for(&url.parse().expect("a URL")).is_none()
    }

    #[test]
    fn rules_exempt_names_addresses_networks_ports_and_schemes() {
        for (rules, url) in [
            ("*", "https://api.openai.com/v1"),
            ("internal, api.openai.com", "https://API.openai.com/v1"),
            (".openai.com", "https://api.openai.com/v1"),
            ("openai.com", "https://api.openai.com/v1"),
            ("openai.com.", "https://api.openai.com./v1"),
            ("*.openai.com", "https://api.openai.com/v1"),
            ("api.openai.com:443", "https://api.openai.com/v1"),
            ("all://api.openai.com", "https://api.openai.com/v1"),
            ("https://api.openai.com", "https://api.openai.com/v1"),
            ("10.0.0.0/8", "http://10.1.2.3:8080/v1"),
            ("127.0.0.1", "http://127.0.0.1:8080/v1"),
            ("[::1]:8080", "http://[::1]:8080/v1"),
            ("::1", "http://[::1]:8080/v1"),
            ("fd00::/8", "http://[fd12::1]/v1"),
        ] {
            assert!(exempt(rules, url), "{rules} covers {url}");
        }
        for (rules, url) in [
            ("", "https://api.openai.com/v1"),
            ("penai.com", "https://api.openai.com/v1"),
            ("api.openai.com:8443", "https://api.openai.com/v1"),
            ("http://api.openai.com", "https://api.openai.com/v1"),
            ("10.0.0.0/8", "http://11.1.2.3/v1"),
            ("10.0.0.0/99", "http://10.1.2.3/v1"),
            ("localhost", "http://127.0.0.1/v1"),
        ] {
            assert!(!exempt(rules, url), "{rules} does not cover {url}");
        }
    }

    #[test]
    fn the_scheme_of_an_address_selects_its_proxy() {
        let rules = ProxyRules { https: None, ..ProxyRules::always(proxy()) };
        assert!(rules.proxy_for(&Uri::from_static("http://host/v1")).is_some());
        assert!(rules.proxy_for(&Uri::from_static("https://host/v1")).is_none());
        assert!(ProxyRules::default().proxy_for(&Uri::from_static("https://host/v1")).is_none());
    }
}

//! Proxy variables of the environment. Calls to the upstream ignore them.

use std::net::IpAddr;

use super::UpstreamTarget;

const VARIABLES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];
const EXEMPTIONS: &str = "NO_PROXY";

/// Returns true if the name is a proxy variable. Other programs accept both cases, so the comparison ignores case.
pub(super) fn is_variable(name: &str) -> bool {
    VARIABLES.iter().chain([&EXEMPTIONS]).any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns the first variable that names a proxy for the upstream, unless `NO_PROXY` exempts the upstream's host.
pub(super) fn ignored<'a>(env: &'a [(String, String)], upstream: &UpstreamTarget) -> Option<&'a str> {
    let UpstreamTarget::Http(uri) = upstream else {
        return None;
    };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let usual_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(usual_port);
    let is_named = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
    let exempt = env.iter().filter(|(name, _)| is_named(name, EXEMPTIONS));
    if exempt.flat_map(|(_, value)| value.split([',', ' '])).any(|rule| exempts(rule, &host, port)) {
        return None;
    }
    let set = |known| env.iter().find(|(name, value)| is_named(name, known) && !value.trim().is_empty());
    VARIABLES.into_iter().find_map(set).map(|(name, _)| name.as_str())
}

/// Returns true if one rule of `NO_PROXY` covers a host. A rule is `*`, a name (which covers all names below it), an
/// address or a network, each with or without a port.
fn exempts(rule: &str, host: &str, port: u16) -> bool {
    let rule = rule.trim().to_ascii_lowercase();
    let (name, of_port) = match rule.rsplit_once(':') {
        // An IPv6 address without brackets contains colons itself.
        Some((name, number)) if !name.contains(':') || name.ends_with(']') => (name, number.parse().ok()),
        _ => (rule.as_str(), None),
    };
    if of_port.is_some_and(|of_port: u16| of_port != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let domain = name.trim_start_matches("*.").trim_start_matches('.');
    let is_below = || host.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    name == "*" || (!domain.is_empty() && is_below()) || is_in_network(host, name)
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

    fn found(env: &[(&str, &str)], url: &str) -> Option<String> {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ignored(&env, &UpstreamTarget::Http(url.parse().expect("a URL"))).map(str::to_owned)
    }

    #[test]
    fn a_proxy_variable_is_found_in_either_case() {
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "all_proxy", "All_Proxy"] {
            assert_eq!(found(&[(name, "http://proxy:3128")], "https://api.openai.com/v1").as_deref(), Some(name));
        }
        assert_eq!(found(&[("HTTPS_PROXY", "")], "https://api.openai.com/v1"), None);
        assert_eq!(ignored(&[("HTTPS_PROXY".to_owned(), "x".to_owned())], &UpstreamTarget::Mock), None);
    }

    #[test]
    fn no_proxy_exempts_names_addresses_and_networks() {
        let exempt = |rules, url| found(&[("HTTPS_PROXY", "http://proxy"), ("no_proxy", rules)], url).is_none();
        for (rules, url) in [
            ("*", "https://api.openai.com/v1"),
            ("internal, api.openai.com", "https://API.openai.com/v1"),
            (".openai.com", "https://api.openai.com/v1"),
            ("openai.com", "https://api.openai.com/v1"),
            ("*.openai.com", "https://api.openai.com/v1"),
            ("api.openai.com:443", "https://api.openai.com/v1"),
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
            ("10.0.0.0/8", "http://11.1.2.3/v1"),
            ("10.0.0.0/99", "http://10.1.2.3/v1"),
            ("localhost", "http://127.0.0.1/v1"),
        ] {
            assert!(!exempt(rules, url), "{rules} does not cover {url}");
        }
    }
}

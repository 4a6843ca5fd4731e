//! Forward proxies: the values of the keys that select them, and the variables of the environment.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::{Faults, Origin};
use crate::process::connector::{ForwardProxy, ProxyRules};

const HTTPS: &str = "HTTPS_PROXY";
const HTTP: &str = "HTTP_PROXY";
const ALL: &str = "ALL_PROXY";
const EXEMPTIONS: &str = "NO_PROXY";
/// Web servers set this variable for CGI programs, beside an `HTTP_PROXY` that may hold a header of a client.
const CGI_MARK: &str = "REQUEST_METHOD";

/// Returns true if the name is a variable that selects proxies. Other programs accept both cases, so the comparison
/// ignores case.
pub(super) fn is_variable(name: &str) -> bool {
    name == CGI_MARK || [HTTPS, HTTP, ALL, EXEMPTIONS].iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Variables of the environment that select proxies.
#[derive(Clone, Default)]
pub(super) struct ProxyVariables(Vec<(String, String)>);

impl ProxyVariables {
    pub(super) fn of(env: &[(String, String)]) -> Self {
        Self(env.iter().filter(|(name, _)| is_variable(name)).cloned().collect())
    }

    /// Returns the rules for calls to `target`. A variable that applies to the target and cannot be used is a fault.
    pub(super) fn rules(&self, target: &Uri, faults: &mut Faults) -> ProxyRules {
        let exempt = self.find(EXEMPTIONS).map_or("", |(_, rules)| rules);
        let exempt = exempt.split([',', ' ', '\t', '\n']).filter(|rule| !rule.is_empty()).map(str::to_owned).collect();
        let mut rules = ProxyRules { exempt, ..ProxyRules::default() };
        for (scheme, variable) in [(&Scheme::HTTPS, HTTPS), (&Scheme::HTTP, HTTP)] {
            let Some((name, value)) = self.find(variable).or_else(|| self.find(ALL)) else { continue };
            match forward_proxy(value, name) {
                Ok(proxy) if *scheme == Scheme::HTTPS => rules.https = Some(Arc::new(proxy)),
                Ok(proxy) => rules.http = Some(Arc::new(proxy)),
                Err(message) if target.scheme() == Some(scheme) && !rules.exempts(target) => {
                    faults.add(name, &Origin::Env(name.to_owned()), message);
                }
                // The proxy would serve only the targets of redirects.
                Err(_) => {}
            }
        }
        rules
    }

    /// Returns the name and the value of a variable that is set. The spelling in lower case takes precedence, also if it
    /// is empty, as in httpx.
    fn find(&self, known: &str) -> Option<(&str, &str)> {
        let lower = known.to_ascii_lowercase();
        let is_cgi = known == HTTP && self.0.iter().any(|(name, _)| name == CGI_MARK);
        let exact = self.0.iter().find(|(name, _)| *name == lower);
        let other = || self.0.iter().find(|(name, value)| name.eq_ignore_ascii_case(known) && !value.trim().is_empty());
        let found = exact.or_else(|| if is_cgi { None } else { other() });
        found.map(|(name, value)| (name.as_str(), value.trim())).filter(|(_, value)| !value.is_empty())
    }
}

/// Value of a key that selects a proxy.
pub(super) enum ProxyChoice {
    /// The environment decides.
    Environment,
    /// Every address is called directly.
    Direct,
    /// One proxy for every address.
    Always(ForwardProxy),
}

impl ProxyChoice {
    /// Parses the value of a key. Messages omit the text, which may contain a password.
    pub(super) fn parse(text: &str, key: &str) -> Result<Self, String> {
        match text {
            "env" => Ok(Self::Environment),
            "none" => Ok(Self::Direct),
            // Without a scheme it may be a misspelt word.
            text if !text.contains("://") => Err(format!("must be env, none, or {FORM}")),
            text => forward_proxy(text, key).map(Self::Always),
        }
    }

    /// Returns the value as the effective configuration shows it. A placeholder replaces credentials.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Environment => "env".to_owned(),
            Self::Direct => "none".to_owned(),
            Self::Always(proxy) => {
                let (scheme, authority) = (proxy.uri.scheme_str(), proxy.uri.authority().map(Authority::as_str));
                let login = if proxy.credentials.is_some() { "[secret]@" } else { "" };
                format!("{}://{login}{}", scheme.unwrap_or("http"), authority.unwrap_or_default())
            }
        }
    }
}

const FORM: &str = "http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host if the proxy wants it";

/// Parses the address of a proxy. Messages omit the text, which may contain a password.
fn forward_proxy(text: &str, named_by: &str) -> Result<ForwardProxy, String> {
    // curl and httpx read an address without a scheme as http.
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        socks if socks.starts_with("socks") => {
            return Err(format!("names a SOCKS proxy, which vecho does not support; use {FORM}"));
        }
        _ => return Err(format!("must be {FORM}")),
    };
    // A path has no meaning here, and other programs ignore it.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    let authority: Option<Authority> = host.parse().ok();
    let authority = authority.filter(|authority| !authority.host().is_empty() && has_valid_port(authority));
    let authority = authority.ok_or_else(|| format!("must be {FORM}"))?;
    let builder = Uri::builder().scheme(scheme).authority(authority).path_and_query(PathAndQuery::from_static("/"));
    let uri = builder.build().map_err(|_| format!("must be {FORM}"))?;
    Ok(ForwardProxy { uri, credentials: login.and_then(basic_credentials), named_by: named_by.to_owned() })
}

/// Returns true if the port of an authority is a number that a port can have.
fn has_valid_port(authority: &Authority) -> bool {
    let after_host = &authority.as_str()[authority.host().len()..];
    after_host.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
}

/// Returns the header value for a user and a password, both percent-encoded.
fn basic_credentials(login: &str) -> Option<HeaderValue> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64_simd::STANDARD.encode_to_string(plain))).ok()?;
    // Debug output must not contain it.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)], url: &str) -> (Option<String>, String) {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (uri, mut faults): (Uri, _) = (url.parse().expect("a URL"), Faults::default());
        let rules = ProxyVariables::of(&env).rules(&uri, &mut faults);
        (rules.proxy_for(&uri).map(ToString::to_string), faults.to_string())
    }

    fn found(env: &[(&str, &str)], url: &str) -> Option<String> {
        let (found, faults) = read(env, url);
        assert_eq!(faults, "");
        found
    }

    const URL: &str = "https://api.openai.com/v1";

    #[test]
    fn variables_count_in_any_case_for_their_scheme() {
        for name in ["HTTPS_PROXY", "https_proxy", "all_proxy", "All_Proxy"] {
            let expected = format!("http://proxy:3128 ({name})");
            assert_eq!(found(&[(name, "http://proxy:3128")], URL), Some(expected));
        }
        assert_eq!(found(&[("HTTP_PROXY", "http://proxy:3128")], URL), None);
        let both = [("ALL_PROXY", "http://all"), ("HTTP_PROXY", "http://plain")];
        assert_eq!(found(&both, URL).as_deref(), Some("http://all (ALL_PROXY)"));
        assert_eq!(found(&both, "http://host/v1").as_deref(), Some("http://plain (HTTP_PROXY)"));
    }

    #[test]
    fn lower_case_takes_precedence_and_an_empty_value_names_no_proxy() {
        let both = |lower| [("HTTPS_PROXY", "http://upper"), ("https_proxy", lower)];
        assert_eq!(found(&both("http://lower"), URL).as_deref(), Some("http://lower (https_proxy)"));
        assert_eq!(found(&both(""), URL), None);
        assert_eq!(found(&[("HTTPS_PROXY", " ")], URL), None);
        let exempt = [("HTTPS_PROXY", "http://upper"), ("NO_PROXY", "*"), ("no_proxy", "other")];
        assert_eq!(found(&exempt, URL).as_deref(), Some("http://upper (HTTPS_PROXY)"));
    }

    #[test]
    fn a_cgi_program_ignores_http_proxy_in_capitals() {
        let cgi = |name| found(&[(name, "http://proxy"), ("REQUEST_METHOD", "GET")], "http://host/v1");
        assert_eq!(cgi("HTTP_PROXY"), None);
        assert_eq!(cgi("http_proxy").as_deref(), Some("http://proxy (http_proxy)"));
    }

    #[test]
    fn addresses_without_a_scheme_and_with_a_path_are_read_as_curl_reads_them() {
        assert_eq!(found(&[("HTTPS_PROXY", "proxy:3128")], URL).as_deref(), Some("http://proxy:3128 (HTTPS_PROXY)"));
        let path = found(&[("HTTPS_PROXY", "HTTPS://[::1]:8443/x?y")], URL);
        assert_eq!(path.as_deref(), Some("https://[::1]:8443 (HTTPS_PROXY)"));
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        for (login, plain) in [("me:s3cr3t%40", "me:s3cr3t@"), ("s3cr3t", "s3cr3t:"), ("me:s3cr3t@x", "me:s3cr3t@x")] {
            let proxy = forward_proxy(&format!("http://{login}@proxy:1"), "key").expect("it is valid");
            let expected = format!("Basic {}", base64_simd::STANDARD.encode_to_string(plain));
            assert_eq!(proxy.credentials.as_ref().expect("a header").as_bytes(), expected.as_bytes());
            let choice = ProxyChoice::Always(proxy.clone()).shown();
            assert_eq!(choice, "http://[secret]@proxy:1");
            assert!(!format!("{proxy:?} {proxy}").contains("s3cr3t"));
        }
    }

    #[test]
    fn a_variable_that_applies_and_cannot_be_used_is_a_fault() {
        for (value, part) in [
            ("socks5h://me:s3cr3t@proxy:1080", "SOCKS"),
            ("ftp://s3cr3t", "must be http://"),
            ("http://me:s3cr3t@", "must be http://"),
            ("http://s3cr3t:99999", "must be http://"),
            ("http://s3cr3t s3cr3t", "must be http://"),
        ] {
            let (proxy, fault) = read(&[("HTTPS_PROXY", value)], URL);
            assert_eq!(proxy, None);
            assert!(fault.starts_with("HTTPS_PROXY (environment HTTPS_PROXY): ") && fault.contains(part), "{fault}");
            assert!(!fault.contains("s3cr3t"), "{fault}");
            assert_eq!(read(&[("HTTPS_PROXY", value), ("NO_PROXY", "openai.com")], URL).1, "");
            assert_eq!(read(&[("HTTP_PROXY", value)], URL).1, "");
        }
    }

    #[test]
    fn a_key_takes_two_words_or_an_address() {
        let shown = |text| ProxyChoice::parse(text, "upstream.proxy").map(|choice| choice.shown());
        assert_eq!(shown("env").as_deref(), Ok("env"));
        assert_eq!(shown("none").as_deref(), Ok("none"));
        assert_eq!(shown("https://proxy:8443").as_deref(), Ok("https://proxy:8443"));
        for wrong in ["environment", "proxy:3128", "socks5://proxy", "http://"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}

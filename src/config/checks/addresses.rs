//! Checks the listen addresses and the addresses to call: no address may be used twice, and vecho must not call itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;

use crate::config::reader::Reader;
use crate::config::{Config, UpstreamTarget};

pub(super) fn check(reader: &mut Reader, config: &Config) {
    let (public, ops) = (config.listen, config.admin_listen);
    let same_host = public.ip() == ops.ip() || public.ip().is_unspecified() || ops.ip().is_unspecified();
    // With port 0 the operating system chooses two different ports.
    if public.port() != 0 && public.port() == ops.port() && same_host {
        reader.fault("admin_listen", format!("{ops} is taken by listen ({public})"));
    }
    // A call to vecho's own port would cause a call from there, without end.
    if let UpstreamTarget::Http(uri) = &config.upstream.target
        && reaches(uri, public)
    {
        let message = format!("is vecho itself, which listens there ({public}): each call would come back as another");
        // With targets, this is the address of the first one.
        let key = if config.targets.is_empty() { "upstream.url" } else { "targets" };
        reader.fault(key, message);
    }
    let keys = [("upstream.proxy", &config.upstream.egress.proxies), ("traces.proxy", &config.traces.proxies)];
    for (key, proxies) in keys {
        let own = [&proxies.http, &proxies.https].into_iter().flatten().find(|proxy| reaches(&proxy.uri, public));
        if let Some(proxy) = own {
            reader
                .fault(key, format!("the proxy {proxy} is vecho itself, which listens there: set another one or none"));
        }
    }
}

/// Returns true if a call to `uri` arrives at `listen`. The only name known to be this machine's is `localhost`.
fn reaches(uri: &Uri, listen: SocketAddr) -> bool {
    let usual_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let hosts = addresses(uri.host().unwrap_or_default());
    listen.port() == uri.port_u16().unwrap_or(usual_port) && hosts.iter().any(|host| takes(listen.ip(), *host))
}

fn addresses(host: &str) -> Vec<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}

/// Returns true if a socket bound to `bound` accepts calls to `called`, as far as this is known without a query for
/// this machine's addresses.
fn takes(bound: IpAddr, called: IpAddr) -> bool {
    let (bound, called) = (bound.to_canonical(), meant(called.to_canonical()));
    // A wildcard socket of IPv6 also accepts IPv4, but not the other way round.
    let is_family_taken = bound.is_ipv6() || called.is_ipv4();
    bound == called || (bound.is_unspecified() && called.is_loopback() && is_family_taken)
}

/// Returns the address that a call reaches: a call to the wildcard address reaches this machine.
const fn meant(called: IpAddr) -> IpAddr {
    match called {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        called => called,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Faults};

    fn loaded(listen: &str, upstream: &str) -> Result<Config, Faults> {
        Config::from_pairs(&[("listen", listen), ("admin_listen", "127.0.0.1:0"), ("upstream.url", upstream)])
    }

    #[test]
    fn an_upstream_address_that_is_vecho_itself_is_refused() {
        for (listen, upstream) in [
            ("127.0.0.1:7861", "http://127.0.0.1:7861/v1"),
            ("127.0.0.1:7861", "http://localhost:7861/v1"),
            ("127.0.0.1:7861", "http://LocalHost.:7861"),
            ("127.0.0.1:7861", "http://0.0.0.0:7861/v1"),
            ("0.0.0.0:7861", "http://127.0.0.1:7861/v1"),
            ("0.0.0.0:7861", "http://127.9.9.9:7861/v1"),
            ("0.0.0.0:7861", "http://0.0.0.0:7861/v1"),
            ("[::]:7861", "http://127.0.0.1:7861/v1"),
            ("[::]:7861", "http://[::1]:7861/v1"),
            ("[::1]:7861", "http://localhost:7861/v1"),
            ("[::1]:7861", "http://[::]:7861/v1"),
            ("10.0.0.5:7861", "http://10.0.0.5:7861/v1"),
            ("127.0.0.1:7861", "http://[::ffff:127.0.0.1]:7861"),
            ("0.0.0.0:80", "http://localhost/v1"),
            ("0.0.0.0:443", "https://localhost/v1"),
        ] {
            let faults = loaded(listen, upstream).expect_err(&format!("{upstream} is {listen}")).0;
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].key, "upstream.url");
            assert!(faults[0].message.contains("is vecho itself"), "{}", faults[0].message);
        }
    }

    #[test]
    fn an_upstream_on_another_port_or_host_is_accepted() {
        for (listen, upstream) in [
            ("127.0.0.1:7861", "http://127.0.0.1:7871/v1"),
            ("127.0.0.1:7861", "http://127.0.0.2:7861/v1"),
            ("127.0.0.1:7861", "http://10.0.0.5:7861/v1"),
            ("10.0.0.5:7861", "http://localhost:7861/v1"),
            ("0.0.0.0:7861", "http://embedder:7861/v1"),
            ("0.0.0.0:7861", "http://10.0.0.5:7861/v1"),
            ("0.0.0.0:7861", "http://[::1]:7861/v1"),
            ("127.0.0.1:0", "http://127.0.0.1:7861/v1"),
            ("0.0.0.0:80", "https://localhost/v1"),
        ] {
            assert!(loaded(listen, upstream).is_ok(), "{upstream} is not {listen}");
        }
    }
}

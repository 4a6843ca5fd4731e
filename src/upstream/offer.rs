//! Content codings that an embeddings call offers to the upstream.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Uri};

use crate::config::{CompressionMode, UpstreamConfig, UpstreamTarget};
use crate::wire::{AcceptedCodings, Coding};

/// Values of `accept-encoding` by the codings in them: gzip counts 1, br 2, and zstd 4.
const OFFERS: [&str; 8] = ["", "gzip", "br", "gzip, br", "zstd", "gzip, zstd", "br, zstd", "gzip, br, zstd"];

/// Returns the `accept-encoding` of a call for a caller with these headers, if the call offers a coding.
///
/// By default a call offers those codings that its caller offers, so an answer takes no more bytes than without vecho,
/// and costs no more than its caller has chosen. An upstream on this machine gets no offer, because compression there
/// takes longer than it saves.
pub fn offered_codings(upstream: &UpstreamConfig, caller: &HeaderMap) -> Option<HeaderValue> {
    let offer = match (upstream.compression, &upstream.target) {
        (CompressionMode::Off, _) | (_, UpstreamTarget::Mock) => 0,
        (CompressionMode::On, _) => OFFERS.len() - 1,
        (CompressionMode::Auto, UpstreamTarget::Http(base)) if is_on_this_machine(base) => 0,
        (CompressionMode::Auto, _) => {
            let accepted = AcceptedCodings::of(caller);
            let named = |coding| usize::from(accepted.names(coding));
            named(Coding::Gzip) + 2 * named(Coding::Brotli) + 4 * named(Coding::Zstd)
        }
    };
    (offer > 0).then(|| HeaderValue::from_static(OFFERS[offer]))
}

fn is_on_this_machine(base: &Uri) -> bool {
    let host = base.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = address.to_canonical();
        // vecho connects to loopback instead of an unspecified address.
        return address.is_loopback() || address.is_unspecified();
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // RFC 6761, section 6.3: names below `localhost` are loopback, too.
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_ENCODING;

    use super::*;
    use crate::config::Config;

    fn offered(url: &str, mode: &str, accepted: &'static str) -> Option<String> {
        let config = Config::from_pairs(&[("upstream.url", url), ("upstream.compression", mode)]).expect("it is legal");
        let caller = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
        offered_codings(&config.upstream, &caller).map(|value| value.to_str().expect("it is text").to_owned())
    }

    #[test]
    fn a_call_offers_the_codings_of_its_caller() {
        for (accepted, offer) in [
            ("gzip, deflate", Some("gzip")),
            ("gzip, deflate, br, zstd", Some("gzip, br, zstd")),
            ("br;q=0.5, zstd;q=0", Some("br")),
            ("X-GZIP, Zstd", Some("gzip, zstd")),
            ("", None),
            ("identity", None),
            ("*", None),
            ("deflate", None),
        ] {
            assert_eq!(offered("https://api.openai.com/v1", "auto", accepted).as_deref(), offer, "{accepted}");
        }
    }

    #[test]
    fn a_call_to_this_machine_offers_nothing() {
        for url in [
            "http://127.0.0.1:8080/v1",
            "http://localhost/v1",
            "http://a.LocalHost",
            "http://[::1]:1",
            "http://0.0.0.0:1",
            "mock:",
        ] {
            assert_eq!(offered(url, "auto", "gzip"), None, "{url}");
        }
        for url in ["http://10.0.0.1/v1", "http://[fd00::1]:1", "http://localhost.example/v1", "http://embeddings:80"] {
            assert_eq!(offered(url, "auto", "gzip").as_deref(), Some("gzip"), "{url}");
        }
    }

    #[test]
    fn a_fixed_mode_counts_for_all_callers_and_addresses() {
        for (accepted, url) in [("identity", "http://127.0.0.1:1/v1"), ("gzip", "https://api.openai.com/v1")] {
            assert_eq!(offered(url, "on", accepted).as_deref(), Some("gzip, br, zstd"), "{url}");
            assert_eq!(offered(url, "off", accepted), None, "{url}");
        }
    }
}

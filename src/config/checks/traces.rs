//! Destination of traces, with headers and resource attributes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::egress::proxies;
use super::ranges::TIMEOUT;
use crate::config::reader::Reader;
use crate::config::{TracesConfig, values};

/// Path after a collector's base URL, as OTLP defines it.
const SIGNAL_PATH: &str = "/v1/traces";
const SERVICE_NAME: &str = "service.name";
/// A finished span takes about a kilobyte.
const QUEUE: RangeInclusive<u64> = 1..=1_000_000;
const SEND_EVERY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

pub(super) fn traces(reader: &mut Reader) -> TracesConfig {
    let below = reader.optional("traces.endpoint", |value| below(&values::text(value)?));
    let whole = reader.optional("traces.url", |value| address(&values::text(value)?));
    // The complete address takes precedence, as in OpenTelemetry's own variables.
    let target = whole.or(below);
    TracesConfig {
        proxies: proxies(reader, "traces.proxy", target.as_ref()),
        target,
        headers: headers(reader),
        sample_ratio: reader.ratio("traces.sample_ratio", &(0.0..=1.0)),
        resource: resource(reader),
        timeout: reader.duration("traces.timeout", &TIMEOUT),
        send_every: reader.duration("traces.send_every", &SEND_EVERY),
        queue_spans: reader.count("traces.queue_spans", QUEUE),
        ca_file: reader.file("traces.ca_file"),
    }
}

/// Returns the address for traces below a collector's base URL.
fn below(base: &str) -> Result<Uri, String> {
    let mut parts = address(base)?.into_parts();
    // The signal path is appended to the path of the base URL, as OTLP demands.
    let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
    parts.path_and_query = Some(format!("{path}{SIGNAL_PATH}").parse().map_err(|_| "is too long".to_owned())?);
    Uri::from_parts(parts).map_err(|_| "is too long".to_owned())
}

/// Parses an address. Messages omit the text, which may contain a password.
fn address(text: &str) -> Result<Uri, String> {
    let form = || "must be an address such as http://collector:4318".to_owned();
    let uri: Uri = text.trim().parse().map_err(|_| form())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not hold a user or password; use traces.headers".to_owned());
    }
    let is_http = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if is_http && has_host { Ok(uri) } else { Err(form()) }
}

fn headers(reader: &mut Reader) -> Option<HeaderMap> {
    let secret = reader.secret("traces.headers")?;
    let headers: Option<HeaderMap> =
        secret.reveal().split(',').filter(|pair| !pair.trim().is_empty()).map(header).collect();
    if headers.is_none() {
        reader.fault("traces.headers", "must be name=value, several with commas, and hold what a header can carry");
    }
    Some(headers.unwrap_or_default())
}

fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = decoded(pair)?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    // Headers often hold a token, so debug output must not contain their values.
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
}

/// Decodes a pair from OpenTelemetry's variables, with `%XX` escapes in the value.
fn decoded(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.into_owned()))
}

/// Reads the resource attributes of all spans. The service name is one of them, from its own key or from the list.
fn resource(reader: &mut Reader) -> BTreeMap<String, String> {
    let pairs = reader
        .list("traces.resource", |pair| decoded(pair).ok_or_else(|| format!("{pair:?} is not of the form name=value")));
    let mut resource: BTreeMap<String, String> = pairs.unwrap_or_default().into_iter().collect();
    let said = reader.optional("traces.service_name", values::text);
    // The own key takes precedence over the list.
    let name = said.or_else(|| resource.remove(SERVICE_NAME)).unwrap_or_else(|| "vecho".to_owned());
    reader.show("traces.service_name", name.clone());
    resource.insert(SERVICE_NAME.to_owned(), name);
    resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn traces(pairs: &[(&str, &str)]) -> TracesConfig {
        Config::from_pairs(pairs).expect("must be free of faults").traces
    }

    fn faults(pairs: &[(&str, &str)]) -> String {
        Config::from_pairs(pairs).expect_err("must have a fault").to_string()
    }

    #[test]
    fn the_traces_path_is_appended_to_a_base_url_but_not_to_a_full_url() {
        let target = |key, url| traces(&[(key, url)]).target.map(|uri| uri.to_string());
        for (said, meant) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
        ] {
            assert_eq!(target("traces.endpoint", said).as_deref(), Some(meant));
        }
        assert_eq!(target("traces.url", "http://c:1/x?y=z").as_deref(), Some("http://c:1/x?y=z"));
        assert_eq!(target("traces.url", "http://c:1").as_deref(), Some("http://c:1/"));
        let both = traces(&[("traces.endpoint", "http://a"), ("traces.url", "http://b/x")]);
        assert_eq!(both.target.map(|uri| uri.to_string()).as_deref(), Some("http://b/x"));
        assert_eq!(traces(&[]).target, None);
    }

    #[test]
    fn all_faults_are_reported_at_once_without_secrets() {
        let said = faults(&[
            ("traces.endpoint", "grpc://collector:4317"),
            ("traces.url", "http://me:hunter2@collector"),
            ("traces.headers", "hunter2"),
            ("traces.sample_ratio", "1.5"),
            ("traces.resource", "nothing"),
            ("traces.timeout", "0s"),
            ("traces.queue_spans", "0"),
        ]);
        for key in ["endpoint", "url", "headers", "sample_ratio", "resource", "timeout", "queue_spans"] {
            assert!(said.contains(&format!("traces.{key}")), "{key} is missing: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn trace_headers_are_decoded_and_hidden_in_debug_output() {
        let traces = traces(&[("traces.headers", "authorization=Basic%20aHVudGVy, x-tenant = a,")]);
        let headers = traces.headers.clone().expect("there are headers");
        assert_eq!(headers["authorization"], "Basic aHVudGVy");
        assert_eq!((headers["x-tenant"].as_bytes(), headers.len()), (&b"a"[..], 2));
        assert!(!format!("{traces:?}").contains("aHVudGVy"));
    }

    #[test]
    fn the_service_name_is_its_own_key_or_a_resource_attribute() {
        let name = |pairs: &[(&str, &str)]| traces(pairs).resource[SERVICE_NAME].clone();
        assert_eq!(name(&[]), "vecho");
        assert_eq!(name(&[("traces.resource", "service.name=search,a=b")]), "search");
        assert_eq!(name(&[("traces.resource", "service.name=search"), ("traces.service_name", "cache")]), "cache");
        assert_eq!(traces(&[("traces.resource", "a=b%20c")]).resource["a"], "b c");
    }
}

//! Checks of `[upstream]`.

use http::Uri;
use toml::Value;

use super::compression::from_upstream;
use super::egress::egress;
use super::headers::header_secret;
use super::ranges::{ANY_BYTES, TIMEOUT};
use crate::config::reader::Reader;
use crate::config::{KeyHeader, UpstreamConfig, UpstreamEncoding, UpstreamTarget};

pub(super) fn upstream(reader: &mut Reader) -> UpstreamConfig {
    let target = target_of(reader);
    UpstreamConfig {
        identity: reader.optional("upstream.identity", http_base),
        api_key: header_secret(reader, "upstream.api_key"),
        api_key_header: key_header(reader, &target),
        encoding: reader.choice("upstream.encoding", &ENCODINGS),
        compression: from_upstream(reader),
        max_concurrent: reader.count("upstream.max_concurrent", 1..=10_000),
        connect_timeout: reader.duration("upstream.connect_timeout", &TIMEOUT),
        headers_timeout: reader.optional_duration("upstream.headers_timeout", &TIMEOUT),
        call_timeout: reader.duration("upstream.call_timeout", &TIMEOUT),
        idle_timeout: reader.duration("upstream.idle_timeout", &TIMEOUT),
        max_connection_age: reader.duration("upstream.max_connection_age", &TIMEOUT),
        max_answer_bytes: reader.count("upstream.max_answer_bytes", ANY_BYTES),
        ca_file: reader.file("upstream.ca_file"),
        egress: egress(reader, &target),
        target,
    }
}

const ENCODINGS: [(&str, UpstreamEncoding); 4] = [
    ("auto", UpstreamEncoding::Auto),
    ("as_asked", UpstreamEncoding::AsAsked),
    ("base64", UpstreamEncoding::Base64),
    ("float", UpstreamEncoding::Float),
];

fn target_of(reader: &mut Reader) -> UpstreamTarget {
    let target = reader.required("upstream.url", |value| target_of_text(value.as_str().unwrap_or_default()));
    let shown = match &target {
        UpstreamTarget::Mock => "mock:".to_owned(),
        UpstreamTarget::Http(uri) => uri.to_string().trim_end_matches('/').to_owned(),
    };
    reader.show("upstream.url", shown);
    target
}

/// Parses the base URL of a server.
pub(super) fn http_base(value: &Value) -> Result<Uri, String> {
    match target_of_text(value.as_str().unwrap_or_default())? {
        UpstreamTarget::Http(uri) => Ok(uri),
        UpstreamTarget::Mock => Err("must be http://HOST/PATH or https://HOST/PATH".to_owned()),
    }
}

/// Parses the upstream target. Messages omit the text, which may contain a password, or a key in its query.
pub(super) fn target_of_text(text: &str) -> Result<UpstreamTarget, String> {
    if text == "mock:" {
        return Ok(UpstreamTarget::Mock);
    }
    if text.contains(['?', '#']) {
        return Err("must not have a query or fragment".to_owned());
    }
    let form = || "must be http://HOST/PATH, https://HOST/PATH or mock:".to_owned();
    // Paths of requests are appended, so a slash at the end would be doubled.
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| form())?;
    let host = uri.host().unwrap_or_default();
    match (uri.scheme_str(), uri.authority()) {
        (_, Some(authority)) if authority.as_str().contains('@') => {
            Err("must not hold a user or password; use upstream.api_key".to_owned())
        }
        (Some("http" | "https"), Some(_)) if !host.is_empty() => Ok(UpstreamTarget::Http(uri)),
        _ => Err(form()),
    }
}

/// Words for the header of a key; `auto` depends on the address.
pub(super) const HEADERS: [(&str, Option<KeyHeader>); 3] =
    [("auto", None), ("authorization", Some(KeyHeader::Authorization)), ("api-key", Some(KeyHeader::ApiKey))];

fn key_header(reader: &mut Reader, target: &UpstreamTarget) -> KeyHeader {
    let header = reader.choice("upstream.api_key_header", &HEADERS).unwrap_or_else(|| usual_header(target));
    let shown = if header == KeyHeader::ApiKey { "api-key" } else { "authorization" };
    reader.show("upstream.api_key_header", shown);
    header
}

pub(super) fn usual_header(target: &UpstreamTarget) -> KeyHeader {
    let UpstreamTarget::Http(uri) = target else { return KeyHeader::Authorization };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    // Paths of Azure begin with `/openai`, also behind a gateway with another host.
    let azure = host.ends_with(".azure.com") || uri.path().starts_with("/openai");
    if azure { KeyHeader::ApiKey } else { KeyHeader::Authorization }
}

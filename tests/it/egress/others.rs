//! The choice of a proxy by curl, by the openai package and by vecho, with the same variables.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::script::PROXY_CHOICE;
use crate::harness::tinyproxy::Tinyproxy;
use crate::harness::{Client, Stub, Vecho};

/// Variables of one case, with `PROXY` for the URL of the proxy and `HOST` for the host and port of the upstream.
type Variables = &'static [(&'static str, &'static str)];

/// Each case: the variables; whether curl, the openai package and vecho call through the proxy.
const CASES: &[(Variables, [bool; 3])] = &[
    (&[("http_proxy", "PROXY")], [true, true, true]),
    (&[("ALL_PROXY", "PROXY")], [true, true, true]),
    (&[("all_proxy", "PROXY")], [true, true, true]),
    (&[("HTTPS_PROXY", "PROXY")], [false, false, false]),
    (&[("HTTP_PROXY", "PROXY")], [false, true, true]),
    (&[("HTTP_PROXY", "PROXY"), ("REQUEST_METHOD", "GET")], [false, false, false]),
    (&[("http_proxy", "PROXY"), ("REQUEST_METHOD", "GET")], [true, true, true]),
    (&[("HTTPS_PROXY", "PROXY"), ("http_proxy", "")], [false, false, false]),
    (&[("ALL_PROXY", "PROXY"), ("http_proxy", "")], [true, true, true]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "*")], [false, false, false]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "*"), ("no_proxy", "")], [false, true, true]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "127.0.0.1")], [false, false, false]),
    (&[("http_proxy", "PROXY"), ("no_proxy", "example.com,127.0.0.1")], [false, false, false]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "localhost,127.0.0.2")], [true, true, true]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "example.com 127.0.0.1")], [false, true, false]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "127.0.0.0/8")], [false, false, false]),
    (&[("http_proxy", "PROXY"), ("NO_PROXY", "HOST")], [true, false, false]),
];

/// Returns true if a call reached the stub through the proxy.
fn came_through_the_proxy(stub: &Stub, case: &str) -> bool {
    let calls = stub.calls();
    let call = calls.iter().find(|call| call.path.ends_with(&format!("?case={case}")));
    call.unwrap_or_else(|| panic!("no call of {case}")).header("via").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn vecho_chooses_the_proxy_that_curl_and_the_openai_package_choose() {
    let (stub, proxy) = (Stub::start(), Tinyproxy::start(&[]));
    let (url, host) = (proxy.url(""), stub.addr().to_string());
    let fill = |value: &str| value.replace("PROXY", &url).replace("HOST", &host);
    let cases: Vec<Vec<(&str, String)>> =
        CASES.iter().map(|(set, _)| set.iter().map(|(name, value)| (*name, fill(value))).collect()).collect();
    let objects: Vec<Value> =
        cases.iter().map(|set| set.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()).collect();
    let mut script = PROXY_CHOICE.command();
    script
        .env("BASE_URL", stub.base_url())
        .env("CONTROL_URL", stub.root_url())
        .env("CASES", json!(objects).to_string());
    assert_eq!(PROXY_CHOICE.report(script), json!({"cases": cases.len()}));
    for (number, (variables, (_, expected))) in cases.iter().zip(CASES).enumerate() {
        let mut curl = Command::new("curl");
        curl.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(variables.iter().cloned());
        curl.args(["--silent", "--max-time", "30", "--output", "/dev/null"]);
        let done = curl.arg(format!("{}/models?case=curl-{number}", stub.base_url())).status();
        assert!(done.expect("curl must run").success(), "{variables:?}");
        let own: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let vecho = Vecho::start_with(&stub.base_url(), &own);
        assert_eq!(Client::new().get(&format!("{}/models?case=vecho-{number}", vecho.base_url())).await.status, 200);
        let found = ["curl", "openai", "vecho"].map(|who| came_through_the_proxy(&stub, &format!("{who}-{number}")));
        assert_eq!(found, *expected, "curl, openai and vecho with {variables:?}");
    }
}

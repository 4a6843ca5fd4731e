//! Real SDKs report a spent budget at once, and do not sleep until midnight.

use serde_json::Value;

use crate::harness::ops::metric;
use crate::harness::script::{BUDGET_PYTHON, BUDGET_PYTHON_1, OPENAI_NODE, Script};
use crate::harness::{Stub, Vecho};

/// Runs a client against a vecho whose budget is spent, and returns its report. `run` gets the base URLs of vecho and of
/// the upstream.
async fn report(run: impl FnOnce(&str, &str) -> Value + Send + 'static) -> Value {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_BUDGET_TOKENS_PER_DAY", "1")]);
    let (base_url, root_url) = (vecho.base_url(), stub.root_url());
    let report = tokio::task::spawn_blocking(move || run(&base_url, &root_url)).await.expect("it must run");
    let rejected = metric(vecho.admin(), r#"vecho_rejected_total{reason="budget"}"#).await;
    assert!((rejected - 1.0).abs() < f64::EPSILON, "{rejected} attempts: {report}");
    assert!(stub.calls().is_empty());
    report
}

#[track_caller]
fn assert_told_at_once(report: &Value) {
    assert_eq!((&report["class"], &report["status"]), (&Value::from("RateLimitError"), &Value::from(429)), "{report}");
    assert_eq!(
        (&report["code"], &report["type"]),
        (&"budget_exhausted".into(), &"insufficient_quota".into()),
        "{report}"
    );
}

#[tokio::test]
async fn the_openai_package_for_python_fails_at_once() {
    assert_told_at_once(&report(|base, root| BUDGET_PYTHON.run(base, root)).await);
}

#[tokio::test]
async fn the_openai_package_for_python_in_version_1_fails_at_once() {
    assert_told_at_once(&report(|base, root| BUDGET_PYTHON_1.run(base, root)).await);
}

#[tokio::test]
async fn the_openai_package_for_node_fails_at_once() {
    let run = |base: &str, _: &str| {
        let mut command = Script::node(include_str!("../../clients/node/budget.mjs"));
        command.env("BASE_URL", base);
        OPENAI_NODE.report(command)
    };
    assert_told_at_once(&report(run).await);
}

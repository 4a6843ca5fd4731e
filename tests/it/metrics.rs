//! The metrics, checked with Prometheus's own checker and against the documentation.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use vecho::observe::metrics::{Metrics, catalogue_markdown};

#[test]
fn promtool_finds_no_fault_in_a_scrape() {
    let (_, text) = Metrics::new("1.2.3").render();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool: `apt-get install --no-install-recommends prometheus`");
    promtool.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).expect("promtool reads its input");
    let said = promtool.wait_with_output().expect("promtool ends");
    let faults = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && faults.is_empty(), "{faults}");
}

#[test]
fn the_documentation_lists_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let expected = document();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &expected).expect("docs/METRICS.md is writable");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == expected, "docs/METRICS.md is out of date: run this test with UPDATE_FIXTURES=1");
}

fn document() -> String {
    format!(
        "# Metrics\n\n`GET /metrics` on the ops port returns these metrics in Prometheus's text format. Every counter starts at \
         zero for every label value. This file is written from the catalogue in `src/observe/metrics/catalogue.rs` by \
         the test `the_documentation_lists_the_catalogue` with `UPDATE_FIXTURES=1`.\n\n{}",
        catalogue_markdown()
    )
}

//! Attributes of spans, against the document that lists them.

use std::collections::BTreeSet;
use std::path::Path;

use vecho::observe::traces::attribute::{ATTRIBUTES, tables_markdown};

#[test]
fn the_documentation_lists_the_tables_of_spans_and_attributes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TRACES.md");
    let expected = document();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &expected).expect("docs/TRACES.md is writable");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == expected, "docs/TRACES.md is out of date: run this test with UPDATE_FIXTURES=1");
}

#[test]
fn every_attribute_has_its_own_name() {
    let names: BTreeSet<&str> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
    assert_eq!(names.len(), ATTRIBUTES.len());
}

fn document() -> String {
    format!(
        "# Traces\n\nThe spans that vecho sends to `traces.endpoint`, and their attributes. Names are those of \
         OpenTelemetry's semantic conventions where it has one. This file is written from the tables in \
         `src/observe/traces/attribute.rs` by the test `the_documentation_lists_the_tables_of_spans_and_attributes` with \
         `UPDATE_FIXTURES=1`.\n\n{}",
        tables_markdown()
    )
}

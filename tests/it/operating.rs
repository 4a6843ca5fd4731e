//! The guide for operators against the program: sizes, defaults, and which keys are live.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use vecho::config::{ConfigKey, KEYS};

use crate::harness::client::post;
use crate::harness::ops::{metric, metric_becomes};
use crate::harness::{Client, Vecho};

const MODEL: &str = "text-embedding-3-small";

/// Overhead of an entry of [`MODEL`] beside its components, in bytes, according to the guide.
const MEMORY_BESIDE: u64 = 246;
const DISK_BESIDE: u64 = 174;
const FILE_BESIDE: u64 = 158;

fn guide() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md");
    fs::read_to_string(path).expect("the guide is there")
}

/// Returns the cells of each row of the table with a head that begins with `head`.
fn rows<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows: Vec<_> = lines.map_while(|line| line.strip_prefix("| ")).map(|row| row.split(" | ").collect()).collect();
    assert!(rows.len() > 1, "there is no table under {head}");
    rows
}

fn number(cell: &str) -> u64 {
    let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{cell:?} is not a number"))
}

#[test]
fn the_sizes_of_the_guide_follow_from_its_formulas() {
    let text = guide();
    for (name, beside) in [("memory", MEMORY_BESIDE), ("disk", DISK_BESIDE), ("export", FILE_BESIDE)] {
        assert!(text.contains(&format!("| {name} | numbers + {beside} |")), "the formula of {name}");
    }
    for row in rows(&text, "| dimensions | numbers, bytes |") {
        let (dimensions, numbers) = (number(row[0]), number(row[1]));
        assert_eq!(numbers, 2 * dimensions + 4, "a half for each component and one norm");
        let costs = [number(row[2]), number(row[3]), number(row[4])];
        assert_eq!(costs, [MEMORY_BESIDE, DISK_BESIDE, FILE_BESIDE].map(|beside| numbers + beside), "{dimensions}");
    }
}

/// The built-in mock's vectors cannot be packed without loss, so they take four bytes per component.
#[tokio::test]
async fn the_size_of_an_entry_matches_the_guide() {
    const ENTRIES: u16 = 500;
    let (vecho, client) = (Vecho::start_with("mock:", &[]), Client::new());
    let texts: Vec<String> = (0..ENTRIES).map(|at| format!("text {at}")).collect();
    let body = json!({"model": MODEL, "input": texts, "encoding_format": "base64"});
    let answer = client.send(post(&format!("{}/embeddings", vecho.base_url()), &body)).await.expect("it answers");
    assert_eq!(answer.status, 200);
    let entries = u64::from(ENTRIES);
    for (tier, beside) in [("memory", MEMORY_BESIDE), ("disk", DISK_BESIDE)] {
        metric_becomes(vecho.admin(), &format!("vecho_cache_entries{{tier=\"{tier}\"}}"), f64::from(ENTRIES)).await;
        let bytes = metric(vecho.admin(), &format!("vecho_cache_bytes{{tier=\"{tier}\"}}")).await;
        let each = bytes / f64::from(ENTRIES);
        let said = f64::from(u32::try_from(4 * 1536 + beside).expect("an entry is small"));
        // All entries share the fixed overhead of the folder.
        assert!((each - said).abs() < 20.0, "{tier}: {each} bytes, and the guide says {said}");
    }
    let file = client.get(&vecho.ops_url("/api/performance/cache/export")).await.body.len() as u64;
    let said = entries * (4 * 1536 + FILE_BESIDE);
    assert!((said..said + 200).contains(&file), "{file} bytes, and the guide says {said}");
}

#[test]
fn defaults_quoted_in_the_guide_are_the_real_ones() {
    let (text, known): (_, BTreeMap<&str, &ConfigKey>) = (guide(), KEYS.iter().map(|key| (key.name, key)).collect());
    let pieces: Vec<&str> = text.split("` (default `").collect();
    assert!(pieces.len() > 5, "the guide quotes defaults");
    for pair in pieces.windows(2) {
        let name = pair[0].rsplit('`').next().expect("a piece is never empty");
        let said = pair[1].split('`').next().expect("a piece is never empty");
        let key = known.get(name).unwrap_or_else(|| panic!("there is no key {name}"));
        assert_eq!(said, key.default.trim_matches('"'), "the default of {name}");
    }
}

#[test]
fn the_guide_is_right_about_secret_rotation() {
    for row in rows(&guide(), "| secret | takes effect |") {
        let name = row[0].split('`').nth(1).expect("the first cell names a key");
        let key = KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("there is no key {name}"));
        // Key pairs are not part of the configuration values, and their files are read again.
        let at_once =
            key.live || name.starts_with("tls.") || matches!(name, "upstream.cert_file" | "upstream.key_file");
        assert_eq!(row[1].starts_with("at once"), at_once, "{name}: {}", row[1]);
    }
}

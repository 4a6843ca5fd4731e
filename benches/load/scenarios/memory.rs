//! Resident memory: with an empty cache, and per stored vector.

use std::time::Duration;

use serde_json::json;

use super::Stage;
use crate::Outcome;
use crate::bench::Bench;
use crate::report::Row;
use crate::shape::Shape;

/// Lets periodic housekeeping run before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// Inputs of one request while memory is filled.
const BATCH: usize = 64;

/// Measures an idle process with an empty cache.
pub(super) async fn idle(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = Stage::start(bench, 0, &[]).await?;
    tokio::time::sleep(SETTLE).await;
    let resident_mb = megabytes(stage.vecho.resident_bytes()?);
    let row = Row::limited("resident memory, idle", (15.0, resident_mb), |mb| format!("{mb:.1} MB"));
    Ok(vec![row.against("one worker, nothing stored".to_owned(), json!(null))])
}

/// Codecs and their limits in kB. A lossy codec changes the service's bits, so only the length of its vectors is
/// checked.
const CODECS: [(&str, f64); 4] = [("lossless", 3.6), ("bf16", 3.6), ("int8", 3.6), ("f32", 7.0)];

/// Measures growth per vector with all overhead, but without the reply cache, which has its own share of memory.
pub(super) async fn per_vector(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (codec, limit_kb) in CODECS {
        rows.extend(per_vector_of(bench, codec, limit_kb).await?);
    }
    Ok(rows)
}

async fn per_vector_of(bench: &Bench, codec: &str, limit_kb: f64) -> Outcome<Vec<Row>> {
    let codec_key = format!("cache.codec={codec}");
    let further = ["--set", "memory.limit_mb=4000", "--set", "cache.answers_percent=0", "--set", &codec_key];
    let stage = Stage::start(bench, 0, &further).await?;
    let shape = Shape { lossy: codec == "int8", ..Shape::default() };
    // Buffers, connections and the tokenizer (used only by hits) grow with the first requests, not with the vectors.
    for _ in 0..2 {
        stage.fill(&shape, u64::MAX - 1024..u64::MAX, BATCH).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = stage.vecho.resident_bytes()?;
    let mut rows = Vec::new();
    let mut filled = 0;
    for entries in [bench.scaled(10_000), bench.scaled(200_000)] {
        stage.fill(&shape, filled..entries, BATCH).await?;
        filled = entries;
        tokio::time::sleep(SETTLE).await;
        let grown = stage.vecho.resident_bytes()?.saturating_sub(before);
        stage.reset().await?;
        stage.fill(&shape, 0..entries.min(1000), BATCH).await?;
        stage.expect_inputs(0).await?;
        rows.push(per_vector_row(codec, limit_kb, entries, grown));
    }
    Ok(rows)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one process fit an f64")]
fn per_vector_row(codec: &str, limit_kb: f64, entries: u64, grown: u64) -> Row {
    let kilobytes = grown as f64 / entries as f64 / 1e3;
    let what = format!("memory per cached 1536-vector, everything counted, {codec}, {entries} of them");
    let row = Row::limited(&what, (limit_kb, kilobytes), |kb| format!("{kb:.2} KB"));
    let reference = "as f32 6.1 KB, as base64 8.2 KB, as JSON 19-33 KB; text of 500 bytes".to_owned();
    row.against(reference, json!({ "codec": codec, "entries": entries, "grown_bytes": grown }))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one process fit an f64")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

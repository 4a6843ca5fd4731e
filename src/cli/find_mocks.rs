//! `vecho find-mocks`: finds vectors with the watermark of mocks in files of JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::moving::STANDARD;
use super::output::{FAILED, FAULTY, OK, Output, print};
use super::progress::{counted, grouped};
use crate::process::lines::NumberedLines;
use crate::vector::{COMPONENT_BYTES, WATERMARK_COMPONENTS, is_marked};

/// Longest line. A response with thousands of long vectors is shorter.
const MAX_LINE_BYTES: usize = 1 << 28;

/// Maximum nesting that is searched.
const MAX_DEPTH: usize = 8;

/// Options of the command.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct FindMocksOptions {
    /// Files of JSON lines, such as the export of a vector store; - for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Numbers of what was read.
#[derive(Default)]
struct Findings {
    vectors: u64,
    mocks: u64,
    /// Lines that are not JSON.
    faulty: u64,
    /// Lines without a vector that is long enough.
    without: u64,
}

/// Prints the place of each line with a mock. Returns 0 if there is none, 1 if there is one, and 64 if a file cannot be
/// read, if all files are without vectors, or if no mock was found but some lines cannot be searched.
pub(super) fn find_mocks(options: &FindMocksOptions, output: &mut Output<'_>) -> u8 {
    let mut findings = Findings::default();
    for path in &options.files {
        let searched = open(path).and_then(|file| search(file, path, (&mut findings, &mut *output.out)));
        match searched {
            Ok(true) => {}
            Ok(false) => {
                print(output.err, "vecho: the result cannot be written");
                return FAULTY;
            }
            Err(error) => {
                print(output.err, &format!("vecho: {} cannot be read: {error}", path.display()));
                return FAULTY;
            }
        }
    }
    report(&findings, output.err)
}

/// Prints the numbers, and returns the exit status.
fn report(findings: &Findings, err: &mut dyn Write) -> u8 {
    let Findings { vectors, mocks, faulty, without } = *findings;
    if vectors > 0 {
        let are = if mocks == 1 { "is a mock" } else { "are mocks" };
        print(err, &format!("{} of {} {are}", grouped(mocks), counted(vectors, "vector")));
    }
    if faulty > 0 {
        print(err, &format!("warning: {} without valid JSON, not searched", counted(faulty, "line")));
    }
    if without > 0 {
        let lines = counted(without, "line");
        print(err, &format!("warning: {lines} without a vector of at least {WATERMARK_COMPONENTS} components"));
    }
    match (vectors, mocks) {
        // A file in another format must not pass for one without mocks, nor must one that is searched in part.
        (0, _) => {
            let cause = "vecho: no vector was found; the files need one JSON object or array per line";
            print(err, cause);
            FAULTY
        }
        (_, 0) if faulty > 0 => FAULTY,
        (_, 0) => OK,
        _ => FAILED,
    }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new(STANDARD) {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::new(File::open(path)?)))
}

/// Searches a file, and prints the place of each line that has a mock. Returns false if it cannot be printed.
fn search(file: impl BufRead, path: &Path, (findings, out): (&mut Findings, &mut dyn Write)) -> io::Result<bool> {
    let mut lines = NumberedLines::new(file, MAX_LINE_BYTES);
    while let Some(line) = lines.next_line()? {
        let json = line.bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(json) = json else {
            findings.faulty += 1;
            continue;
        };
        let (vectors_before, mocks_before) = (findings.vectors, findings.mocks);
        count(&json, MAX_DEPTH, findings);
        findings.without += u64::from(findings.vectors == vectors_before);
        if findings.mocks > mocks_before {
            let id = json.get("id").map_or_else(String::new, |id| format!("\t{id}"));
            if print(out, &format!("{}:{}{id}", path.display(), line.number)) != OK {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Counts the vectors in a value: lists of numbers, such lists as texts, and texts that are base64 of f32.
fn count(value: &Value, depth: usize, findings: &mut Findings) {
    let components = match value {
        Value::Array(items) => items.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>(),
        // A vector type of PostgreSQL is exported as such a text.
        Value::String(text) if text.starts_with('[') => serde_json::from_str(text).ok(),
        Value::String(text) => from_base64(text),
        _ => None,
    };
    if let Some(components) = components.filter(|components| components.len() >= WATERMARK_COMPONENTS) {
        findings.vectors += 1;
        findings.mocks += u64::from(is_marked(&components));
        return;
    }
    match value {
        Value::Array(items) if depth > 0 => items.iter().for_each(|item| count(item, depth - 1, findings)),
        Value::Object(members) if depth > 0 => members.values().for_each(|item| count(item, depth - 1, findings)),
        _ => {}
    }
}

/// Decodes a text that may be a vector in base64, as `encoding_format` of the API has it. A text that only looks so
/// decodes to numbers without the watermark.
fn from_base64(text: &str) -> Option<Vec<f64>> {
    let is_long = text.len() * 3 / 4 >= WATERMARK_COMPONENTS * COMPONENT_BYTES;
    let bytes = is_long.then(|| base64_simd::STANDARD.decode_to_vec(text).ok())??;
    let (components, rest) = bytes.as_chunks::<COMPONENT_BYTES>();
    rest.is_empty().then(|| components.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
}

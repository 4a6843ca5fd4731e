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

/// Numbers that JSON does not have. The longest name comes before its part.
const NO_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

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
        let json = line.bytes.and_then(|bytes| parse(&bytes));
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

/// Parses a line. Python's library writes NaN and infinite numbers, which are no JSON. They become null.
fn parse(line: &[u8]) -> Option<Value> {
    serde_json::from_slice(line).or_else(|_| serde_json::from_slice(&without_nan(line))).ok()
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of texts by `null`.
fn without_nan(line: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest, mut in_text) = (Vec::with_capacity(line.len()), line, false);
    while let [first, after @ ..] = rest {
        let found = NO_NUMBERS.iter().find(|name| !in_text && rest.starts_with(name));
        if let Some(name) = found {
            plain.extend_from_slice(b"null");
            rest = &rest[name.len()..];
            continue;
        }
        plain.push(*first);
        rest = after;
        match (first, after) {
            (b'"', _) => in_text = !in_text,
            // The escaped byte does not end the text.
            (b'\\', [escaped, after @ ..]) if in_text => {
                plain.push(*escaped);
                rest = after;
            }
            _ => {}
        }
    }
    plain
}

/// Counts the vectors in a value: lists of numbers, such lists as texts, and texts that are base64 of f32 or f64.
fn count(value: &Value, depth: usize, findings: &mut Findings) {
    let readings = match value {
        Value::Array(items) => numbers(items).into_iter().collect(),
        // A vector type of PostgreSQL is exported as such a text.
        Value::String(text) if text.starts_with('[') => match parse(text.as_bytes()) {
            Some(Value::Array(items)) => numbers(&items).into_iter().collect(),
            _ => Vec::new(),
        },
        Value::String(text) => from_base64(text),
        _ => Vec::new(),
    };
    if readings.iter().any(|components| components.len() >= WATERMARK_COMPONENTS) {
        findings.vectors += 1;
        findings.mocks += u64::from(readings.iter().any(|components| is_marked(components)));
        return;
    }
    match value {
        Value::Array(items) if depth > 0 => items.iter().for_each(|item| count(item, depth - 1, findings)),
        Value::Object(members) if depth > 0 => members.values().for_each(|item| count(item, depth - 1, findings)),
        _ => {}
    }
}

/// Returns the numbers of a list. A null among numbers stands for one that is not finite.
fn numbers(items: &[Value]) -> Option<Vec<f64>> {
    let is_vector = items.iter().any(Value::is_number);
    let number = |item: &Value| if item.is_null() { Some(f64::NAN) } else { item.as_f64() };
    is_vector.then(|| items.iter().map(number).collect())?
}

/// Decodes a text that may be a vector in base64: of f32, as `encoding_format` of the API has it, or of f64, as some
/// servers and stores write it. A text that only looks so decodes to numbers without the watermark.
fn from_base64(text: &str) -> Vec<Vec<f64>> {
    let is_long = text.len() * 3 / 4 >= WATERMARK_COMPONENTS * COMPONENT_BYTES;
    let bytes = is_long.then(|| base64_simd::STANDARD.decode_to_vec(text).ok()).flatten().unwrap_or_default();
    let (singles, rest) = bytes.as_chunks::<COMPONENT_BYTES>();
    let mut readings = Vec::new();
    if rest.is_empty() {
        readings.push(singles.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect());
    }
    let (doubles, rest) = bytes.as_chunks::<{ size_of::<f64>() }>();
    if rest.is_empty() {
        readings.push(doubles.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect());
    }
    readings
}

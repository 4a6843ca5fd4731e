//! Runs the corpora of the fuzz targets: each file unchanged, and mutated at random from a fixed seed.
//!
//! The checks are those of the targets. [fuzz/README.md](../../fuzz/README.md) describes how to run the targets.

#[path = "../../fuzz/checks/answers.rs"]
mod answers;
#[path = "../../fuzz/checks/exports.rs"]
mod exports;
#[path = "../../fuzz/checks/heads.rs"]
mod heads;
#[path = "../../fuzz/checks/purges.rs"]
mod purges;
#[path = "../../fuzz/checks/records.rs"]
mod records;
#[path = "../../fuzz/checks/requests.rs"]
mod requests;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::randomised::dice::Dice;

/// Time limit for the mutated files of one target.
const TIME: Duration = Duration::from_secs(2);

/// Number of mutated files per target, within the time limit.
const CHANGED: usize = 20_000;

/// Size limit of files that are mutated, in bytes.
const MAX_BYTES: usize = 4 * 1024;

/// Maximum number of files in all corpora together.
const MAX_FILES: usize = 300;

/// Numbers and byte sequences that parsers often handle as special cases.
const PIECES: [&[u8]; 10] = [
    b"18446744073709551615",
    b"null",
    b"-0",
    b"1e400",
    b"\xff\xff\xff\xff",
    b"\0",
    b"\xed\xa0\x80",
    b"\\ud800",
    b",",
    b"\r\n",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Returns the files of a target in a fixed order.
fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder().join(target)).expect("a target must have a corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a corpus must be readable").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file must be readable"))).collect()
}

fn replay(target: &str, check: fn(&[u8])) {
    let files = files(target);
    assert!(files.len() >= 10, "{target} has {} files", files.len());
    for (path, bytes) in &files {
        run(check, bytes, &path.display().to_string());
    }
    let (mut dice, begun) = (Dice::new(7), Instant::now());
    for number in 0..CHANGED {
        if begun.elapsed() > TIME {
            break;
        }
        let (path, bytes) = dice.pick(&files);
        let other = &files[dice.below(files.len())].1;
        let changed = changed(&bytes[..bytes.len().min(MAX_BYTES)], other, &mut dice);
        run(check, &changed, &format!("change {number} of {}", path.display()));
    }
}

/// Runs one check. If it fails, panics with the file's name and bytes.
fn run(check: fn(&[u8]), bytes: &[u8], name: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(bytes)));
    assert!(outcome.is_ok(), "{name} fails its check: {}", bytes.escape_ascii());
}

/// Applies one to three mutations, as a fuzzer does.
fn changed(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let from = dice.below(bytes.len() + 1);
        let until = bytes.len().min(from + dice.below(12));
        match dice.below(5) {
            0 if from < bytes.len() => bytes[from] ^= 1 << dice.below(8),
            1 => drop(bytes.drain(from..until)),
            2 => drop(bytes.splice(from..until, PIECES[dice.below(PIECES.len())].iter().copied())),
            3 => bytes = [&bytes[..until], &bytes[from..]].concat(),
            _ => {
                let at = dice.below(other.len() + 1);
                drop(bytes.splice(from..until, other[at..other.len().min(at + 40)].iter().copied()));
            }
        }
    }
    bytes
}

#[test]
fn requests_of_the_corpus_are_read_correctly() {
    replay("requests", requests::check);
}

#[test]
fn answers_of_the_corpus_are_accepted_only_if_complete() {
    replay("answers", answers::check);
}

#[test]
fn records_of_the_corpus_are_valid_only_if_unmodified() {
    replay("records", records::check);
}

#[test]
fn exports_of_the_corpus_round_trip() {
    replay("exports", exports::check);
}

#[test]
fn purge_lists_of_the_corpus_are_applied() {
    replay("purges", purges::check);
}

#[test]
fn http_heads_of_the_corpus_are_read_correctly() {
    replay("heads", heads::check);
}

#[test]
fn every_corpus_has_a_fuzz_target_and_is_small() {
    let folders = fs::read_dir(folder()).expect("there must be corpora");
    let mut targets: Vec<String> = folders
        .map(|entry| entry.expect("a corpus must be readable").file_name().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    assert_eq!(targets, ["answers", "exports", "heads", "purges", "records", "requests"]);
    let all: Vec<_> = targets.iter().flat_map(|target| files(target)).collect();
    assert!(all.len() <= MAX_FILES, "{} files", all.len());
    for (path, bytes) in all {
        assert!(bytes.len() <= 64 * 1024, "{} is large", path.display());
    }
}

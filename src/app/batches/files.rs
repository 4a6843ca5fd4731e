//! The two files of one job, and its counts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::keys::{BatchSample, KeySettings};
use super::lines::{BatchAnswer, MAX_REQUEST_BYTES, RequestLine, line_at};
use crate::process::lines::{Line, NumberedLines};

/// Counts of the lines and vectors in the answer file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Vectors that can be stored.
    pub vectors: u64,
    /// Lines with errors of the service.
    pub errors: u64,
    /// Unusable lines.
    pub unusable: u64,
}

/// The two files of one job.
#[derive(Debug)]
pub struct BatchFiles {
    pub(super) requests: PathBuf,
    pub(super) answers: PathBuf,
    /// Offset of each request by name; `None` if two requests have the same name.
    pub(super) places: HashMap<String, Option<u64>>,
    first: Option<u64>,
    pub(super) answered_ms: u64,
    requested_ms: u64,
}

/// Callback that reports an unusable line: its number and the reason.
pub type ReportLine = Box<dyn Fn(u64, &str) + Send>;

impl BatchFiles {
    /// Reads the offset of each request. Fails if the file holds answers instead. Blocks on the disk.
    pub fn open(requests: &Path, answers: &Path) -> io::Result<Self> {
        // Answers come in any order, so requests are found by offset. Their texts are not kept in memory.
        let mut places = HashMap::new();
        let (mut first, mut has_answers) = (None, false);
        let mut lines = NumberedLines::new(BufReader::new(File::open(requests)?), MAX_REQUEST_BYTES);
        while let Some(Line { offset, bytes, .. }) = lines.next_line()? {
            let Some(bytes) = bytes else { continue };
            let Ok(line) = serde_json::from_slice::<RequestLine<'_>>(&bytes) else {
                has_answers = has_answers || serde_json::from_slice::<BatchAnswer>(&bytes).is_ok();
                continue;
            };
            first.get_or_insert(offset);
            // If two requests have the same name, an answer cannot be matched to either.
            places.entry(line.custom_id).and_modify(|place| *place = None).or_insert(Some(offset));
        }
        if first.is_none() && has_answers {
            return Err(io::Error::other("the file of requests holds answers; are the two files swapped?"));
        }
        // The vectors are as old as this file, so the import does not prolong their life.
        let (answered_ms, requested_ms) = (written_ms(answers)?, written_ms(requests)?);
        let (requests, answers) = (requests.to_owned(), answers.to_owned());
        Ok(Self { requests, answers, places, first, answered_ms, requested_ms })
    }

    /// Returns the time before which the job cannot have begun, if the files were not changed since: that of its
    /// requests. A copy of them may be younger than the answers.
    pub fn began_ms(&self) -> u64 {
        self.requested_ms.min(self.answered_ms)
    }

    /// Returns the first request with its keys, if it can be cached. Blocks on the disk.
    pub fn sample(&self, key_settings: &KeySettings) -> Option<BatchSample> {
        let mut requests = File::open(&self.requests).ok()?;
        let bytes = line_at(&mut requests, self.first?).ok()?;
        let line: RequestLine<'_> = serde_json::from_slice(&bytes).ok()?;
        key_settings.sample(&line.url, line.body.get()).ok()
    }
}

/// Returns the time of the last change of a file in milliseconds since the Unix epoch.
fn written_ms(path: &Path) -> io::Result<u64> {
    let written = File::open(path)?.metadata()?.modified()?;
    let since_epoch = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

//! Imports the answers of a batch, and lists the inputs without one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::super::source::{Place, PlaceNames};
use super::part_files::{MAX_REQUEST_BYTES, parsed_id};
use super::remote::Refused;
use super::state::{FailedInput, MAX_NUMBER};
use crate::app::{BatchFiles, OfflineCache};
use crate::cache::transfer::Imported;
use crate::cli::batch::{BatchCaller, open_files};
use crate::cli::moving::{CommandError, VechoInstance};
use crate::cli::progress::counted;
use crate::process::lines::NumberedLines;

/// Files of an ended batch.
pub(super) struct BatchResults<'a> {
    pub(super) requests: &'a Path,
    /// Number of requests in that file.
    pub(super) count: u64,
    /// `None` if no request succeeded.
    pub(super) output: Option<&'a Path>,
    /// `None` if no request failed.
    pub(super) errors: Option<&'a Path>,
    /// Last status of the batch, the reason for requests without an answer.
    pub(super) status: &'a str,
    /// Start of the batch. Purges and forgets since then cover its vectors.
    pub(super) began_ms: u64,
    /// Model that the answers must name, if batches have a model of their own.
    pub(super) model: Option<&'a str>,
}

/// Result of an import.
#[derive(Default)]
pub(super) struct BatchImport {
    pub(super) fetched: u64,
    pub(super) billed: u64,
    pub(super) failed: Vec<FailedInput>,
    /// Vectors that the cache did not take, with the reason.
    pub(super) note: Option<String>,
}

/// A line of the output or of the errors.
#[derive(Deserialize)]
struct ResultLine {
    custom_id: String,
    #[serde(default)]
    response: Option<ResultResponse>,
    #[serde(default)]
    error: Option<ResultError>,
}

#[derive(Deserialize)]
struct ResultResponse {
    #[serde(default)]
    status_code: u16,
    #[serde(default)]
    body: Option<ResultBody>,
}

#[derive(Default, Deserialize)]
struct ResultBody {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<ResultUsage>,
    #[serde(default)]
    error: Option<ResultError>,
}

#[derive(Default, Deserialize)]
struct ResultUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct ResultError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl ResultLine {
    /// Returns the billed tokens, or the reason of the failure.
    fn outcome(self) -> Result<u64, Refused> {
        let response = self.response.unwrap_or(ResultResponse { status_code: 0, body: None });
        let body = response.body.unwrap_or_default();
        if response.status_code == 200 {
            let usage = body.usage.unwrap_or_default();
            return Ok(usage.total_tokens.or(usage.prompt_tokens).unwrap_or_default());
        }
        let error = self.error.or(body.error).unwrap_or_default();
        let status = || format!("status {}", response.status_code);
        Err(Refused::new(&error.code.unwrap_or_else(status), &error.message.unwrap_or_default()))
    }
}

impl BatchResults<'_> {
    /// Imports the vectors, and lists the inputs without one. A repeated import changes nothing.
    pub(super) async fn import(
        &self,
        caller: BatchCaller<'_>,
        names: &PlaceNames,
    ) -> Result<BatchImport, CommandError> {
        let max_answer_bytes = caller.config.upstream.max_answer_bytes;
        let mut open = requested(self.requests, self.count)?;
        let mut import = BatchImport::default();
        if let Some(output) = self.output {
            self.check_model(output, max_answer_bytes)?;
            let unusable = self.import_output(output, caller, &mut import).await?;
            each_line(output, max_answer_bytes, |number, line| {
                import.take_in(line, unusable.get(&number).map(String::as_str), &mut open, names);
            })?;
        }
        if let Some(errors) = self.errors {
            each_line(errors, max_answer_bytes, |_, line| import.take_in(line, None, &mut open, names))?;
        }
        // A cancelled or expired batch may say nothing about some of its requests.
        let silent =
            Refused::new(&format!("batch_{}", self.status), "the batch ended without an answer to this request");
        let mut silent: Vec<FailedInput> = open.iter().map(|id| failed(id, &silent, names)).collect();
        silent.sort_by_key(|failed| parsed_id(&failed.custom_id).map(|(file, number, _)| (file, number)));
        import.failed.extend(silent);
        Ok(import)
    }

    /// Fails if answers are from another model than live ones. Their vectors would be wrong answers to live requests.
    fn check_model(&self, output: &Path, max_answer_bytes: usize) -> Result<(), CommandError> {
        let Some(live) = self.model else { return Ok(()) };
        let mut other = None;
        each_line(output, max_answer_bytes, |_, line| {
            let body = line.response.and_then(|response| response.body);
            let model = body.and_then(|body| body.model).filter(|model| model != live);
            other = other.take().or(model);
        })?;
        other.map_or(Ok(()), |other| {
            Err(format!(
                "the batch was answered by {other}, and live requests by {live}; nothing was imported, because --batch-model \
                 is another model than --model. The results are in {}",
                output.display()
            ))
        })
    }

    /// Imports the vectors of the output, and returns the reasons of its unusable lines by their number.
    async fn import_output(
        &self,
        output: &Path,
        caller: BatchCaller<'_>,
        import: &mut BatchImport,
    ) -> Result<HashMap<u64, String>, CommandError> {
        let instance = VechoInstance::find(&caller.config, OfflineCache::open).await?;
        let files: BatchFiles = open_files(self.requests, output)?;
        let settings = caller.key_settings(&instance, &|settings| files.sample(settings)).await?;
        let unusable: Arc<Mutex<HashMap<u64, String>>> = Arc::default();
        let told = Arc::clone(&unusable);
        let tell = move |number: u64, cause: &str| {
            told.lock().unwrap_or_else(PoisonError::into_inner).insert(number, cause.to_owned());
        };
        let (records, _) = files.records(settings, Box::new(tell));
        import.note = checked(&instance.import(records, Some(self.began_ms)).await?)?;
        let unusable = std::mem::take(&mut *unusable.lock().unwrap_or_else(PoisonError::into_inner));
        match unusable.get(&0) {
            Some(cause) => Err(format!("{}: {cause}", output.display())),
            None => Ok(unusable),
        }
    }
}

impl BatchImport {
    fn take_in(&mut self, line: ResultLine, unusable: Option<&str>, open: &mut HashSet<String>, names: &PlaceNames) {
        // Only the first answer to a request of this part counts.
        let Some(custom_id) = open.take(&line.custom_id) else { return };
        let outcome = line.outcome();
        // A service may send any number.
        self.billed = self.billed.saturating_add(outcome.as_ref().copied().unwrap_or_default()).min(MAX_NUMBER);
        match (outcome, unusable) {
            (Ok(_), None) => self.fetched += 1,
            (Ok(_), Some(cause)) => self.failed.push(failed(&custom_id, &Refused::new("unusable", cause), names)),
            (Err(refused), _) => self.failed.push(failed(&custom_id, &refused, names)),
        }
    }
}

/// Lists all inputs of a part as failed for one reason.
pub(super) fn all_failed(
    (requests, count): (&Path, u64),
    refused: &Refused,
    names: &PlaceNames,
) -> Result<Vec<FailedInput>, CommandError> {
    let mut all: Vec<FailedInput> = requested(requests, count)?.iter().map(|id| failed(id, refused, names)).collect();
    all.sort_by_key(|failed| parsed_id(&failed.custom_id).map(|(file, number, _)| (file, number)));
    Ok(all)
}

fn failed(custom_id: &str, refused: &Refused, names: &PlaceNames) -> FailedInput {
    let place = parsed_id(custom_id).map(|(file, number, _)| names.of(Place { file, number }));
    let Refused { code, message } = refused.clone();
    FailedInput { custom_id: custom_id.to_owned(), place: place.unwrap_or_default(), code, message }
}

/// Returns the names of all requests of a part. Fails if the file does not hold `count` of them any more.
fn requested(requests: &Path, count: u64) -> Result<HashSet<String>, CommandError> {
    let mut names = HashSet::new();
    each_line(requests, MAX_REQUEST_BYTES, |_, line| {
        names.insert(line.custom_id);
    })?;
    if names.len() as u64 != count {
        let (path, found) = (requests.display(), names.len());
        return Err(format!(
            "{path} holds {found} of its {count} requests, so it was changed or cut; the state and the results of the \
             batch are kept: restore the file, then run the command again"
        ));
    }
    Ok(names)
}

/// Calls `visit` with each line that can be read, and its number.
fn each_line(path: &Path, max_bytes: usize, mut visit: impl FnMut(u64, ResultLine)) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut lines = NumberedLines::new(BufReader::new(File::open(path).map_err(failed)?), max_bytes);
    while let Some(line) = lines.next_line().map_err(failed)? {
        if let Some(read) = line.bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            visit(line.number, read);
        }
    }
    Ok(())
}

/// Returns a note about records that the cache did not take. Fails if they must be imported again.
fn checked(imported: &Imported) -> Result<Option<String>, CommandError> {
    match imported {
        Imported { whole: false, .. } => Err("the import broke off".to_owned()),
        Imported { unwritten: 1.., .. } => {
            let records = counted(imported.unwritten, "record");
            Err(format!("a tier below memory is down or slow, and left out {records}"))
        }
        Imported { lossy, expired, purged, .. } if lossy + expired + purged > 0 => Ok(Some(format!(
            "the cache did not take {}: expired, purged or forgotten meanwhile, or with less precision than cache.codec allows",
            counted(lossy + expired + purged, "vector")
        ))),
        _ => Ok(None),
    }
}

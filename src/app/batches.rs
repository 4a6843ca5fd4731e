//! Reads the files of an OpenAI batch job (its requests and their answers) as records.
//!
//! A vector of a job gets the same key as a live request for its text. The same functions as for live requests
//! therefore read keys and answers, with the same checks.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, Uri};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::cache::at_rest::{self, ChecksumKeys};
use crate::cache::transfer::{ExportFile, Pieces, file_of};
use crate::cache::{Record, Times};
use crate::config::Config;
use crate::flow::{space_key, speaks_f32};
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::process::lines::{Line, NumberedLines};
use crate::proxy::{path_model, read_origin};
use crate::upstream::{RouteKind, classify_path};
use crate::wire::tokens;
use crate::wire::{Base64, EmbedRequest, Encoding, Expected, Input, InputKind, ReadAnswer, read_answer, read_request};

/// Longest line of requests. A line is bounded because the service limits inputs and tokens.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// A line of the request file.
#[derive(Deserialize)]
struct RequestLine<'a> {
    custom_id: String,
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// A line of the answer file.
#[derive(Deserialize)]
struct AnswerLine<'a> {
    custom_id: String,
    #[serde(borrow, default)]
    response: Option<BatchResponse<'a>>,
}

/// Matches a line that has `response`, even a null one: only answers have this member.
#[derive(Deserialize)]
struct BatchAnswer {
    #[serde(rename = "response")]
    _response: IgnoredAny,
}

#[derive(Deserialize)]
struct BatchResponse<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Settings that determine a request's keys, together with the request.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The configuration of the target instance.
    pub config: Config,
    /// The headers of its callers.
    pub headers: HeaderMap,
}

/// One request of a job with the keys of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSample {
    /// Path of the request.
    pub url: String,
    /// Body of the request.
    pub body: String,
    /// Keys of the inputs in their order.
    pub keys: Vec<Key>,
    /// Key of their space.
    pub space: Key,
}

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
    requests: PathBuf,
    answers: PathBuf,
    /// Offset of each request by name; `None` if two requests have the same name.
    places: HashMap<String, Option<u64>>,
    first: Option<u64>,
    answered_ms: u64,
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
        let written = File::open(answers)?.metadata()?.modified()?;
        let since_epoch = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let answered_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { requests: requests.to_owned(), answers: answers.to_owned(), places, first, answered_ms })
    }

    /// Returns the first request with its keys, if it can be cached. Blocks on the disk.
    pub fn sample(&self, key_settings: &KeySettings) -> Option<BatchSample> {
        let mut requests = File::open(&self.requests).ok()?;
        let bytes = line_at(&mut requests, self.first?).ok()?;
        let line: RequestLine<'_> = serde_json::from_slice(&bytes).ok()?;
        key_settings.sample(&line.url, line.body.get()).ok()
    }

    /// Converts all answers to an export file whose records are as old as the answer file. The counts are complete at
    /// its end.
    pub fn records(self, key_settings: KeySettings, report: ReportLine) -> (Pieces<'static>, Arc<Mutex<BatchCounts>>) {
        let counts = Arc::new(Mutex::new(BatchCounts::default()));
        let shared = Arc::clone(&counts);
        let pieces = file_of(move |file| {
            let mut reading = Reading { files: self, key_settings, lengths: HashMap::new(), answered: HashSet::new() };
            let read = reading.write(file, &report, &shared);
            read.unwrap_or_else(|error| {
                report(0, &error.to_string());
                ControlFlow::Break(())
            })
        });
        (pieces, counts)
    }
}

/// A parsed request.
struct BatchLine<'a> {
    request: EmbedRequest<'a>,
    uri: Uri,
    space: Key,
    keys: Vec<Key>,
}

impl KeySettings {
    /// Returns an embeddings request to this path with its keys, or the reason why it is not cached.
    pub fn sample(&self, url: &str, body: &str) -> Result<BatchSample, String> {
        let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let line = RequestLine { custom_id: String::new(), method: None, url: url.to_owned(), body };
        let keyed = self.read(&line)?;
        Ok(BatchSample { url: line.url.clone(), body: body.get().to_owned(), keys: keyed.keys, space: keyed.space })
    }

    fn read<'a>(&self, line: &RequestLine<'a>) -> Result<BatchLine<'a>, String> {
        let url: Uri = line.url.parse().map_err(|_| "its url is not one")?;
        let origin = read_origin(&self.config, &url, &self.headers).map_err(|error| error.to_string())?;
        let kind = classify_path(origin.uri.path());
        if kind == RouteKind::Other || line.method.as_deref().is_some_and(|method| method != Method::POST.as_str()) {
            return Err("it is no request for embeddings".to_owned());
        }
        let request = read_request(line.body.get().as_bytes(), &self.config.cache.extra_fields, path_model(kind))
            .map_err(|cause| format!("such a request is not cached ({})", cause.header_text()))?;
        let space = space_key(&origin.scope, &origin.uri, &request.space);
        let keys = request.inputs.iter().map(|input| input.key(&space)).collect();
        Ok(BatchLine { request, uri: origin.uri, space, keys })
    }
}

/// State while the files are read.
struct Reading {
    files: BatchFiles,
    key_settings: KeySettings,
    /// Vector lengths by space, proven by answers with decimal numbers.
    lengths: HashMap<Key, usize>,
    /// Offsets of the requests with an answer so far.
    answered: HashSet<u64>,
}

impl Reading {
    fn write(
        &mut self,
        file: &mut ExportFile,
        report: &ReportLine,
        counts: &Mutex<BatchCounts>,
    ) -> io::Result<ControlFlow<()>> {
        let mut requests = File::open(&self.files.requests)?;
        let max_bytes = self.key_settings.config.upstream.max_answer_bytes;
        let mut answers = NumberedLines::new(BufReader::new(File::open(&self.files.answers)?), max_bytes);
        while let Some(line) = answers.next_line()? {
            let records = self.records_of(line.bytes.as_deref(), &mut requests)?;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            match records {
                Ok(Some(records)) => {
                    counts.vectors += records.len() as u64;
                    // `add` may block on a slow reader, so the lock is released first.
                    drop(counts);
                    if records.iter().any(|(key, record)| file.add(key, record).is_break()) {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(None) => counts.errors += 1,
                Err(cause) => {
                    counts.unusable += 1;
                    report(line.number, &cause);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the records of one answer; `None` if it is an error of the service.
    fn records_of(&mut self, line: Option<&[u8]>, requests: &mut File) -> io::Result<Result<Option<Records>, String>> {
        // The outer error ends the import, and an inner one concerns only this line.
        let Some(line) = line else { return Ok(Err("it is too long".to_owned())) };
        let Ok(answer) = serde_json::from_slice::<AnswerLine<'_>>(line) else {
            return Ok(Err("it is no answer of a batch".to_owned()));
        };
        let Some(response) = answer.response.filter(|response| response.status_code == 200) else {
            return Ok(Ok(None));
        };
        let offset = match self.files.places.get(&answer.custom_id) {
            Some(Some(offset)) => *offset,
            Some(None) => return Ok(Err("several requests have its custom_id".to_owned())),
            None => return Ok(Err("no request has its custom_id".to_owned())),
        };
        // Two answers to one request may differ, and nothing tells which of them is right. The first one counts.
        if !self.answered.insert(offset) {
            return Ok(Err("an earlier line has its custom_id".to_owned()));
        }
        let bytes = line_at(requests, offset)?;
        Ok(serde_json::from_slice::<RequestLine<'_>>(&bytes)
            .map_err(|_| "its request changed meanwhile".to_owned())
            .and_then(|request| self.key_settings.read(&request))
            .and_then(|line| self.verify(&line, response.body))
            .map(Some))
    }

    /// Checks an answer and returns its records. Fails if the answer must not be stored.
    fn verify(&mut self, line: &BatchLine<'_>, body: &RawValue) -> Result<Records, String> {
        let request = &line.request;
        let dimension = request.space.dimensions.map(|dimension| dimension as usize);
        let proven = dimension.or_else(|| self.lengths.get(&line.space).copied());
        // Without a known length, base64 may contain float64 as well as f32.
        let base64 = match proven {
            _ if speaks_f32(&self.key_settings.config.upstream.target, &line.uri) => Base64::Trusted,
            Some(length) => Base64::Proven(length),
            None => Base64::Unproven,
        };
        let known = self.lengths.get(&line.space).copied();
        let expected = Expected { inputs: request.inputs.len(), asked: dimension, known, base64 };
        let answer = read_answer(body.get().as_bytes(), &expected).map_err(|unreadable| unreadable.to_string())?;
        // Numbers are unambiguous, so their length later proves base64 of the same space.
        if let Some(vector) = answer.vectors.first().filter(|_| request.encoding == Encoding::Float) {
            self.lengths.insert(line.space, vector.dimension());
        }
        Ok(self.records(line, &answer))
    }

    fn records(&self, line: &BatchLine<'_>, answer: &ReadAnswer) -> Records {
        let asked_model = line.request.space.model_name();
        let model: Arc<str> = Arc::from(answer.model.as_deref().unwrap_or(asked_model));
        let asked_as = if asked_model.is_empty() { Arc::clone(&model) } else { Arc::from(asked_model) };
        let is_openai = speaks_f32(&self.key_settings.config.upstream.target, &line.uri);
        let (times, counts) = (self.times(), token_counts(&line.request, answer, is_openai));
        let checksum_keys = ChecksumKeys::new(self.key_settings.config.cache.key_secret.as_ref());
        let records = line.keys.iter().zip(answer.vectors.iter().zip(counts)).map(|(key, (vector, tokens))| {
            let identity = ModelIdentity { model: Arc::clone(&model), dimension: vector.dimension() };
            // The importing instance assigns its own purge count.
            let record = Record::new(vector.clone(), identity, times, tokens).asked_as(&asked_as);
            (*key, at_rest::to_bytes(&record, 0, &checksum_keys.of(key)))
        });
        records.collect()
    }

    fn times(&self) -> Times {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (cache, created_ms) = (&self.key_settings.config.cache, self.files.answered_ms);
        let fresh_until_ms = created_ms.saturating_add(millis(cache.ttl));
        Times { created_ms, fresh_until_ms, stale_until_ms: fresh_until_ms.saturating_add(millis(cache.stale_for)) }
    }
}

/// Serialized records with their keys.
type Records = Vec<(Key, Vec<u8>)>;

/// Returns the tokens of each input as far as the answer's total determines them. Texts of OpenAI's own models are
/// counted later, on first use.
fn token_counts(request: &EmbedRequest<'_>, answer: &ReadAnswer, is_openai: bool) -> Vec<Option<u32>> {
    let inputs = &request.inputs;
    let counts_itself = is_openai && answer.model.as_deref().is_some_and(tokens::counts_with_cl100k);
    match answer.prompt_tokens {
        Some(sum) if inputs.len() == 1 => vec![u32::try_from(sum).ok()],
        _ if request.kind() == InputKind::Tokens => inputs.iter().map(|input| Some(input.counted_tokens())).collect(),
        Some(sum) if !counts_itself => {
            let weights: Vec<usize> = inputs.iter().map(Input::estimated_tokens).collect();
            tokens::apportion(sum, &weights).into_iter().map(Some).collect()
        }
        _ => vec![None; inputs.len()],
    }
}

fn line_at(file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let line = NumberedLines::new(BufReader::new(file.by_ref()), MAX_REQUEST_BYTES).next_line()?;
    Ok(line.and_then(|line| line.bytes).unwrap_or_default())
}

//! Reads the answers of a job and converts them to records.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;

use super::files::{BatchCounts, BatchFiles, ReportLine};
use super::keys::{BatchLine, KeySettings};
use super::lengths::VectorLengths;
use super::lines::{AnswerLine, RequestLine, line_at};
use crate::cache::at_rest::{self, ChecksumKeys};
use crate::cache::transfer::{ExportFile, Pieces, file_of};
use crate::cache::{Record, Times};
use crate::flow::speaks_f32;
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::process::lines::NumberedLines;
use crate::wire::tokens;
use crate::wire::{Base64, EmbedRequest, Encoding, Expected, Input, InputKind, ReadAnswer, read_answer};

impl BatchFiles {
    /// Converts all answers to an export file whose records are as old as the answer file. The counts are complete at
    /// its end.
    pub fn records(self, key_settings: KeySettings, report: ReportLine) -> (Pieces<'static>, Arc<Mutex<BatchCounts>>) {
        let counts = Arc::new(Mutex::new(BatchCounts::default()));
        let shared = Arc::clone(&counts);
        let pieces = file_of(move |file| {
            let read = Reading::new(self, key_settings).and_then(|reading| reading.write(file, &report, &shared));
            read.unwrap_or_else(|error| {
                report(0, &error.to_string());
                ControlFlow::Break(())
            })
        });
        (pieces, counts)
    }
}

/// Reads the answers of a job. It reads them twice: the first time for the lengths of their vectors.
struct Reading {
    files: BatchFiles,
    key_settings: KeySettings,
    lengths: VectorLengths,
}

impl Reading {
    /// Reads the lengths of all vectors. Blocks on the disk.
    fn new(files: BatchFiles, key_settings: KeySettings) -> io::Result<Self> {
        let mut reading = Self { files, key_settings, lengths: VectorLengths::default() };
        let mut lengths = VectorLengths::default();
        let measure = |line: &BatchLine<'_>, body: &RawValue| {
            reading.measure(line, body, &mut lengths);
            Ok(())
        };
        // A line that cannot be used is reported when it is read again. Nothing ends the first pass early.
        let _: ControlFlow<()> = reading.each_answer(measure, |_, _| ControlFlow::Continue(()))?;
        reading.lengths = lengths;
        Ok(reading)
    }

    /// Writes the records of all answers. Blocks on the disk.
    fn write(
        &self,
        file: &mut ExportFile,
        report: &ReportLine,
        counts: &Mutex<BatchCounts>,
    ) -> io::Result<ControlFlow<()>> {
        self.each_answer(
            |line, body| self.verify(line, body),
            |number, records| {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                match records {
                    Ok(Some(records)) => {
                        counts.vectors += records.len() as u64;
                        // `add` may block on a slow reader, so the lock is released first.
                        drop(counts);
                        return records.iter().try_for_each(|(key, record)| file.add(key, record));
                    }
                    Ok(None) => counts.errors += 1,
                    Err(cause) => {
                        counts.unusable += 1;
                        report(number, &cause);
                    }
                }
                ControlFlow::Continue(())
            },
        )
    }

    /// Reads each answer with `read` and hands the number of its line and the result to `take`: `None` if it is an
    /// error of the service. Returns an error if a file cannot be read.
    fn each_answer<T>(
        &self,
        mut read: impl FnMut(&BatchLine<'_>, &RawValue) -> Result<T, String>,
        mut take: impl FnMut(u64, Result<Option<T>, String>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let mut requests = File::open(&self.files.requests)?;
        let max_bytes = self.key_settings.config.upstream.max_answer_bytes;
        // Two answers to one request may differ, and nothing tells which of them is right. The first one counts.
        let mut answered = HashSet::new();
        let mut answers = NumberedLines::new(BufReader::new(File::open(&self.files.answers)?), max_bytes);
        while let Some(line) = answers.next_line()? {
            let files = (&mut requests, &mut answered);
            let read = self.read_answer_line(line.bytes.as_deref(), files, &mut read)?;
            if take(line.number, read).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads one answer together with its request. The outer error ends the import, and an inner one concerns only this
    /// line. `requests` is the file of requests, and `answered` holds the offsets of those with an answer so far.
    fn read_answer_line<T>(
        &self,
        line: Option<&[u8]>,
        (requests, answered): (&mut File, &mut HashSet<u64>),
        read: impl FnOnce(&BatchLine<'_>, &RawValue) -> Result<T, String>,
    ) -> io::Result<Result<Option<T>, String>> {
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
        if !answered.insert(offset) {
            return Ok(Err("an earlier line has its custom_id".to_owned()));
        }
        let bytes = line_at(requests, offset)?;
        Ok(serde_json::from_slice::<RequestLine<'_>>(&bytes)
            .map_err(|_| "its request changed meanwhile".to_owned())
            .and_then(|request| self.key_settings.read(&request))
            .and_then(|line| read(&line, response.body))
            .map(Some))
    }

    /// Counts the vectors of an answer by their length. Base64 of unknown content has none.
    fn measure(&self, line: &BatchLine<'_>, body: &RawValue, lengths: &mut VectorLengths) {
        let is_trusted = self.speaks_f32();
        if line.request.encoding != Encoding::Float && !is_trusted {
            return;
        }
        let base64 = if is_trusted { Base64::Trusted } else { Base64::Unproven };
        let expected = Expected { inputs: line.request.inputs.len(), asked: line.asked(), known: None, base64 };
        if let Ok(answer) = read_answer(body.get().as_bytes(), &expected) {
            answer.vectors.iter().for_each(|vector| lengths.count(line.space, vector.dimension()));
        }
    }

    /// Checks an answer and returns its records. Fails if the answer must not be stored.
    fn verify(&self, line: &BatchLine<'_>, body: &RawValue) -> Result<Records, String> {
        let known = self.lengths.of(&line.space)?;
        // Without a known length, base64 may contain float64 as well as f32.
        let base64 = match line.asked().or(known) {
            _ if self.speaks_f32() => Base64::Trusted,
            Some(length) => Base64::Proven(length),
            None => Base64::Unproven,
        };
        let expected = Expected { inputs: line.request.inputs.len(), asked: line.asked(), known, base64 };
        let answer = read_answer(body.get().as_bytes(), &expected).map_err(|unreadable| unreadable.to_string())?;
        Ok(self.records(line, &answer))
    }

    fn speaks_f32(&self) -> bool {
        speaks_f32(&self.key_settings.config)
    }

    fn records(&self, line: &BatchLine<'_>, answer: &ReadAnswer) -> Records {
        let asked_model = line.request.space.model_name();
        let model: Arc<str> = Arc::from(answer.model.as_deref().unwrap_or(asked_model));
        let asked_as = if asked_model.is_empty() { Arc::clone(&model) } else { Arc::from(asked_model) };
        let (times, counts) = (self.times(), token_counts(&line.request, answer, self.speaks_f32()));
        let checksum_keys = ChecksumKeys::new(self.key_settings.config.cache.key_secret.as_ref());
        let records = line.keys.iter().zip(answer.vectors.iter().zip(counts)).map(|(key, (vector, tokens))| {
            let identity = ModelIdentity { model: Arc::clone(&model), dimension: vector.dimension(), revision: 0 };
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

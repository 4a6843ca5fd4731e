//! Moves the parts of a job through their steps.

use std::time::Duration;

use tokio::time::sleep;

use super::super::source::PlaceNames;
use super::answers::{BatchImport, BatchResults, all_failed};
use super::api::{BatchApi, BatchObject};
use super::part_files::{MAX_FILE_BYTES, PartLimits, PartWriter, uploaded_file};
use super::remote::{Refused, RemoteError, is_token_limit};
use super::split::{named_limit, split};
use super::state::{JobPart, JobState, PartStep};
use super::state_file::{PartFile, StateFile};
use crate::cli::batch::BatchCaller;
use crate::cli::moving::CommandError;
use crate::cli::progress::{ProgressDisplay, grouped};
use crate::process::clock::Clock;

/// Longest wait for room in the limit of enqueued tokens, in multiples of the interval of polls.
const MAX_WAIT_POLLS: u32 = 32;

/// A job that runs.
pub(super) struct JobRun<'a> {
    pub(super) api: BatchApi,
    pub(super) state_file: &'a StateFile,
    pub(super) state: JobState,
    pub(super) caller: BatchCaller<'a>,
    pub(super) progress: &'a ProgressDisplay,
    pub(super) poll: Duration,
    /// True if base64 of this service is f32.
    pub(super) is_f32: bool,
    pub(super) keeps_files: bool,
    pub(super) is_quiet: bool,
    /// Requests that the progress display shows as ended.
    pub(super) shown: u64,
}

/// Result of a step.
enum Advanced {
    /// The next step can be taken now.
    Next,
    /// The service needs time.
    Wait,
}

/// Reason why a step has no result.
enum StepError {
    /// The service refuses this part. Other parts are not affected.
    Part(Refused),
    /// The limit of enqueued tokens is reached.
    TokenLimit(Refused),
    /// The command must end. Its state remains.
    Stop(CommandError),
}

impl JobRun<'_> {
    /// Runs all parts to their end.
    pub(super) async fn run(&mut self) -> Result<(), CommandError> {
        // What was loaded may have begun before a kill. Later steps of this process are not in doubt.
        let mut in_doubt = vec![true; self.state.parts.len()];
        loop {
            let mut is_waiting = false;
            // A part may be divided into new ones, which are at the end.
            let mut part = 0;
            while part < self.state.parts.len() {
                in_doubt.resize(self.state.parts.len(), false);
                while self.state.parts[part].step != PartStep::Done {
                    match self.advance(part, in_doubt[part]).await? {
                        Advanced::Next => in_doubt[part] = false,
                        Advanced::Wait => {
                            is_waiting = true;
                            break;
                        }
                    }
                }
                part += 1;
            }
            if !is_waiting {
                return Ok(());
            }
            sleep(self.poll).await;
        }
    }

    async fn advance(&mut self, part: usize, in_doubt: bool) -> Result<Advanced, CommandError> {
        let result = match self.state.parts[part].step {
            PartStep::Planned => {
                self.set(part, |part| part.step = PartStep::Uploading).map(|()| Advanced::Next).map_err(StepError::Stop)
            }
            PartStep::Uploading => self.upload(part, in_doubt).await,
            PartStep::Uploaded => self.begin_batch(part).await,
            PartStep::Creating => self.create(part, in_doubt).await,
            PartStep::Created => self.watch(part).await,
            PartStep::Waiting => self.wait(part),
            PartStep::Ended => self.download(part).await,
            PartStep::Downloaded => self.import(part).await,
            PartStep::Imported => self.clean(part).await,
            PartStep::Done => Ok(Advanced::Wait),
        };
        match result {
            Ok(advanced) => Ok(advanced),
            Err(StepError::Stop(cause)) => Err(cause),
            Err(StepError::Part(refused)) => self.give_up(part, &refused),
            Err(StepError::TokenLimit(refused)) => self.postpone(part, &refused),
        }
    }

    async fn upload(&mut self, part: usize, in_doubt: bool) -> Result<Advanced, StepError> {
        let (name, path) = (self.state.file_name(part), uploaded_file(self.state_file, self.state.parts[part].number));
        let file_id = self.api.upload(&name, &path, in_doubt).await.map_err(StepError::of_part)?;
        self.step(part, |part| {
            part.file_id = Some(file_id);
            part.step = PartStep::Uploaded;
        })
    }

    async fn begin_batch(&mut self, part: usize) -> Result<Advanced, StepError> {
        if !self.api.is_processed(self.file_id(part)).await.map_err(StepError::of_part)? {
            return Ok(Advanced::Wait);
        }
        self.step(part, JobPart::create_now)
    }

    async fn create(&mut self, part: usize, in_doubt: bool) -> Result<Advanced, StepError> {
        let created = self.api.create(self.file_id(part), &self.state.marks(part), in_doubt).await;
        let batch = created.map_err(StepError::of_part)?;
        self.step(part, |part| {
            part.batch_id = Some(batch.id);
            part.step = PartStep::Created;
        })
    }

    /// Asks for the status of the batch.
    async fn watch(&mut self, part: usize) -> Result<Advanced, StepError> {
        let id = self.state.parts[part].batch_id.clone().unwrap_or_default();
        let batch = self.api.batch(&id).await?;
        self.show(part, &batch);
        match batch.status.as_str() {
            "completed" | "expired" | "cancelled" => {
                let given = |id: Option<String>| id.filter(|id| !id.is_empty());
                self.step(part, |part| {
                    part.status = Some(batch.status);
                    part.output_id = given(batch.output_file_id);
                    part.errors_id = given(batch.error_file_id);
                    part.step = PartStep::Ended;
                })
            }
            "failed" => {
                let fault = batch.fault().unwrap_or_else(|| Refused::new("failed", "the service names no reason"));
                Err(if is_token_limit(&fault.code) { StepError::TokenLimit(fault) } else { StepError::Part(fault) })
            }
            // A status that is not known yet is not an end.
            _ => Ok(Advanced::Wait),
        }
    }

    fn wait(&mut self, part: usize) -> Result<Advanced, StepError> {
        if Clock::System.now_ms() < self.state.parts[part].retry_at_ms {
            return Ok(Advanced::Wait);
        }
        self.step(part, JobPart::create_now)
    }

    async fn download(&mut self, part: usize) -> Result<Advanced, StepError> {
        let JobPart { number, output_id, errors_id, .. } = self.state.parts[part].clone();
        for (id, file) in [(output_id, PartFile::Output), (errors_id, PartFile::Errors)] {
            if let Some(id) = id {
                self.api.download(&id, &self.state_file.of_part(number, file)).await?;
            }
        }
        self.step(part, |part| part.step = PartStep::Downloaded)
    }

    async fn import(&mut self, part: usize) -> Result<Advanced, StepError> {
        let JobPart { number, requests: count, output_id, errors_id, status, created_ms, .. } =
            self.state.parts[part].clone();
        let path = |file| self.state_file.of_part(number, file);
        let (output, errors) = (output_id.map(|_| path(PartFile::Output)), errors_id.map(|_| path(PartFile::Errors)));
        let results = BatchResults {
            requests: &path(PartFile::Requests),
            count,
            output: output.as_deref(),
            errors: errors.as_deref(),
            status: status.as_deref().unwrap_or_default(),
            began_ms: created_ms.unwrap_or(self.state.started_ms),
            model: self.state.live_model.as_deref(),
        };
        let imported = results.import(self.caller.clone(), &self.names()).await.map_err(StepError::Stop)?;
        let BatchImport { fetched, billed, failed, note } = imported;
        if let Some(note) = note {
            self.progress.say(&note);
        }
        self.state.failed.extend(failed);
        self.step(part, |part| {
            (part.fetched, part.billed) = (fetched, billed);
            part.step = PartStep::Imported;
        })
    }

    /// Deletes the files of a part, at the service and here.
    async fn clean(&mut self, part: usize) -> Result<Advanced, StepError> {
        let JobPart { number, file_id, .. } = self.state.parts[part].clone();
        if let Some(file_id) = file_id.filter(|_| !self.keeps_files)
            && let Err(error) = self.api.delete_file(&file_id).await
        {
            // All vectors are cached, so the file is only a leftover.
            self.progress.say(&format!("the uploaded file {file_id} could not be deleted: {error}"));
        }
        self.state_file.remove_part(number);
        self.step(part, |part| part.step = PartStep::Done)
    }

    /// Lists all inputs of a part as failed.
    fn give_up(&mut self, part: usize, refused: &Refused) -> Result<Advanced, CommandError> {
        let JobPart { number, requests: count, .. } = self.state.parts[part];
        self.progress.say(&format!("{}: the service refuses it: {refused}", self.name(part)));
        let requests = self.state_file.of_part(number, PartFile::Requests);
        self.state.failed.extend(all_failed((&requests, count), refused, &self.names())?);
        self.set(part, |part| part.step = PartStep::Imported).map(|()| Advanced::Next)
    }

    /// Creates another batch later, once other batches have ended.
    fn postpone(&mut self, part: usize, refused: &Refused) -> Result<Advanced, CommandError> {
        if let Some(limit) = named_limit(&refused.message).filter(|limit| *limit < self.state.parts[part].tokens)
            && self.state.parts[part].requests > 1
        {
            return self.divide(part, limit);
        }
        let wait = self.poll * 2_u32.saturating_pow(self.state.parts[part].tries).min(MAX_WAIT_POLLS);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.progress.say(&format!("{}: it is tried again in {wait:?}, because: {refused}", self.name(part)));
        self.set(part, |part| {
            part.tries += 1;
            part.batch_id = None;
            part.status = None;
            part.retry_at_ms = Clock::System.now_ms().saturating_add(wait_ms);
            part.step = PartStep::Waiting;
        })
        .map(|()| Advanced::Wait)
    }

    /// Divides a part that can never be within the limit of enqueued tokens.
    fn divide(&mut self, part: usize, limit: u64) -> Result<Advanced, CommandError> {
        let failed = |error: std::io::Error| format!("cannot write beside the state file: {error}");
        // The service may count a little more than this command.
        let tokens = limit.saturating_mul(9) / 10;
        let limits = PartLimits { requests: u64::MAX, bytes: MAX_FILE_BYTES, tokens };
        let (target, endpoint) = (&self.state.target, (self.api.dialect.endpoint, self.is_f32));
        let first = self.state.parts.len() + 1;
        let writer = PartWriter::new(self.state_file, limits, target, endpoint).numbered_from(first);
        let parts = split(self.state_file, &self.state.parts[part], writer, &target.model).map_err(failed)?;
        let (limit, number) = (grouped(limit), parts.len());
        self.progress.say(&format!(
            "{}: it exceeds the limit of {limit} enqueued tokens by itself, and is divided into {number} batches",
            self.name(part)
        ));
        self.state.parts.extend(parts);
        // The part itself is done, except that its files are deleted.
        self.set(part, |part| part.step = PartStep::Imported).map(|()| Advanced::Next)
    }

    fn step(&mut self, part: usize, change: impl FnOnce(&mut JobPart)) -> Result<Advanced, StepError> {
        self.set(part, change).map(|()| Advanced::Next).map_err(StepError::Stop)
    }

    /// Changes a part durably.
    fn set(&mut self, part: usize, change: impl FnOnce(&mut JobPart)) -> Result<(), CommandError> {
        change(&mut self.state.parts[part]);
        self.state_file.save(&self.state)
    }

    fn show(&mut self, part: usize, batch: &BatchObject) {
        let counts = batch.request_counts.unwrap_or_default();
        // A service may send any number.
        let ended = counts.completed.saturating_add(counts.failed).min(self.state.parts[part].requests);
        if self.state.parts[part].status.as_deref() != Some(&batch.status) {
            self.state.parts[part].status = Some(batch.status.clone());
            if !self.is_quiet {
                let requests = grouped(self.state.parts[part].requests);
                let text = format!(
                    "{}: {}, {} of {requests} requests have ended",
                    self.name(part),
                    batch.status,
                    grouped(ended)
                );
                self.progress.say(&text);
            }
        }
        let of_others = |other: &usize| *other != part && self.state.parts[*other].step > PartStep::Created;
        let others: u64 =
            (0..self.state.parts.len()).filter(of_others).map(|other| self.state.parts[other].requests).sum();
        let shown = self.shown.max(others + ended);
        self.progress.advance(shown - self.shown, shown - self.shown);
        self.shown = shown;
    }

    fn name(&self, part: usize) -> String {
        format!("batch {} of {}", self.state.parts[part].number, self.state.parts.len())
    }

    fn names(&self) -> PlaceNames {
        PlaceNames::of_files(&self.state.files, self.state.is_chunked)
    }

    fn file_id(&self, part: usize) -> &str {
        self.state.parts[part].file_id.as_deref().unwrap_or_default()
    }
}

/// Returns true for codes that all requests of the account would get.
fn concerns_account(code: &str) -> bool {
    code.starts_with("billing_") || code == "insufficient_quota"
}

impl StepError {
    /// Classifies a failure of a step that the service takes with the file of one part.
    fn of_part(error: RemoteError) -> Self {
        match error {
            RemoteError::Refused { refusal, .. } if is_token_limit(&refusal.code) => Self::TokenLimit(refusal),
            // The file or one of its requests is refused. Other statuses concern the credential, the path or the quota.
            RemoteError::Refused { status: 400 | 413 | 415 | 422, refusal } if !concerns_account(&refusal.code) => {
                Self::Part(refusal)
            }
            error => Self::from(error),
        }
    }
}

/// Later failures end the command and keep the state, because the results of a batch are paid for.
impl From<RemoteError> for StepError {
    fn from(error: RemoteError) -> Self {
        Self::Stop(error.to_string())
    }
}

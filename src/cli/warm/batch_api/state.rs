//! State of a job, as its file holds it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::clock::Clock;

/// Format of the state file. A file with another number is refused.
pub(super) const FORMAT: u32 = 1;

/// State of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobState {
    pub(super) format: u32,
    /// Random name of the job. The names of its files and the marks of its batches begin with it.
    pub(super) job: String,
    /// Start of the job in milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    pub(super) target: JobTarget,
    /// Model that answers live requests, if batches have a model of their own.
    #[serde(default)]
    pub(super) live_model: Option<String>,
    /// Input files, for messages.
    pub(super) files: Vec<PathBuf>,
    /// True if the files were documents that were divided into chunks.
    pub(super) is_chunked: bool,
    /// Inputs that were cached when the job was planned.
    pub(super) cached: u64,
    /// Lines that could not be read when the job was planned.
    pub(super) unreadable: u64,
    pub(super) parts: Vec<JobPart>,
    pub(super) failed: Vec<FailedInput>,
}

/// Settings that all parts of a job share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobTarget {
    pub(super) upstream: String,
    pub(super) path: String,
    pub(super) model: String,
    pub(super) batch_model: String,
    pub(super) dimensions: Option<u32>,
    pub(super) namespace: Option<String>,
}

/// One batch of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobPart {
    /// Number of the part, from 1.
    pub(super) number: usize,
    pub(super) requests: u64,
    /// Tokens as counted before.
    pub(super) tokens: u64,
    /// Number of batches that were created for this part and refused by the limit of enqueued tokens.
    pub(super) tries: u32,
    pub(super) step: PartStep,
    pub(super) file_id: Option<String>,
    pub(super) batch_id: Option<String>,
    /// Last known status of the batch at the service.
    pub(super) status: Option<String>,
    pub(super) output_id: Option<String>,
    pub(super) errors_id: Option<String>,
    /// Time before which no other batch is created, in milliseconds since the Unix epoch.
    pub(super) retry_at_ms: u64,
    /// Time of the first attempt to create the present batch, in milliseconds since the Unix epoch. It is that of this
    /// machine, because it is compared with the times of purges.
    #[serde(default)]
    pub(super) created_ms: Option<u64>,
    /// Vectors received.
    pub(super) fetched: u64,
    /// Tokens that the service has billed.
    pub(super) billed: u64,
}

/// Progress of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PartStep {
    /// Its file is written.
    Planned,
    /// The upload has begun. The service may have the file.
    Uploading,
    /// The service has the file.
    Uploaded,
    /// The creation of the batch has begun. The service may have the batch.
    Creating,
    /// The service has the batch.
    Created,
    /// The limit of enqueued tokens refused the batch. Another one is created later.
    Waiting,
    /// The batch has ended.
    Ended,
    /// The answers are on disk.
    Downloaded,
    /// The vectors are cached, and failures are recorded.
    Imported,
    /// The files are deleted.
    Done,
}

/// An input without a vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedInput {
    pub(super) custom_id: String,
    /// File and line.
    pub(super) place: String,
    pub(super) code: String,
    pub(super) message: String,
}

/// Largest number that a state may hold. Sums of such numbers for the parts of a job cannot overflow.
pub(super) const MAX_NUMBER: u64 = 1 << 40;
/// Maximum number of parts.
const MAX_PARTS: usize = 1 << 22;
/// Maximum number of refused batches of one part.
const MAX_TRIES: u32 = 1 << 20;

impl JobState {
    /// Returns what is wrong with numbers of a state that was read from a file. The steps rely on them.
    pub(super) fn fault(&self) -> Option<String> {
        if self.parts.len() > MAX_PARTS {
            return Some(format!("it has {} parts, more than {MAX_PARTS}", self.parts.len()));
        }
        let numbers = [("cached", self.cached), ("unreadable", self.unreadable)];
        let too_large = |(name, number): &(&str, u64)| {
            (*number > MAX_NUMBER).then(|| format!("its `{name}` is {number}, more than {MAX_NUMBER}"))
        };
        if let Some(fault) = numbers.iter().find_map(too_large) {
            return Some(fault);
        }
        self.parts.iter().enumerate().find_map(|(place, part)| {
            let JobPart { number, tries, requests, tokens, fetched, billed, .. } = part;
            let counts = [("requests", *requests), ("tokens", *tokens), ("fetched", *fetched), ("billed", *billed)];
            // The parts are numbered in their order, also those that a division has added.
            if *number != place + 1 {
                return Some(format!("its part {} has the number {number}", place + 1));
            }
            if *tries > MAX_TRIES {
                return Some(format!("the `tries` of its part {number} are {tries}, more than {MAX_TRIES}"));
            }
            let fault = counts.iter().find_map(too_large)?;
            Some(format!("part {number}: {fault}"))
        })
    }

    /// Returns the name under which a part's file is uploaded. No other file has it.
    pub(super) fn file_name(&self, part: usize) -> String {
        format!("vecho-{}-{}.jsonl", self.job, self.parts[part].number)
    }

    /// Returns the metadata of a part's next batch. No other batch has them.
    pub(super) fn marks(&self, part: usize) -> [(&'static str, String); 3] {
        let JobPart { number, tries, .. } = &self.parts[part];
        [("vecho_job", self.job.clone()), ("vecho_part", number.to_string()), ("vecho_try", tries.to_string())]
    }
}

impl JobPart {
    /// Begins the creation of a batch.
    pub(super) fn create_now(&mut self) {
        self.step = PartStep::Creating;
        self.created_ms = Some(Clock::System.now_ms());
    }

    pub(super) const fn new(number: usize) -> Self {
        Self {
            number,
            requests: 0,
            tokens: 0,
            tries: 0,
            step: PartStep::Planned,
            file_id: None,
            batch_id: None,
            status: None,
            output_id: None,
            errors_id: None,
            retry_at_ms: 0,
            created_ms: None,
            fetched: 0,
            billed: 0,
        }
    }
}

//! Plans a job: reads the inputs, leaves out those that are cached, and writes the rest to the files of the parts.

use std::collections::HashSet;

use super::super::options::WarmOptions;
use super::super::read::{BatchBounds, Batches, FileItem, LineInput, WarmBatch};
use super::super::source::{Inputs, Place, PlaceNames};
use super::part_files::{
    JobRequest, JobRequestForm, MAX_FILE_BYTES, PartLimits, PartWriter, custom_id, key_digits, tokens_of,
};
use super::state::{JobPart, JobTarget};
use super::state_file::StateFile;
use crate::app::{BatchSample, KeySettings, OfflineCache};
use crate::cli::batch::{BatchCaller, explained, has_keys};
use crate::cli::moving::{CommandError, VechoInstance};
use crate::cli::progress::ProgressDisplay;
use crate::key::Key;

/// Inputs of one look-up.
const LOOKUP_INPUTS: usize = 512;
const LOOKUP_BYTES: usize = 1 << 20;
/// Number of faulty lines that are reported individually.
const MAX_TOLD: u64 = 100;

/// Result of the planning.
pub(super) struct JobPlan {
    pub(super) parts: Vec<JobPart>,
    /// Distinct inputs that are cached.
    pub(super) cached: u64,
    /// Lines that are no input.
    pub(super) unreadable: u64,
    /// Keys of the inputs that failed in an earlier job and are not sent again.
    pub(super) left_out: HashSet<String>,
}

/// The planner's surroundings.
pub(super) struct Planner<'a> {
    pub(super) options: &'a WarmOptions,
    pub(super) caller: BatchCaller<'a>,
    pub(super) target: &'a JobTarget,
    pub(super) state_file: &'a StateFile,
    /// Endpoint in the requests, and whether base64 of this service is f32.
    pub(super) endpoint: (&'static str, bool),
    /// Keys of inputs that failed in an earlier job and must not be sent again.
    pub(super) excluded: HashSet<String>,
}

/// State while the inputs are read.
struct Planning<'a> {
    planner: &'a Planner<'a>,
    progress: &'a ProgressDisplay,
    names: PlaceNames,
    instance: VechoInstance,
    /// `None` until the first input was read.
    key_settings: Option<KeySettings>,
    form: JobRequestForm,
    writer: PartWriter<'a>,
    seen: HashSet<Key>,
    cached: u64,
    unreadable: u64,
    left_out: HashSet<String>,
}

impl Planner<'_> {
    /// Reads all files.
    pub(super) async fn plan(&self, inputs: Inputs, progress: &ProgressDisplay) -> Result<JobPlan, CommandError> {
        let limits = PartLimits {
            requests: self.options.batch_api.batch_requests.into(),
            bytes: MAX_FILE_BYTES,
            tokens: self.options.batch_api.batch_tokens.unwrap_or(u64::MAX),
        };
        let JobTarget { path, model, dimensions, .. } = self.target;
        let mut planning = Planning {
            planner: self,
            progress,
            names: PlaceNames::new(self.options),
            instance: VechoInstance::find(&self.caller.config, OfflineCache::open).await?,
            key_settings: None,
            form: JobRequestForm::new(path, model, *dimensions, false),
            writer: PartWriter::new(self.state_file, limits, self.target, self.endpoint),
            seen: HashSet::new(),
            cached: 0,
            unreadable: 0,
            left_out: HashSet::new(),
        };
        let read = planning.read(inputs).await;
        let Planning { writer, cached, unreadable, left_out, instance, .. } = planning;
        // The folder is needed again for the import, perhaps by a vecho that starts meanwhile.
        if let VechoInstance::Stopped(folder) = instance {
            folder.close().map_err(|error| format!("the folder cannot be closed: {error}"))?;
        }
        if let Err(cause) = read {
            self.state_file.remove_plan();
            return Err(cause);
        }
        let parts = writer.end().map_err(|error| self.cannot_write(&error))?;
        Ok(JobPlan { parts, cached, unreadable, left_out })
    }

    fn cannot_write(&self, error: &std::io::Error) -> CommandError {
        format!("cannot write beside the state file {}: {error}", self.state_file.path().display())
    }
}

impl Planning<'_> {
    async fn read(&mut self, inputs: Inputs) -> Result<(), CommandError> {
        // A look-up is a request to the ops port, with the limit of one to the public port.
        let bytes = LOOKUP_BYTES.min(self.planner.caller.config.limits.max_body_bytes / 2).max(1);
        let mut batches = Batches::new(inputs, BatchBounds { inputs: LOOKUP_INPUTS, bytes });
        while let Some(item) = batches.next_batch() {
            match item {
                FileItem::Note(text) => self.progress.say(&text),
                FileItem::Fault { place, size, cause } => {
                    self.fault(place, cause);
                    self.progress.advance(size, 1);
                }
                FileItem::Unreadable(cause) => return Err(cause),
                FileItem::Batch(batch) => {
                    self.look_up(&batch).await?;
                    self.progress.advance(batch.size, batch.inputs.len() as u64);
                }
            }
        }
        Ok(())
    }

    fn fault(&mut self, place: Place, cause: &str) {
        self.unreadable += 1;
        match self.unreadable {
            ..=MAX_TOLD => self.progress.say(&format!("{}: {cause}", self.names.of(place))),
            n if n == MAX_TOLD + 1 => self.progress.say("there are more lines at fault; they are only counted"),
            _ => {}
        }
    }

    /// Adds the inputs of a batch that are neither cached nor known.
    async fn look_up(&mut self, batch: &WarmBatch) -> Result<(), CommandError> {
        let settings = self.settings(&batch.inputs).await?;
        let path = &self.planner.target.path;
        let whole = settings.sample(path, &self.form.body(&list_of(&batch.inputs)));
        if let Ok(sample) = whole {
            return self.add_missing(&batch.inputs, &sample, &settings).await;
        }
        // One input that is not cached would hide the others of its request.
        for input in &*batch.inputs {
            let inputs = std::slice::from_ref(input);
            match settings.sample(path, &self.form.body(&list_of(inputs))) {
                Ok(sample) => self.add_missing(inputs, &sample, &settings).await?,
                Err(cause) => self.fault(input.place, &cause),
            }
        }
        Ok(())
    }

    /// Returns the settings that determine the keys, which the first inputs prove.
    async fn settings(&mut self, inputs: &[LineInput]) -> Result<KeySettings, CommandError> {
        if let Some(settings) = &self.key_settings {
            return Ok(settings.clone());
        }
        let (path, body) = (&self.planner.target.path, self.form.body(&list_of(&inputs[..1])));
        let sample = |settings: &KeySettings| settings.sample(path, &body).ok();
        let settings = self.planner.caller.clone().key_settings(&self.instance, &sample).await?;
        Ok(self.key_settings.insert(settings).clone())
    }

    async fn add_missing(
        &mut self,
        inputs: &[LineInput],
        sample: &BatchSample,
        settings: &KeySettings,
    ) -> Result<(), CommandError> {
        let fresh = match &self.instance {
            VechoInstance::Stopped(folder) => folder.holds(sample.space, &sample.keys).await,
            VechoInstance::Running(client) => {
                let entries = explained(client, &settings.headers, sample).await?;
                let entries = entries.ok_or("the vecho that runs does not cache such requests")?;
                if !has_keys(&entries, sample) {
                    return Err("the configuration of the vecho that runs has changed meanwhile".to_owned());
                }
                entries.into_iter().map(|(_, is_fresh)| is_fresh).collect()
            }
        };
        for (input, (key, is_fresh)) in inputs.iter().zip(sample.keys.iter().zip(fresh)) {
            // A text that occurs several times is counted and sent once.
            if !self.seen.insert(*key) {
                continue;
            }
            if is_fresh {
                self.cached += 1;
            } else if let Some(excluded) = self.planner.excluded.get(&key_digits(key)) {
                self.left_out.insert(excluded.clone());
            } else {
                self.add(input, key)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, input: &LineInput, key: &Key) -> Result<(), CommandError> {
        let Place { file, number } = input.place;
        let request = JobRequest {
            custom_id: custom_id(file, number, key),
            input: &input.json,
            tokens: tokens_of(&input.json, &self.planner.target.model),
        };
        self.writer.add(&request).map_err(|error| self.planner.cannot_write(&error))
    }
}

fn list_of(inputs: &[LineInput]) -> String {
    let inputs: Vec<&str> = inputs.iter().map(|input| &*input.json).collect();
    format!("[{}]", inputs.join(","))
}

//! Runs `vecho warm --batch-api`: continues the job of the state file, or plans one, asks, and runs it.

use std::collections::HashSet;
use std::path::PathBuf;

use super::super::options::WarmOptions;
use super::super::source::{Inputs, is_standard};
use super::advance::JobRun;
use super::api::BatchApi;
use super::capacity::JobCapacity;
use super::charge;
use super::dialect::Dialect;
use super::part_files::{JobRequestForm, parsed_id};
use super::plan::{JobPlan, Planner};
use super::price;
use super::remote::Remote;
use super::state::{FORMAT, FailedInput, JobPart, JobState, JobTarget};
use super::state_file::StateFile;
use crate::cli::batch::BatchCaller;
use crate::cli::credential::Credential;
use crate::cli::moving::CommandError;
use crate::cli::progress::{ProgressDisplay, counted, grouped, say, verb, were};
use crate::cli::signals::Signals;
use crate::config::Config;
use crate::flow::speaks_f32;
use crate::process::clock::Clock;
use crate::process::random;

/// Number of failed inputs that are listed.
const MAX_TOLD: usize = 100;

/// Sends what is not cached through the Batch API, and waits for the vectors.
pub(in crate::cli::warm) async fn run(
    config: Config,
    credential: &Credential,
    options: &WarmOptions,
) -> Result<(), CommandError> {
    let path = state_path(options)?;
    let state_file = StateFile::lock(&path)?;
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let command = JobCommand::new(config, credential, options, &state_file)?;
    tokio::select! {
        ended = command.run() => ended,
        // Every step is recorded before it begins, so it may end at any point.
        () = signals.next() => Err(stopped(&state_file)),
    }
}

/// Describes the end by a signal.
fn stopped(state_file: &StateFile) -> CommandError {
    if matches!(state_file.load(), Ok(Some(state)) if !state.parts.is_empty()) {
        let path = state_file.path().display();
        return format!(
            "stopped by a signal; batches continue at the service, and the same command continues from {path}"
        );
    }
    state_file.remove_plan();
    "stopped by a signal; nothing was sent".to_owned()
}

fn state_path(options: &WarmOptions) -> Result<PathBuf, CommandError> {
    match (&options.batch_api.state, options.files.first()) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(file)) if !is_standard(file) => {
            let mut name = file.as_os_str().to_owned();
            name.push(".batch-state");
            Ok(name.into())
        }
        _ => Err("standard input has no place for the state of the job; use --state FILE".to_owned()),
    }
}

/// One call of the command.
struct JobCommand<'a> {
    config: Config,
    options: &'a WarmOptions,
    state_file: &'a StateFile,
    caller: BatchCaller<'a>,
    credential: &'a Credential,
    dialect: Dialect,
    target: JobTarget,
}

impl<'a> JobCommand<'a> {
    fn new(
        config: Config,
        credential: &'a Credential,
        options: &'a WarmOptions,
        state_file: &'a StateFile,
    ) -> Result<Self, CommandError> {
        let dialect = Dialect::of(&config, &options.batch_api.path)?;
        let target = JobTarget {
            upstream: config.upstream.target.to_string(),
            path: options.batch_api.path.clone(),
            model: options.model.clone(),
            batch_model: options.batch_api.batch_model.clone().unwrap_or_else(|| options.model.clone()),
            dimensions: options.dimensions,
            namespace: options.namespace.clone(),
        };
        let caller = BatchCaller { config: config.clone(), credential, namespace: options.namespace.as_deref() };
        Ok(Self { config, options, state_file, caller, credential, dialect, target })
    }

    async fn run(&self) -> Result<(), CommandError> {
        let earlier = self.state_file.load()?;
        let state = match earlier {
            Some(state) if !state.parts.is_empty() => {
                self.check(&state)?;
                say(&format!("continuing the job in {}", self.state_file.path().display()));
                state
            }
            earlier => match Box::pin(self.planned(earlier)).await? {
                Some(state) => state,
                None => return Ok(()),
            },
        };
        Box::pin(self.carry_out(state)).await
    }

    /// Fails if the job in the state file is another one.
    fn check(&self, state: &JobState) -> Result<(), CommandError> {
        let path = self.state_file.path().display();
        if state.target == self.target {
            // A continued job does not read its files again, so others would be left out.
            let is_same = state.files == self.options.files && state.is_chunked == self.options.reading.chunk.is_some();
            return if is_same {
                Ok(())
            } else {
                Err(format!(
                    "{path} holds an unfinished job of other files or chunks; continue it with those first, or use \
                     another --state"
                ))
            };
        }
        Err(format!(
            "{path} holds an unfinished job with another model, dimensions, namespace, path or upstream.url; continue \
             it with its own options, or use another --state"
        ))
    }

    /// Plans a job, and returns it once it is approved; `None` if there is nothing to send.
    async fn planned(&self, earlier: Option<JobState>) -> Result<Option<JobState>, CommandError> {
        // Failures of another model or with other options say nothing about this job.
        let earlier = earlier.filter(|state| state.target == self.target && !self.options.batch_api.retry_failed);
        let mut failed = earlier.map(|state| state.failed).unwrap_or_default();
        let excluded: HashSet<String> = failed.iter().filter_map(key_of).collect();
        let inputs = Inputs::new(self.options)?;
        // A plan may be left that was killed before it was approved.
        self.state_file.remove_plan();
        let progress = ProgressDisplay::new(self.options.quiet, "texts", inputs.bytes());
        let planner = Planner {
            options: self.options,
            caller: self.caller.clone(),
            target: &self.target,
            state_file: self.state_file,
            endpoint: (self.dialect.endpoint, self.is_f32()),
            excluded,
        };
        let plan = progress.alongside(Box::pin(planner.plan(inputs, &progress))).await?;
        drop(progress);
        let JobPlan { parts, cached, unreadable, left_out } = plan;
        // An input that is no longer in the files cannot fail this job.
        failed.retain(|failed| key_of(failed).is_some_and(|key| left_out.contains(&key)));
        if !left_out.is_empty() {
            let inputs = counted(left_out.len() as u64, "input");
            say(&format!("{inputs} of an earlier job failed, and --retry-failed is needed to send them again"));
        }
        let state = JobState {
            format: FORMAT,
            job: random::hex(8),
            started_ms: Clock::System.now_ms(),
            target: self.target.clone(),
            live_model: None,
            files: self.options.files.clone(),
            is_chunked: self.options.reading.chunk.is_some(),
            cached,
            unreadable,
            parts,
            failed,
        };
        if state.parts.is_empty() {
            return self.finish(state).map(|()| None);
        }
        match self.approved(state).await {
            Ok(state) => {
                self.state_file.save(&state)?;
                Ok(Some(state))
            }
            Err(cause) => {
                self.state_file.remove_plan();
                Err(cause)
            }
        }
    }

    /// Returns the job once it is approved and counted towards the budgets, with the model of live requests.
    async fn approved(&self, mut state: JobState) -> Result<JobState, CommandError> {
        self.approve(&state).await?;
        if self.target.batch_model != self.target.model {
            let JobTarget { path, model, dimensions, .. } = &self.target;
            let body = JobRequestForm::new(path, model, *dimensions, false).body("\"vecho\"");
            let api = BatchApi { remote: self.remote()?, dialect: self.dialect.clone() };
            let answered = api.live_model(body).await;
            state.live_model =
                answered.map_err(|error| format!("a live request of {model} failed, so nothing was sent: {error}"))?;
        }
        charge::charge(&self.config, &state).await?;
        Ok(state)
    }

    fn remote(&self) -> Result<Remote, CommandError> {
        Remote::new(&self.config, self.credential.headers(&self.config), self.options.batch_api.poll)
    }

    async fn approve(&self, state: &JobState) -> Result<(), CommandError> {
        let described = price::described(&state.parts, &self.target, &self.config.savings);
        let vectors = state.parts.iter().map(|part| part.requests).sum();
        let capacity = JobCapacity::of(&self.config, &self.target, vectors).await;
        if let Some(warning) = capacity.warning() {
            say(&format!("warning: {warning}"));
        }
        if self.options.batch_api.yes {
            if capacity.is_exceeded() && !self.options.batch_api.beyond_capacity {
                return Err("nothing was sent; --beyond-capacity sends it nevertheless".to_owned());
            }
            if !self.options.quiet {
                say(&format!("sending {described}"));
            }
            return Ok(());
        }
        let reads_standard_input = self.options.files.iter().any(|file| is_standard(file));
        if price::confirm(&described, reads_standard_input).await? {
            Ok(())
        } else {
            Err("nothing was sent".to_owned())
        }
    }

    async fn carry_out(&self, state: JobState) -> Result<(), CommandError> {
        let (poll, keeps_files) = (self.options.batch_api.poll, self.options.batch_api.keep_files);
        let remote = self.remote()?;
        let total = state.parts.iter().map(|part| part.requests).sum();
        let progress = ProgressDisplay::new(self.options.quiet, "texts", Some(total));
        let mut run = JobRun {
            api: BatchApi { remote, dialect: self.dialect.clone() },
            state_file: self.state_file,
            state,
            caller: self.caller.clone(),
            progress: &progress,
            poll,
            is_f32: self.is_f32(),
            keeps_files,
            is_quiet: self.options.quiet,
            shown: 0,
        };
        let ended = progress.alongside(Box::pin(run.run())).await;
        let state = run.state;
        drop(progress);
        ended.map_err(|cause| {
            format!("{cause}; the same command continues from {}", self.state_file.path().display())
        })?;
        self.finish(state)
    }

    /// Reports a job whose parts are all done, and ends it.
    fn finish(&self, mut state: JobState) -> Result<(), CommandError> {
        let sum = |of: fn(&JobPart) -> u64| state.parts.iter().map(of).sum::<u64>();
        let (fetched, billed) = (sum(|part| part.fetched), sum(|part| part.billed));
        let cost = price::cost(billed, &self.target, &self.config.savings);
        let cost = cost.filter(|_| billed > 0).map_or_else(String::new, |cost| format!(", about {cost}"));
        for failed in state.failed.iter().take(MAX_TOLD) {
            say(&format!("{}: {}: {} ({})", failed.place, failed.code, failed.message, failed.custom_id));
        }
        if state.failed.len() > MAX_TOLD {
            say(&format!("there are more failed inputs; {} lists all", self.state_file.path().display()));
        }
        let failed = state.failed.len() as u64 + state.unreadable;
        if !self.options.quiet {
            let (failed, tokens) = (grouped(failed), counted(billed, "token"));
            say(&format!(
                "{} cached already, {} fetched, {failed} failed; {tokens} {} billed{cost}",
                were(state.cached),
                were(fetched),
                verb(billed)
            ));
        }
        let unreadable = state.unreadable;
        if state.failed.is_empty() {
            self.state_file.remove()?;
        } else {
            // The list remains, so that the next call does not pay for inputs that fail again.
            state.parts.clear();
            self.state_file.save(&state)?;
        }
        failure(state.failed.len() as u64, unreadable).map_or(Ok(()), Err)
    }

    fn is_f32(&self) -> bool {
        speaks_f32(&self.config)
    }
}

fn failure(failed: u64, unreadable: u64) -> Option<CommandError> {
    match (failed, unreadable) {
        (0, 0) => None,
        (0, _) => Some(format!("{} failed", counted(unreadable, "line"))),
        _ => Some(format!("{} failed; --retry-failed sends them again", counted(failed, "input"))),
    }
}

/// Returns the key of a failed input, as in its `custom_id`.
fn key_of(failed: &FailedInput) -> Option<String> {
    Some(parsed_id(&failed.custom_id)?.2.to_owned())
}

//! `vecho import-batch`: imports the vectors of an OpenAI batch job, which was paid for separately.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::client::{Client, read_whole, whole};
use super::credential::{self, Credential};
use super::moving::{CommandError, VechoInstance, report};
use super::progress::{ProgressDisplay, counted, grouped};
use crate::app::{BatchCounts, BatchFiles, BatchSample, KeySettings, OfflineCache};
use crate::config::{Config, Scope};

const NAMESPACE: HeaderName = HeaderName::from_static("x-vecho-namespace");
const EXPLAIN_PATH: &str = "/api/performance/cache/explain";

/// Largest time that `--created-at` takes: the end of the year 9999. A larger one is not in seconds.
const MAX_SECONDS: u64 = 253_402_300_799;

/// Files of the job.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Input file of the job, as uploaded (JSONL)
    requests: PathBuf,
    /// Output file of the job, as downloaded (JSONL)
    output: PathBuf,
    /// Namespace of the cache, as in the header x-vecho-namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Time at which the job was created, as `created_at` of its batch; by default that of the file of requests
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    created_at: Option<u64>,
    /// Hide the progress display
    #[arg(long)]
    quiet: bool,
}

/// Imports the answers of a batch job under the keys of live requests for the same texts.
pub(super) async fn import(
    config: Config,
    credential: &Credential,
    options: &BatchOptions,
) -> Result<(), CommandError> {
    let instance = VechoInstance::find(&config, OfflineCache::open).await?;
    let files = open_files(&options.requests, &options.output)?;
    let caller = BatchCaller { config, credential, namespace: options.namespace.as_deref() };
    let key_settings = caller.key_settings(&instance, &|settings| files.sample(settings)).await?;
    let progress = Arc::new(ProgressDisplay::new(options.quiet, "vectors", None));
    let teller = Arc::clone(&progress);
    let tell = move |number: u64, cause: &str| match number {
        0 => teller.say(cause),
        number => teller.say(&format!("line {number} of the output: {cause}")),
    };
    let whose = credential::whose(&key_settings.config, credential);
    let job_began_ms = options.created_at.map_or_else(|| files.began_ms(), |seconds| seconds * 1_000);
    let (records, counts) = files.records(key_settings, Box::new(tell));
    let imported = progress.alongside(instance.import(records, Some(job_began_ms))).await?;
    let BatchCounts { vectors, errors, unusable } = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = report(&imported, &progress);
    let (vectors, errors) = (counted(vectors, "vector"), counted(errors, "line"));
    let unusable_shown = grouped(unusable);
    progress.end(&format!(
        "the output held {vectors}, {errors} with errors, and {unusable_shown} that cannot be used; what is \
         kept is {whose}"
    ));
    if imported.purged + imported.expired > 0 && options.created_at.is_none() {
        progress.say(
            "purged are also entries that were purged or forgotten since the file of requests was written; if the job \
             was created later, --created-at names the time of its batch",
        );
    }
    reported.and(if unusable == 0 { Ok(()) } else { Err("some lines cannot be used".to_owned()) })
}

/// Opens the files of a job.
pub(super) fn open_files(requests: &Path, output: &Path) -> Result<BatchFiles, CommandError> {
    BatchFiles::open(requests, output)
        .map_err(|error| format!("{} or {}: {error}", requests.display(), output.display()))
}

/// The callers of the vecho whose cache is filled.
#[derive(Clone)]
pub(super) struct BatchCaller<'a> {
    pub(super) config: Config,
    pub(super) credential: &'a Credential,
    pub(super) namespace: Option<&'a str>,
}

impl BatchCaller<'_> {
    /// Returns the settings that determine the keys in this cache. `sample` returns a request with its keys under some
    /// settings, if it can be cached.
    pub(super) async fn key_settings(
        self,
        instance: &VechoInstance,
        sample: &dyn Fn(&KeySettings) -> Option<BatchSample>,
    ) -> Result<KeySettings, CommandError> {
        match instance {
            VechoInstance::Stopped(_) => self.settings_for(credential::of_nobody(self.config.clone())),
            // A running vecho may have another configuration, so its keys are compared first.
            VechoInstance::Running(client) => self.agreed(client, sample).await,
        }
    }

    /// Returns the settings for a configuration, as this environment defines them.
    fn settings_for(&self, config: Config) -> Result<KeySettings, CommandError> {
        let mut headers = self.credential.headers(&config);
        if config.cache.scope == Scope::Credential && !self.credential.has_key() {
            let cause = "in scope credential, entries belong to a key: set OPENAI_API_KEY as the application has it";
            return Err(cause.to_owned());
        }
        if let Some(namespace) = self.namespace {
            let fits = (1..=256).contains(&namespace.len()) && namespace.bytes().all(|byte| byte.is_ascii_graphic());
            let value = HeaderValue::from_str(namespace).ok().filter(|_| fits);
            headers.insert(NAMESPACE, value.ok_or("--namespace takes 1 to 256 visible ASCII characters")?);
        }
        Ok(KeySettings { config, headers })
    }

    /// Returns those settings if the running vecho would look up the sample under the same keys.
    ///
    /// With `OPENAI_API_KEY` set, this process assumes that vecho holds the key. The running vecho may have been started
    /// without it, so that its callers send their own. Their credential, or the owner of their token, is then part of
    /// the keys.
    async fn agreed(
        self,
        client: &Client,
        sample: &dyn Fn(&KeySettings) -> Option<BatchSample>,
    ) -> Result<KeySettings, CommandError> {
        let mut candidates = vec![self.settings_for(self.config.clone())?];
        if self.config.upstream.api_key.is_some() && self.credential.has_key() {
            candidates.push(self.settings_for(credential::of_callers(&self.config))?);
        }
        if self.credential.has_key() {
            // The claims of the key name its owner only if it is a token; otherwise these keys are those of above.
            candidates.push(self.settings_for(credential::of_token_owners(&self.config))?);
        }
        for key_settings in &candidates {
            // The first request cannot be cached, so there are no keys to compare.
            let Some(sample) = sample(key_settings) else { return Ok(key_settings.clone()) };
            let found = explained(client, &key_settings.headers, &sample).await?;
            if found.is_some_and(|found| has_keys(&found, &sample)) {
                return Ok(key_settings.clone());
            }
        }
        Err("the vecho that runs would look for these vectors under other keys: its scope, upstream.url, \
             cache.key_secret or cache.key_headers are not those of this configuration, or OPENAI_API_KEY is not what \
             its callers send"
            .to_owned())
    }
}

/// Returns the keys under which the running vecho looks up a request, each with true if a fresh entry exists; `None` if
/// it does not cache the request.
pub(super) async fn explained(
    client: &Client,
    headers: &HeaderMap,
    sample: &BatchSample,
) -> Result<Option<Vec<(String, bool)>>, CommandError> {
    let path = format!("{EXPLAIN_PATH}?path={}", encoded(&sample.url));
    let mut request = client.request(Method::POST, &path, whole(sample.body.clone()));
    request.headers_mut().extend(headers.clone());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the ops port does not tell its keys ({})", answer.status()));
    }
    let body: Value = serde_json::from_slice(&read_whole(answer.into_body()).await?).unwrap_or_default();
    let inputs = body["inputs"].as_array();
    let entry = |input: &Value| Some((input["key"].as_str()?.to_owned(), input["state"] == "fresh"));
    Ok(inputs.and_then(|inputs| inputs.iter().map(entry).collect()))
}

/// Returns true if the running vecho named the keys of a sample.
pub(super) fn has_keys(entries: &[(String, bool)], sample: &BatchSample) -> bool {
    let is_same = entries.iter().zip(&sample.keys).all(|((named, _), key)| *named == key.to_string());
    entries.len() == sample.keys.len() && is_same
}

/// Percent-encodes a path for a query parameter.
fn encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        write!(encoded, "%{byte:02X}").expect("writing to a String must succeed");
    }
    encoded
}

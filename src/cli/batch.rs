//! `vecho import-batch`: imports the vectors of an OpenAI batch job, which was paid for separately.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::client::{Client, read_whole, whole};
use super::credential::{self, Credential};
use super::moving::{CommandError, VechoInstance, report};
use super::progress::{ProgressDisplay, grouped};
use crate::app::{BatchCounts, BatchFiles, BatchSample, KeySettings, OfflineCache};
use crate::config::{Config, Scope};

const NAMESPACE: HeaderName = HeaderName::from_static("x-vecho-namespace");
const EXPLAIN_PATH: &str = "/api/performance/cache/explain";

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
    let files = BatchFiles::open(&options.requests, &options.output)
        .map_err(|error| format!("{} or {}: {error}", options.requests.display(), options.output.display()))?;
    let key_settings = match &instance {
        VechoInstance::Stopped(_) => key_settings(credential::of_nobody(config), credential, options)?,
        // A running vecho may have another configuration, so its keys are compared first.
        VechoInstance::Running(client) => agreed(client, config, credential, options, &files).await?,
    };
    let progress = Arc::new(ProgressDisplay::new(options.quiet, "vectors", None));
    let teller = Arc::clone(&progress);
    let tell = move |number: u64, cause: &str| match number {
        0 => teller.say(cause),
        number => teller.say(&format!("line {number} of the output: {cause}")),
    };
    let whose = credential::whose(&key_settings.config, credential);
    let (records, counts) = files.records(key_settings, Box::new(tell));
    let imported = progress.alongside(instance.import(records)).await?;
    let BatchCounts { vectors, errors, unusable } = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = report(&imported, &progress);
    let [vectors, errors, unusable_shown] = [vectors, errors, unusable].map(grouped);
    progress.end(&format!(
        "the output held {vectors} vectors, {errors} lines with errors, and {unusable_shown} that cannot be used; what is \
         kept is {whose}"
    ));
    reported.and(if unusable == 0 { Ok(()) } else { Err("some lines cannot be used".to_owned()) })
}

/// Returns the settings that determine the keys, as this environment defines them.
fn key_settings(config: Config, credential: &Credential, options: &BatchOptions) -> Result<KeySettings, CommandError> {
    let mut headers = credential.headers(&config);
    if config.cache.scope == Scope::Credential && !credential.has_key() {
        return Err("in scope credential, entries belong to a key: set OPENAI_API_KEY as the application has it".into());
    }
    if let Some(namespace) = &options.namespace {
        let fits = (1..=256).contains(&namespace.len()) && namespace.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(namespace).ok().filter(|_| fits);
        headers.insert(NAMESPACE, value.ok_or("--namespace takes 1 to 256 visible ASCII characters")?);
    }
    Ok(KeySettings { config, headers })
}

/// Returns those settings if the running vecho would look up the first request under the same keys.
///
/// With `OPENAI_API_KEY` set, this process assumes that vecho holds the key. The running vecho may have been started
/// without it, so that its callers send their own. Their credential is then part of the keys.
async fn agreed(
    client: &Client,
    config: Config,
    credential: &Credential,
    options: &BatchOptions,
    files: &BatchFiles,
) -> Result<KeySettings, CommandError> {
    let mut candidates = Vec::new();
    if config.upstream.api_key.is_some() && credential.has_key() {
        // The configuration is moved into the first candidate, so the other one is made before.
        candidates.push(key_settings(credential::of_callers(&config), credential, options)?);
    }
    candidates.insert(0, key_settings(config, credential, options)?);
    for key_settings in &candidates {
        // The first request cannot be cached, so there are no keys to compare.
        let Some(sample) = files.sample(key_settings) else { return Ok(key_settings.clone()) };
        if explained(client, &key_settings.headers, &sample).await?
            == Some(sample.keys.iter().map(ToString::to_string).collect())
        {
            return Ok(key_settings.clone());
        }
    }
    Err("the vecho that runs would look for these vectors under other keys: its scope, upstream.url, cache.key_secret \
         or cache.key_headers are not those of this configuration, or OPENAI_API_KEY is not what its callers send"
        .to_owned())
}

/// Returns the keys under which the running vecho would look up a request.
async fn explained(
    client: &Client,
    headers: &HeaderMap,
    sample: &BatchSample,
) -> Result<Option<Vec<String>>, CommandError> {
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
    Ok(inputs.and_then(|inputs| inputs.iter().map(|input| input["key"].as_str().map(str::to_owned)).collect()))
}

/// Percent-encodes a path for a query parameter.
fn encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        write!(encoded, "%{byte:02X}").expect("writing to a String must succeed");
    }
    encoded
}

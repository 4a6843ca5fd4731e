//! Checks of `[[targets]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;
use toml::{Table, Value};

use super::upstream::{HEADERS, http_base, usual_header};
use crate::config::keys::toml_value;
use crate::config::reader::{Reader, secret_of_file};
use crate::config::{Secret, TargetConfig, UpstreamConfig, UpstreamTarget, lookup, values};

/// Maximum number of targets: each has its own series of metrics and its own connections.
const MAX_TARGETS: usize = 32;

/// Maximum length of a name.
const MAX_NAME_BYTES: usize = 64;

/// The members of a target.
const MEMBERS: [&str; 10] = [
    "name",
    "url",
    "api_key",
    "api_key_file",
    "api_key_header",
    "weight",
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent",
    "models",
];

/// Reads the targets. The first one takes the place of the upstream wherever one address or one key is meant.
pub(super) fn targets(reader: &mut Reader, upstream: &mut UpstreamConfig) -> Vec<TargetConfig> {
    let Some(tables) = reader.optional("targets", tables) else { return Vec::new() };
    // The value as it was set may hold keys, so another form is displayed.
    reader.show("targets", Value::Array(tables.iter().cloned().map(shown).collect()));
    if tables.len() > MAX_TARGETS {
        reader.fault("targets", format!("holds {} targets, more than {MAX_TARGETS}", tables.len()));
    }
    let mut targets = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let name = table.get("name").and_then(Value::as_str).map_or_else(|| (place + 1).to_string(), quoted);
        let mut reading = TargetReader { table, faults: Vec::new() };
        let target = reading.target(upstream);
        for fault in reading.faults {
            reader.fault("targets", format!("target {name}: {fault}"));
        }
        targets.extend(target);
    }
    check_together(reader, &targets, upstream);
    if let Some(first) = targets.first() {
        upstream.target = UpstreamTarget::Http(first.url.clone());
        upstream.api_key = Some(first.api_key.clone());
        upstream.api_key_header = first.api_key_header;
    }
    targets
}

/// Returns the tables of a file, or those of a text in the environment: JSON, or an array of TOML.
fn tables(value: &Value) -> Result<Vec<Table>, String> {
    let form = || "must be [[targets]] tables, or a JSON array of objects in the environment".to_owned();
    let parsed = match value {
        // The messages of the parsers quote the text, which may hold a key.
        Value::String(text) => toml_value(text).or_else(|| serde_json::from_str(text).ok()).ok_or_else(form)?,
        other => other.clone(),
    };
    let Value::Array(items) = parsed else { return Err(form()) };
    let tables = items.into_iter().map(|item| if let Value::Table(table) = item { Ok(table) } else { Err(form()) });
    tables.collect()
}

/// Returns the files that hold keys of targets.
pub(in crate::config) fn key_files(targets: &Value) -> Vec<PathBuf> {
    let files = tables(targets).unwrap_or_default().into_iter();
    files.filter_map(|table| table.get("api_key_file")?.as_str().map(PathBuf::from)).collect()
}

/// Returns a target without its key.
fn shown(mut table: Table) -> Value {
    if let Some(key) = table.get_mut("api_key") {
        *key = Value::String("[secret]".to_owned());
    }
    Value::Table(table)
}

fn quoted(name: &str) -> String {
    format!("{name:?}")
}

fn check_together(reader: &mut Reader, targets: &[TargetConfig], upstream: &UpstreamConfig) {
    let mut names = BTreeSet::new();
    for target in targets {
        if !names.insert(&target.name) {
            reader.fault("targets", format!("two targets have the name {:?}", target.name));
        }
    }
    let is_first =
        |url: &UpstreamTarget| targets.first().is_none_or(|first| *url == UpstreamTarget::Http(first.url.clone()));
    if reader.is_set("upstream.url") && !is_first(&upstream.target) {
        let message = "contradicts targets: remove it, or make it the url of the first target, whose entries it has";
        reader.fault("upstream.url", message);
    }
}

/// Reads one table.
struct TargetReader<'a> {
    table: &'a Table,
    faults: Vec<String>,
}

impl TargetReader<'_> {
    fn target(&mut self, upstream: &UpstreamConfig) -> Option<TargetConfig> {
        for name in self.table.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            let known = MEMBERS.iter().map(|member| (*member).to_owned());
            self.faults.push(format!("{name}: {}", lookup::unknown(name, known)));
        }
        let (name, url, api_key) = (self.needed("name", name), self.needed("url", http_base), self.key(upstream));
        let header = self.read("api_key_header", |value| values::choice(value, &HEADERS)).flatten();
        let weight = self.count("weight", 1_000).unwrap_or(1);
        let (requests, tokens) =
            (self.count("requests_per_minute", 1_000_000_000), self.count("tokens_per_minute", 1_000_000_000_000));
        let concurrent = self.count("concurrent", 10_000);
        let models = self.read("models", models).unwrap_or_default();
        let url = url?;
        Some(TargetConfig {
            name: Arc::from(name?),
            api_key: api_key?,
            api_key_header: header.unwrap_or_else(|| usual_header(&UpstreamTarget::Http(url.clone()))),
            url,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            concurrent: concurrent.and_then(|count| usize::try_from(count).ok()),
            models,
        })
    }

    fn read<T>(&mut self, member: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let read = read(self.table.get(member)?);
        read.map_err(|fault| self.faults.push(format!("{member}: {fault}"))).ok()
    }

    fn needed<T>(&mut self, member: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        if !self.table.contains_key(member) {
            self.faults.push(format!("{member} is missing"));
        }
        self.read(member, read)
    }

    fn count(&mut self, member: &str, most: u64) -> Option<u64> {
        self.read(member, |value| values::count(value, &(1..=most)))
    }

    /// Reads the key of the target. Without one of its own, it has that of `upstream.api_key`.
    fn key(&mut self, upstream: &UpstreamConfig) -> Option<Secret> {
        let key = match (self.table.get("api_key"), self.table.get("api_key_file")) {
            (Some(_), Some(_)) => {
                self.faults.push("both api_key and api_key_file are set; set one".to_owned());
                return None;
            }
            (Some(_), None) => self.read("api_key", secret),
            (None, Some(_)) => self.read("api_key_file", |path| secret_of_file(Path::new(&values::text(path)?))),
            (None, None) => {
                if upstream.api_key.is_none() {
                    self.faults.push("has no key: set its api_key or api_key_file, or upstream.api_key".to_owned());
                }
                upstream.api_key.clone()
            }
        }?;
        if HeaderValue::from_str(key.reveal()).is_err() {
            self.faults.push("its key holds characters that a header cannot carry".to_owned());
        }
        Some(key)
    }
}

fn secret(value: &Value) -> Result<Secret, String> {
    // The message never repeats the value.
    let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
    text.map(Secret::new).ok_or_else(|| "must be text, and not empty".to_owned())
}

/// Parses a name, which is sent in a header and is the value of a label.
fn name(value: &Value) -> Result<String, String> {
    let name = values::text(value)?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_name = is_plain && name.len() <= MAX_NAME_BYTES;
    if is_name {
        Ok(name)
    } else {
        Err(format!("{value} is not 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.'"))
    }
}

/// Parses a list of `MODEL` or `MODEL=NAME`.
fn models(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let mut models = BTreeMap::new();
    for entry in values::list(value)? {
        let (model, name) = entry.split_once('=').unwrap_or((&entry, &entry));
        let (model, name) = (model.trim(), name.trim());
        if model.is_empty() || name.is_empty() {
            return Err(format!("{entry:?} is not like \"MODEL\" or \"MODEL=NAME\""));
        }
        if models.insert(model.to_owned(), name.to_owned()).is_some() {
            return Err(format!("holds {model:?} twice"));
        }
    }
    Ok(models)
}

//! Raw values: for every key the value of the last layer and its origin. Only names are checked here.
//!
//! Each layer overrides the previous one: defaults, file, well-known variables, `VECHO_` variables, flags.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::keys::toml_value;
use super::lookup;
use super::proxies::ProxyVariables;
use super::{ConfigKey, Faults, KEYS, Origin, WELL_KNOWN};

/// Variables with a user's cache folder, and our folder below it.
pub(super) const CACHE_FOLDERS: [(&str, &str); 2] = [("XDG_CACHE_HOME", "vecho"), ("HOME", ".cache/vecho")];

/// One setting from the command line. It has no `Debug` because its value may be a secret.
#[derive(Clone)]
pub struct Flag {
    /// The flag, such as `--listen`.
    pub flag: &'static str,
    /// Name of the key.
    pub key: String,
    /// The value as TOML text or as a bare string.
    pub value: String,
}

/// A value with its origin. It has no `Debug` because its value may be a secret.
pub(super) struct RawSetting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The raw values of all keys, and the faults found so far.
#[derive(Default)]
pub(super) struct Raw {
    settings: BTreeMap<&'static str, RawSetting>,
    pub(super) faults: Faults,
    /// Variables of the environment that select proxies.
    pub(super) proxies: ProxyVariables,
}

impl Raw {
    /// Returns the defaults only.
    pub(super) fn defaults() -> Self {
        let mut raw = Self::default();
        for key in KEYS {
            if let Some(value) = key.default_value() {
                raw.set(key, value, Origin::Default);
            }
        }
        raw
    }

    pub(super) fn get(&self, name: &str) -> Option<&RawSetting> {
        self.settings.get(name)
    }

    fn set(&mut self, key: &'static ConfigKey, value: Value, origin: Origin) {
        self.settings.insert(key.name, RawSetting { value, origin });
    }

    /// Leaves `OPENAI_API_KEY` to the application if the tokens of callers name them: vecho then holds no key.
    pub(super) fn leave_application_key(&mut self) {
        let is_token = self.get("auth.identity").is_some_and(|said| said.value.as_str() == Some("token"));
        let is_applications = |said: &RawSetting| said.origin == Origin::Env("OPENAI_API_KEY".to_owned());
        if is_token && self.get("upstream.api_key").is_some_and(is_applications) {
            self.settings.remove("upstream.api_key");
        }
    }

    /// Reads the configuration file.
    pub(super) fn read_file(&mut self, path: &Path, text: &str) {
        let origin = Origin::File(path.to_owned());
        match toml::from_str::<Table>(text) {
            Ok(table) => self.read_table(table, &origin),
            Err(error) => self.faults.add("config", &origin, syntax_fault(text, &error)),
        }
    }

    fn read_table(&mut self, table: Table, origin: &Origin) {
        for (name, value) in table {
            match value {
                Value::Table(section) if lookup::is_section(&name) => self.read_section(&name, section, origin),
                _ if lookup::is_section(&name) => self.faults.add(&name, origin, "must be a section"),
                value => self.read_named(&name, value, origin),
            }
        }
    }

    fn read_section(&mut self, section: &str, table: Table, origin: &Origin) {
        for (name, value) in table {
            self.read_named(&format!("{section}.{name}"), value, origin);
        }
    }

    fn read_named(&mut self, name: &str, value: Value, origin: &Origin) {
        match lookup::find(name) {
            Some(_) if value.is_table() && name == "targets" => {
                self.faults.add(name, origin, "must be a list: each target begins with [[targets]]");
            }
            Some(_) if value.is_table() => self.faults.add(name, origin, "must be a value, not a section"),
            Some(key) => self.set(key, value, origin.clone()),
            None => self.faults.add(name, origin, unknown_key(name, &value)),
        }
    }

    /// Reads the environment: well-known names first, so `VECHO_` names override them.
    pub(super) fn read_env(&mut self, env: &[(String, String)]) {
        self.read_cache_folder(env);
        self.proxies = ProxyVariables::of(env);
        for (variable, name) in WELL_KNOWN {
            // An empty variable counts as unset, because some tools pass unset variables as empty ones.
            for (_, value) in env.iter().filter(|(set, value)| set == variable && !value.is_empty()) {
                self.set(lookup::known(name), Value::String(value.clone()), Origin::Env((*variable).to_owned()));
            }
        }
        for (variable, value) in env.iter().filter(|(set, value)| set.starts_with("VECHO_") && !value.is_empty()) {
            self.read_variable(variable, value);
        }
    }

    /// Uses the platform's cache folder if no other folder is configured.
    fn read_cache_folder(&mut self, env: &[(String, String)]) {
        let folder = CACHE_FOLDERS.iter().find_map(|(variable, below)| {
            // The XDG specification demands absolute paths. A relative one would depend on the working folder.
            let set = env.iter().find(|(name, value)| name == variable && value.starts_with('/'))?;
            Some((Path::new(&set.1).join(below), Origin::Env((*variable).to_owned())))
        });
        if let (Some((path, origin)), None) = (folder, self.get("disk.path")) {
            self.set(lookup::known("disk.path"), Value::String(path.display().to_string()), origin);
        }
    }

    fn read_variable(&mut self, variable: &str, value: &str) {
        let origin = Origin::Env(variable.to_owned());
        if let Some(key) = KEYS.iter().find(|key| key.env_name() == variable) {
            self.set(key, Value::String(value.to_owned()), origin);
        } else if variable != "VECHO_CONFIG" && !is_service_variable(variable, value) {
            // An unknown variable is a fault, because a misspelled one would otherwise have no effect.
            let known = KEYS.iter().map(ConfigKey::env_name).chain(["VECHO_CONFIG".to_owned()]);
            self.faults.add(variable, &origin, lookup::unknown(variable, known));
        }
    }

    /// Reads the command line.
    pub(super) fn read_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            self.read_named(&flag.key, loose(&flag.value), &Origin::Flag(flag.flag));
        }
    }
}

fn unknown_key(name: &str, value: &Value) -> String {
    if value.is_table() {
        return lookup::unknown(name, KEYS.iter().filter_map(|key| key.split().0).map(str::to_owned));
    }
    lookup::unknown(name, KEYS.iter().map(|key| key.name.to_owned()))
}

/// Parses a value from the command line: as TOML if it begins with a quote or bracket, otherwise as plain text.
fn loose(text: &str) -> Value {
    // Text without quotes stays text, because numbers and durations are parsed from text as well.
    let marked = text.starts_with(['"', '\'', '[']);
    marked.then(|| toml_value(text)).flatten().unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Describes a syntax error by line and reason only: the parser's own message quotes the line, which may contain a
/// secret.
fn syntax_fault(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count()) + 1;
    format!("line {line} is not TOML: {}", error.message().lines().next().unwrap_or_default())
}

/// Returns true for a variable that Kubernetes generates for a service whose name starts with `vecho`.
fn is_service_variable(variable: &str, value: &str) -> bool {
    let words: Vec<&str> = variable.split('_').collect();
    let service = words.windows(2).any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]));
    let port = words.windows(3).any(|three| {
        let [word, number, protocol] = three else { return false };
        *word == "PORT" && number.parse::<u16>().is_ok() && matches!(*protocol, "TCP" | "UDP" | "SCTP")
    });
    service || port || (words.last() == Some(&"PORT") && value.contains("://"))
}

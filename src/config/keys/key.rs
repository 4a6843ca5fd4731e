//! The type of a configuration key.

use toml::Value;

/// One row of the table of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// Dotted name, as in `cache.ttl`.
    pub name: &'static str,
    /// Default as TOML text, or `none`.
    pub default: &'static str,
    /// Purpose of the key in one sentence.
    pub doc: &'static str,
    /// True if the value is a secret that is never printed. `<name>_file` may then name a file that holds it.
    pub secret: bool,
    /// True if a new value takes effect on reload, false if it takes effect at the next start.
    pub live: bool,
}

impl ConfigKey {
    const fn new(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self { name, default, doc, secret: false, live: false }
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Returns the environment variable that sets this key.
    pub fn env_name(&self) -> String {
        format!("VECHO_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Returns the section of the key (`None` at the top level) and its name in that section.
    pub fn split(&self) -> (Option<&'static str>, &'static str) {
        self.name.split_once('.').map_or((None, self.name), |(section, key)| (Some(section), key))
    }

    pub(in crate::config) fn default_value(&self) -> Option<Value> {
        (self.default != "none").then(|| toml_value(self.default).expect("a default in the table must be TOML"))
    }
}

/// Defines a key.
pub(super) const fn key(name: &'static str, default: &'static str, doc: &'static str) -> ConfigKey {
    ConfigKey::new(name, default, doc)
}

/// Parses one TOML value.
pub(in crate::config) fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    // A text with a line break could define further keys, so exactly one is accepted.
    (table.len() == 1).then(|| table.get("value").cloned()).flatten()
}

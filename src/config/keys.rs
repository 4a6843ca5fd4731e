//! The type of a configuration key, and lookups of keys by exact or similar name.

use toml::Value;

use super::table::KEYS;

/// Environment variables of other software, and the corresponding keys.
pub const WELL_KNOWN: &[(&str, &str)] = &[
    ("OPENAI_API_KEY", "upstream.api_key"),
    ("CACHE_MAX_SIZE", "cache.max_entries"),
    ("CACHE_TTL_SECONDS", "cache.ttl"),
    ("EMBEDDING_BATCH_SIZE", "batch.max_inputs"),
    ("MAX_CONCURRENT_REQUESTS", "upstream.max_concurrent"),
    ("MEMORY_LIMIT_MB", "memory.limit_mb"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.url"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "traces.resource"),
];

/// One row of the table of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
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

impl Key {
    pub(super) const fn new(name: &'static str, default: &'static str, doc: &'static str) -> Self {
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

    pub(super) fn default_value(&self) -> Option<Value> {
        (self.default != "none").then(|| toml_value(self.default).expect("a default in the table must be TOML"))
    }
}

/// Returns the row of a key whose name is in the program.
pub(super) fn known(name: &str) -> &'static Key {
    find(name).expect("a key that the program reads must stand in the table")
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == Some(name))
}

/// Parses one TOML value.
pub(super) fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    (table.len() == 1).then(|| table.get("value").cloned()).flatten()
}

/// Formats a message for an unknown name, with a similar known name if there is one.
pub(super) fn unknown(name: &str, known: impl IntoIterator<Item = String>) -> String {
    match nearest(name, known) {
        Some(meant) => format!("unknown; did you mean {meant}?"),
        None => "unknown".to_owned(),
    }
}

/// Returns the key with the same last part, or else the key with the smallest edit distance if that is small enough.
fn nearest(name: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    let most_edits = (name.len() / 4).clamp(2, 5);
    known
        .into_iter()
        .map(|candidate| (edits(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= most_edits)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn edits(name: &str, candidate: &str) -> usize {
    let last = |dotted: &str| dotted.rsplit('.').next().map(str::to_owned);
    let misplaced = name.len() > 2 && last(name) == last(candidate);
    if misplaced { 1 } else { strsim::damerau_levenshtein(name, candidate) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_key_has_its_own_name_its_own_variable_and_a_sentence() {
        let names: HashSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: HashSet<_> = KEYS.iter().map(Key::env_name).collect();
        assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
        for key in KEYS {
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{} needs a sentence", key.name);
        }
    }

    #[test]
    fn every_secret_has_a_file_twin_and_no_default() {
        for key in KEYS.iter().filter(|key| key.secret) {
            let twin = known(&format!("{}_file", key.name));
            assert_eq!((key.default, twin.default), ("none", "none"), "{}", key.name);
            assert_eq!((twin.secret, twin.live), (false, key.live), "{}", key.name);
        }
    }

    #[test]
    fn every_well_known_variable_stands_for_a_key() {
        for (variable, key) in WELL_KNOWN {
            assert!(find(key).is_some(), "{variable} stands for {key}, which is not in the table");
        }
    }

    #[test]
    fn a_misspelt_or_misplaced_name_finds_the_one_that_was_meant() {
        let names = || KEYS.iter().map(|key| key.name.to_owned());
        assert_eq!(unknown("upstream.ulr", names()), "unknown; did you mean upstream.url?");
        assert_eq!(unknown("ttl", names()), "unknown; did you mean cache.ttl?");
        assert_eq!(unknown("nothing.of.the.kind", names()), "unknown");
    }
}

//! What a key of the configuration is, and how one is found by its name or by a name that is nearly right.

use toml::Value;

use super::table::KEYS;

/// Environment variables that other software knows, and the keys they stand for.
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
    /// The default as TOML text, or `none`.
    pub default: &'static str,
    /// What it is for, in one sentence.
    pub doc: &'static str,
    /// Its value never prints, and `<name>_file` may name a file that holds it.
    pub secret: bool,
    /// A new value takes effect on reload; else at the next start.
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

    /// The environment variable that sets it.
    pub fn env_name(&self) -> String {
        format!("VECHO_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The section it stands in, or nothing for a top-level key; and its name there.
    pub fn split(&self) -> (Option<&'static str>, &'static str) {
        self.name.split_once('.').map_or((None, self.name), |(section, key)| (Some(section), key))
    }

    pub(super) fn default_value(&self) -> Option<Value> {
        (self.default != "none").then(|| toml_value(self.default).expect("a default in the table must be TOML"))
    }
}

/// The row of a key that the program itself names.
pub(super) fn known(name: &str) -> &'static Key {
    find(name).expect("a key that the program reads must stand in the table")
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == Some(name))
}

/// One TOML value from its text.
pub(super) fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    (table.len() == 1).then(|| table.get("value").cloned()).flatten()
}

/// Says that a name is unknown, and which known one may have been meant.
pub(super) fn unknown(name: &str, known: impl IntoIterator<Item = String>) -> String {
    match nearest(name, known) {
        Some(meant) => format!("unknown; did you mean {meant}?"),
        None => "unknown".to_owned(),
    }
}

/// The key whose last part is the same, or else the one that takes the fewest edits, if they are few.
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

//! Lookups of keys by exact or similar name.

use super::ConfigKey;
use super::KEYS;

/// Returns the row of a key whose name is in the program.
pub(super) fn known(name: &str) -> &'static ConfigKey {
    find(name).expect("a key that the program reads must stand in the table")
}

pub(super) fn find(name: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|key| key.name == name)
}

pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == Some(name))
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
    // A short name allows two edits, a long one a quarter of its length up to five.
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
    // A key in the wrong section is a likely mistake, even if the two names differ much.
    match (is_part_of(name, candidate), misplaced) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => strsim::damerau_levenshtein(name, candidate),
    }
}

/// Returns true if both are in one section and one of them is a part of the other, as `upstream.key` is of
/// `upstream.api_key`.
fn is_part_of(name: &str, candidate: &str) -> bool {
    let (Some((section, last)), Some((other_section, other_last))) =
        (name.rsplit_once('.'), candidate.rsplit_once('.'))
    else {
        return false;
    };
    section == other_section && last.len() > 2 && (last.contains(other_last) || other_last.contains(last))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::WELL_KNOWN;

    #[test]
    fn every_key_has_a_unique_name_a_unique_variable_and_a_description() {
        let names: HashSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: HashSet<_> = KEYS.iter().map(ConfigKey::env_name).collect();
        assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
        for key in KEYS {
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{} needs a sentence", key.name);
        }
    }

    #[test]
    fn every_secret_has_a_file_key_and_no_default() {
        for key in KEYS.iter().filter(|key| key.secret) {
            let twin = known(&format!("{}_file", key.name));
            assert_eq!((key.default, twin.default), ("none", "none"), "{}", key.name);
            assert_eq!((twin.secret, twin.live), (false, key.live), "{}", key.name);
        }
    }

    #[test]
    fn every_well_known_variable_maps_to_an_existing_key() {
        for (variable, key) in WELL_KNOWN {
            assert!(find(key).is_some(), "{variable} stands for {key}, which is not in the table");
        }
    }

    #[test]
    fn misspelt_or_misplaced_keys_get_a_suggestion() {
        let names = || KEYS.iter().map(|key| key.name.to_owned());
        assert_eq!(unknown("upstream.ulr", names()), "unknown; did you mean upstream.url?");
        assert_eq!(unknown("ttl", names()), "unknown; did you mean cache.ttl?");
        assert_eq!(unknown("upstream.key", names()), "unknown; did you mean upstream.api_key?");
        assert_eq!(unknown("pace.max_concurrent", names()), "unknown; did you mean pace.concurrent?");
        assert_eq!(unknown("nothing.of.the.kind", names()), "unknown");
    }
}

//! Names of types: none is defined twice in the crate, so a name has one meaning wherever it is read.

use std::collections::BTreeMap;

use super::code::{File, is_word, words};

/// Names that may be defined more than once, each with the reason.
pub(super) const SHARED_NAMES: &[(&str, &str)] = &[];

/// Keywords that define a type.
const KEYWORDS: [&str; 5] = ["enum", "struct", "trait", "type", "union"];

/// Macro whose first word is the name of an enum that it defines.
const DEFINING_MACRO: &str = "labels";

/// Reports names of types that are defined more than once.
pub(super) fn defined_twice(files: &[File], allowed: &[(&str, &str)]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        for (name, at) in definitions(file) {
            places.entry(name).or_default().push(file.at(at));
        }
    }
    let is_allowed = |name: &str| allowed.iter().any(|(allowed, _)| *allowed == name);
    let twice = places.iter().filter(|(name, at)| at.len() > 1 && !is_allowed(name));
    let unused = allowed.iter().filter(|(name, _)| places.get(*name).is_none_or(|at| at.len() < 2));
    let twice = twice.map(|(name, at)| format!("{name} is defined at {}", at.join(" and ")));
    twice.chain(unused.map(|(name, _)| format!("{name} is no longer defined twice"))).collect()
}

/// Returns the names of the types that a file defines, with their positions.
fn definitions(file: &File) -> Vec<(String, usize)> {
    let code = &file.code;
    let is_item = |keyword: &str, at: usize| keyword != "type" || is_outside_braces(&code[..at]);
    let by_keyword = KEYWORDS.iter().flat_map(|keyword| {
        words(code, keyword).filter(move |at| is_item(keyword, *at)).map(move |at| at + keyword.len())
    });
    let by_macro = words(code, DEFINING_MACRO).filter_map(|at| {
        let from = at + DEFINING_MACRO.len();
        code[from..].starts_with("! {").then_some(from + "! {".len())
    });
    by_keyword.chain(by_macro).filter_map(|at| Some((type_name(&code[at..])?, at))).collect()
}

/// Returns true for a position outside of all braces. A `type` in an `impl` or a trait is not a definition of its own.
fn is_outside_braces(before: &str) -> bool {
    before.matches('{').count() == before.matches('}').count()
}

/// Returns the name at the start of some code, if it is that of a type.
fn type_name(code: &str) -> Option<String> {
    let name: String = code.trim_start().bytes().take_while(|byte| is_word(*byte)).map(char::from).collect();
    name.starts_with(|first: char| first.is_ascii_uppercase()).then_some(name)
}

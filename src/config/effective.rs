//! The effective configuration: every key with its value and the value's origin. Secrets are shown as a placeholder.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Map, json};
use toml::Value;

use super::{ConfigKey, Origin, Secret};

/// A displayable value.
#[derive(Clone, Debug, PartialEq)]
pub enum DisplayValue {
    /// The value in canonical form: `3600` seconds and `"1h"` are equal.
    Value(Value),
    /// A secret. It is kept to detect changes, and shown as `[secret]`.
    Secret(Secret),
    /// Not set.
    Nothing,
}

impl DisplayValue {
    fn text(&self) -> String {
        match self {
            Self::Value(value) => value.to_string(),
            Self::Secret(_) => "[secret]".to_owned(),
            Self::Nothing => "none".to_owned(),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Value(value) => json!(value),
            Self::Secret(_) => json!("[secret]"),
            Self::Nothing => serde_json::Value::Null,
        }
    }
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Row of the key table.
    pub key: &'static ConfigKey,
    /// Value of the key.
    pub shown: DisplayValue,
    /// Origin of the value.
    pub origin: Origin,
}

/// Every key with its value, in table order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Effective(Arc<[Setting]>);

impl Effective {
    pub(super) fn new(entries: impl IntoIterator<Item = Setting>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// Returns the entries in table order.
    pub fn entries(&self) -> &[Setting] {
        &self.0
    }

    /// Returns the origin of a key's value.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.0.iter().find(|entry| entry.key.name == key).map(|entry| &entry.origin)
    }

    /// Formats the entries like TOML, with the origin of each value.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut at = None;
        for entry in self.entries() {
            let (section, name) = entry.key.split();
            // Keys are in table order, so those of one section are together.
            if section != at {
                write!(text, "\n[{}]\n", section.unwrap_or_default()).expect("a String must take text");
                at = section;
            }
            writeln!(text, "{name} = {}  # {}", entry.shown.text(), entry.origin).expect("a String must take text");
        }
        text
    }

    /// Formats the entries as JSON: `{"upstream": {"url": {"value": .., "origin": ".."}}}`. Unset values are null.
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = Map::new();
        for entry in self.entries() {
            let (section, name) = entry.key.split();
            let shown = json!({"value": entry.shown.json(), "origin": entry.origin.to_string()});
            match section {
                None => root.insert(name.to_owned(), shown),
                Some(section) => section_of(&mut root, section).insert(name.to_owned(), shown),
            };
        }
        root.into()
    }
}

fn section_of<'a>(root: &'a mut Map<String, serde_json::Value>, name: &str) -> &'a mut Map<String, serde_json::Value> {
    let section = root.entry(name).or_insert_with(|| Map::new().into());
    section.as_object_mut().expect("no key must have the name of a section")
}

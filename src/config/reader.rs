//! Reads key after key. A faulty value is reported and replaced by the default, so all faults are found in one pass.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use toml::Value;

use super::effective::{DisplayValue, Effective, Setting};
use super::raw::Raw;
use super::{Faults, KEYS, Origin, Secret, lookup, values};
use crate::process::connector::ProxyRules;

pub(super) struct Reader {
    raw: Raw,
    faults: Faults,
    shown: BTreeMap<&'static str, (DisplayValue, Origin)>,
}

impl Reader {
    pub(super) fn new(mut raw: Raw) -> Self {
        let faults = std::mem::take(&mut raw.faults);
        Self { raw, faults, shown: BTreeMap::new() }
    }

    /// Records a fault of a key, with the origin of its value.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        let origin = self.origin(name);
        self.faults.add(name, &origin, message);
    }

    /// Returns the origin of a key's value. The read value takes precedence: a secret may come from the file of its
    /// twin key.
    fn origin(&self, name: &str) -> Origin {
        let read = self.shown.get(name).map(|(_, origin)| origin);
        let said = || self.raw.get(name).map(|said| &said.origin);
        read.or_else(said).cloned().unwrap_or(Origin::Default)
    }

    /// Returns true if a layer above the defaults sets a key.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.raw.get(name).is_some_and(|said| said.origin != Origin::Default)
    }

    /// Records the canonical form of a value, or the result of a default such as `auto`.
    pub(super) fn show(&mut self, name: &str, value: impl Into<Value>) {
        let origin = self.origin(name);
        self.shown.insert(lookup::known(name).name, (DisplayValue::Value(value.into()), origin));
    }

    /// Reads an optional value.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        // The value is copied, because `show` below borrows the whole reader.
        let outcome = self.raw.get(name).map(|said| (read(&said.value), said.value.clone()))?;
        match outcome {
            (Ok(value), said) => {
                self.show(name, said);
                Some(value)
            }
            (Err(message), _) => {
                self.fault(name, message);
                None
            }
        }
    }

    /// Reads a value with a default.
    pub(super) fn required<T>(&mut self, name: &str, read: impl Fn(&Value) -> Result<T, String>) -> T {
        self.optional(name, &read).unwrap_or_else(|| {
            let default = lookup::known(name).default_value().expect("a required key must have a default");
            read(&default).expect("a default in the table must pass its own check")
        })
    }

    /// Reads an optional whole number.
    pub(super) fn optional_count<T: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<T> {
        let number = self.optional(name, |value| values::count(value, &range))?;
        self.show(name, i64::try_from(number).unwrap_or(i64::MAX));
        Some(fit(number))
    }

    /// Reads a whole number whose default is derived from the key `source`.
    pub(super) fn following_count<T>(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
        default: T,
        source: &'static str,
    ) -> T
    where
        T: TryFrom<u64> + TryInto<i64> + Copy,
    {
        if self.raw.get(name).is_some() {
            return self.optional_count(name, range).unwrap_or(default);
        }
        let shown = DisplayValue::Value(Value::Integer(default.try_into().unwrap_or(i64::MAX)));
        self.shown.insert(lookup::known(name).name, (shown, Origin::Key(source)));
        default
    }

    /// Reads a whole number.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> T {
        let number = self.required(name, |value| values::count(value, &range));
        self.show(name, i64::try_from(number).unwrap_or(i64::MAX));
        fit(number)
    }

    /// Reads a decimal number.
    pub(super) fn ratio(&mut self, name: &str, range: &RangeInclusive<f64>) -> f64 {
        let number = self.required(name, |value| values::ratio(value, range));
        self.show(name, number);
        number
    }

    /// Reads a duration.
    pub(super) fn duration(&mut self, name: &str, range: &RangeInclusive<Duration>) -> Duration {
        let length = self.required(name, |value| values::duration(value, range));
        self.show(name, values::shown_duration(length));
        length
    }

    /// Reads an optional duration.
    pub(super) fn optional_duration(&mut self, name: &str, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let length = self.optional(name, |value| values::duration(value, range))?;
        self.show(name, values::shown_duration(length));
        Some(length)
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> T {
        self.required(name, |value| values::choice(value, words))
    }

    /// Reads a boolean.
    pub(super) fn switch(&mut self, name: &str) -> bool {
        let on = self.required(name, values::switch);
        self.show(name, on);
        on
    }

    /// Reads a list and converts each item. Returns `None` if an item is faulty.
    pub(super) fn list<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let words = self.required(name, values::list);
        self.show(name, words.clone());
        // Every faulty item is reported, not only the first.
        let (items, faults): (Vec<_>, Vec<_>) = words.iter().map(|word| read(word)).partition(Result::is_ok);
        for message in faults.into_iter().filter_map(Result::err) {
            self.fault(name, message);
        }
        let items: Vec<T> = items.into_iter().filter_map(Result::ok).collect();
        (items.len() == words.len()).then_some(items)
    }

    /// Returns the proxies that the environment selects for calls to `target`.
    pub(super) fn proxies_of_environment(&mut self, target: &Uri) -> ProxyRules {
        self.raw.proxies.rules(target, &mut self.faults)
    }

    /// Reads the path of a file and checks that it can be opened.
    pub(super) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.optional(name, values::text)?);
        // The path is returned in spite of the fault, so a check of its pair reports no second one.
        if let Err(message) = readable(&path) {
            self.fault(name, message);
        }
        Some(path)
    }

    /// Reads a secret from its own key or from the file that its twin key names.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        let twin = format!("{name}_file");
        let outright = self.raw.get(name).map(|said| (secret_text(&said.value), said.origin.clone()));
        let filed = self
            .optional(&twin, values::text)
            .map(|path| (secret_of_file(Path::new(&path)), Origin::File(PathBuf::from(path))));
        match (outright, filed) {
            (None, None) => None,
            (Some((said, origin)), None) => self.keep(name, said, origin),
            (None, Some((read, origin))) => self.keep(&twin, read, origin),
            (Some(_), Some(_)) => {
                let message = format!("both {name} and {twin} ({}) are set; set one", self.origin(&twin));
                self.fault(name, message);
                None
            }
        }
    }

    fn keep(&mut self, said_as: &str, secret: Result<Secret, String>, origin: Origin) -> Option<Secret> {
        // A fault names the key as it was set. The value always belongs to the secret's own key.
        let name = lookup::known(said_as.strip_suffix("_file").unwrap_or(said_as)).name;
        match secret {
            Ok(secret) => {
                self.shown.insert(name, (DisplayValue::Secret(secret.clone()), origin));
                Some(secret)
            }
            Err(message) => {
                self.fault(said_as, message);
                None
            }
        }
    }

    /// Returns the effective configuration, or every fault.
    pub(super) fn finish(mut self) -> Result<Effective, Faults> {
        // The values are incomplete if there is a fault, so they are dropped.
        if !self.faults.0.is_empty() {
            return Err(self.faults);
        }
        let entries = KEYS.iter().map(|key| {
            let (shown, origin) = self.shown.remove(key.name).unwrap_or((DisplayValue::Nothing, Origin::Default));
            Setting { key, shown, origin }
        });
        Ok(Effective::new(entries.collect::<Vec<_>>()))
    }
}

fn fit<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("the range of a key must fit its type")
}

/// Reads a secret file.
pub(super) fn secret_of_file(path: &Path) -> Result<Secret, String> {
    let content = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
    content.and_then(|text| match text.trim() {
        "" => Err(format!("{} is empty", path.display())),
        trimmed => Ok(Secret::new(trimmed)),
    })
}

/// Parses a secret. The message never contains the value.
fn secret_text(value: &Value) -> Result<Secret, String> {
    match value.as_str().map(str::trim) {
        Some("") => Err("must not be empty".to_owned()),
        Some(secret) => Ok(Secret::new(secret)),
        None => Err("must be text".to_owned()),
    }
}

fn readable(path: &Path) -> Result<(), String> {
    let metadata = File::open(path).and_then(|file| file.metadata());
    match metadata {
        Ok(found) if found.is_dir() => Err(format!("{} is a folder", path.display())),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

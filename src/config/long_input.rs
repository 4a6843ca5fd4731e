//! `limits.long_input`: what happens to inputs that are longer than the model accepts.

use std::collections::BTreeMap;

/// Treatment of an input that is too long for its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongInput {
    /// It is sent as it is, and the service decides.
    #[default]
    Pass,
    /// The request is refused.
    Reject,
    /// It is cut to the maximum length.
    Truncate,
}

/// Treatment by model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongInputRules {
    /// Models that the configuration names.
    models: BTreeMap<String, LongInput>,
    /// All other models with a known length.
    others: LongInput,
}

impl LongInputRules {
    /// Reads a list of `TREATMENT` and `MODEL=TREATMENT`.
    pub(super) fn read(entries: Vec<(Option<String>, LongInput)>) -> Result<Self, String> {
        let mut rules = Self::default();
        let mut has_default = false;
        for (model, treatment) in entries {
            let is_new = if let Some(model) = model {
                rules.models.insert(model, treatment).is_none()
            } else {
                rules.others = treatment;
                !std::mem::replace(&mut has_default, true)
            };
            if !is_new {
                return Err("must name each model once, and one treatment without a model".to_owned());
            }
        }
        Ok(rules)
    }

    /// Returns the treatment for a model, or `None` if its maximum length is unknown. `is_known` tells whether the
    /// length is known without the configuration.
    pub fn of(&self, model: &str, is_known: bool) -> Option<LongInput> {
        self.models.get(model).copied().or_else(|| is_known.then_some(self.others))
    }

    /// Returns true if inputs of some model are refused.
    pub fn may_reject(&self) -> bool {
        self.others == LongInput::Reject || self.models.values().any(|treatment| *treatment == LongInput::Reject)
    }
}

/// Reads one entry of the list.
pub(super) fn entry(text: &str) -> Result<(Option<String>, LongInput), String> {
    let (model, word) = match text.rsplit_once('=') {
        Some((model, word)) => (Some(model.trim().to_owned()), word.trim()),
        None => (None, text.trim()),
    };
    let treatment = match word {
        "pass" => LongInput::Pass,
        "reject" => LongInput::Reject,
        "truncate" => LongInput::Truncate,
        _ => return Err(format!("{text:?} is not pass, reject or truncate, nor MODEL=truncate and the like")),
    };
    if model.as_ref().is_some_and(String::is_empty) {
        return Err(format!("{text:?} names no model before ="));
    }
    Ok((model, treatment))
}

//! One caller's request, drawn at random: credential, inputs, form, and cache controls.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::dice::Dice;
use crate::harness::client::raw;
use crate::harness::stub::Input;

/// Models with the requested `dimensions`. Without `dimensions`, the stub's vectors have [`USUAL`] components.
const SPACES: &[(&str, Option<usize>)] = &[
    ("alpha", None),
    ("alpha", Some(5)),
    ("alpha", Some(8)),
    ("beta", None),
    ("text-embedding-3-small", Some(6)),
    ("text-embedding-3-small", Some(9)),
];
pub(super) const USUAL: usize = 8;

const TEXTS: &[&str] = &[
    "a",
    "b",
    "the quick brown fox",
    "jumps over",
    "[1, 2]",
    "[1,2]",
    "1",
    "naïve café",
    "日本語のテキスト",
    "🦀🦀",
    "line\nbreak\t\"quoted\" \\ back",
    "\u{2028}\u{0}",
    "<html>&amp;",
    " ",
    "x",
    "xdimensions: 5",
    "a b c d e f g h",
    "eine etwas längere Zeile mit mehr als zehn Wörtern, damit die Anteile nicht alle gleich sind",
];

/// Cache controls of a caller. Most requests have none.
const CONTROLS: &[Control] = &[Control::NoCache, Control::NoStore, Control::OnlyIfCached, Control::MaxAge];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Plain,
    NoCache,
    NoStore,
    OnlyIfCached,
    /// Accepts nothing older than [`MAX_AGE_SECONDS`].
    MaxAge,
}

impl Control {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        if dice.percent(60) { Self::Plain } else { dice.pick(CONTROLS) }
    }
}

pub(super) const MAX_AGE_SECONDS: u64 = 10;

/// The parameters that determine an input's vector and the callers that may share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub(super) scope: String,
    pub(super) model: &'static str,
    pub(super) dimensions: Option<usize>,
    pub(super) input: Input,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) credential: &'static str,
    pub(super) namespace: Option<&'static str>,
    pub(super) model: &'static str,
    pub(super) dimensions: Option<usize>,
    pub(super) inputs: Vec<Input>,
    pub(super) encoding: Option<&'static str>,
    pub(super) control: Control,
    pub(super) fallback: Option<&'static str>,
    pub(super) user: Option<&'static str>,
    /// True if a single input is sent without a list.
    pub(super) bare: bool,
    /// The time after which the caller disconnects.
    pub(super) hangs_up_after: Option<Duration>,
}

impl Wish {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let (model, dimensions) = dice.pick(SPACES);
        let texts = dice.percent(70);
        let count = if dice.percent(30) { 1 } else { 1 + dice.below(7) };
        Self {
            credential: dice.pick(&["sk-one", "sk-two"]),
            namespace: dice.percent(20).then_some("team"),
            model,
            dimensions,
            inputs: (0..count).map(|_| if texts { text(dice) } else { tokens(dice) }).collect(),
            encoding: dice.pick(&[None, Some("float"), Some("base64"), Some("base64")]),
            control: Control::draw(dice),
            fallback: if dice.percent(70) { None } else { Some(dice.pick(&["error", "stale", "mock"])) },
            user: dice.percent(10).then_some("somebody"),
            bare: dice.percent(50),
            hangs_up_after: dice.percent(8).then(|| Duration::from_millis(dice.number() % 6)),
        }
    }

    /// Returns the same request for other inputs, without controls.
    pub(super) fn plain(&self, inputs: Vec<Input>) -> Self {
        Self { inputs, control: Control::Plain, fallback: None, hangs_up_after: None, ..self.clone() }
    }

    pub(super) fn request(&self, base_url: &str) -> Request<Full<Bytes>> {
        let mut request = raw(Method::POST, &format!("{base_url}/embeddings"), self.body().to_string());
        let mut header = |name: &'static str, value: &str| {
            request.headers_mut().insert(name, value.parse().expect("a test's header is legal"));
        };
        header("authorization", &format!("Bearer {}", self.credential));
        if let Some(namespace) = self.namespace {
            header("x-vecho-namespace", namespace);
        }
        if let Some(fallback) = self.fallback {
            header("x-vecho-fallback", fallback);
        }
        match self.control {
            Control::Plain => {}
            Control::NoCache => header("cache-control", "no-cache"),
            Control::NoStore => header("cache-control", "no-store"),
            Control::OnlyIfCached => header("cache-control", "only-if-cached"),
            Control::MaxAge => header("cache-control", &format!("max-age={MAX_AGE_SECONDS}")),
        }
        request
    }

    fn body(&self) -> Value {
        let mut inputs: Vec<Value> = self.inputs.iter().map(as_json).collect();
        let input = if inputs.len() == 1 && self.bare { inputs.remove(0) } else { Value::from(inputs) };
        let mut body = json!({"model": self.model, "input": input});
        for (name, value) in [
            ("dimensions", self.dimensions.map(Value::from)),
            ("encoding_format", self.encoding.map(Value::from)),
            ("user", self.user.map(Value::from)),
        ] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    /// Returns the cell of each input, in order.
    pub(super) fn cells(&self, shared: bool) -> Vec<Cell> {
        let credential = if shared { "" } else { self.credential };
        let scope = format!("{credential} {}", self.namespace.unwrap_or_default());
        let cell = |input: &Input| Cell {
            scope: scope.clone(),
            model: self.model,
            dimensions: self.dimensions,
            input: input.clone(),
        };
        self.inputs.iter().map(cell).collect()
    }

    /// Returns true if vectors fetched for this request may be served to other requests, now or later.
    pub(super) fn fills(&self) -> bool {
        !matches!(self.control, Control::NoStore | Control::OnlyIfCached)
    }
}

fn text(dice: &mut Dice) -> Input {
    if dice.percent(40) {
        return Input::Text(format!("document {}", dice.below(40)));
    }
    Input::from(dice.pick(TEXTS))
}

fn tokens(dice: &mut Dice) -> Input {
    let count = 1 + dice.below(3);
    Input::Tokens((0..count).map(|_| u32::try_from(dice.below(4)).expect("it is small")).collect())
}

fn as_json(input: &Input) -> Value {
    match input {
        Input::Text(text) => Value::from(text.as_str()),
        Input::Tokens(tokens) => Value::from(tokens.clone()),
    }
}

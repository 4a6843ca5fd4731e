//! Behaviours of the stub, and their precedence.

use std::collections::VecDeque;
use std::time::Duration;

use super::calls::Call;
use super::dialect::Dialect;

/// One way to handle a call. Behaviours that change an embeddings answer do not affect other routes.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Answers like the real service.
    Normal,
    /// Waits first.
    Delay(Duration),
    /// Holds the call until the test releases it.
    Gate,
    /// Sends exactly this answer.
    Status { code: u16, headers: Vec<(&'static str, String)>, body: String },
    /// 429 `rate_limit_exceeded` with `retry-after-ms` and `retry-after`.
    RateLimit { retry_after_ms: u64 },
    /// 429 `insufficient_quota`.
    Quota,
    /// Closes the connection without a byte.
    HangUp,
    /// Sends the head and half of the body, then closes.
    CutBody,
    /// Data in reverse order, with right values of `index`.
    Reorder,
    /// The last item repeats the first one's `index`.
    DuplicateIndex,
    /// The last item is missing.
    MissingItem,
    /// One more item than inputs.
    ExtraItem,
    /// Every vector is one component short.
    WrongDimension,
    /// The first vector has a component that is not finite: NaN bits as base64, `1e999` as floats.
    Nan,
    /// The first vector is all zeros.
    AllZero,
    /// Base64 answers hold f64, as some servers send.
    Float64Base64,
    /// Floats, even if base64 was requested.
    FloatsForBase64,
    /// Items without `index`.
    NoIndex,
    /// 200 with an HTML page.
    Garbage,
    /// The answer names this model. Its vectors stay those of the requested model.
    ModelName(String),
    /// Another model answers: under its own name, with its own vectors of the requested length.
    OtherModel(String),
    /// An answer without `usage`.
    NoUsage,
    /// Sends `content-encoding: gzip` with an unencoded body.
    GzipLie,
    /// The body in these content codings, in the order of a `content-encoding` header.
    Encoded(&'static str),
    /// Additional headers.
    Headers(Vec<(&'static str, String)>),
    /// The body in pieces of this many bytes, with this pause before each.
    SlowBody { chunk_bytes: usize, pause: Duration },
    /// Answers like another service.
    Dialect(Dialect),
    /// All of these, in order.
    All(Vec<Behaviour>),
}

impl Behaviour {
    /// Returns the model that answers in place of the requested one.
    pub(crate) fn other_model(&self) -> Option<&str> {
        match self {
            Self::OtherModel(model) => Some(model),
            Self::All(several) => several.iter().find_map(Self::other_model),
            _ => None,
        }
    }

    /// Returns the service whose dialect the answer uses.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::Dialect(dialect) => Some(*dialect),
            Self::All(several) => several.iter().find_map(Self::dialect),
            _ => None,
        }
    }
}

type Predicate = Box<dyn Fn(&Call) -> bool + Send + Sync>;
type Decision = Box<dyn FnMut(&Call) -> Behaviour + Send>;

/// Chooses the behaviour of a call: a queued one first, then that of the first matching rule, then the standing one.
/// A decision function, if set, replaces the standing behaviour.
pub(crate) struct Script {
    queue: VecDeque<Behaviour>,
    rules: Vec<(Predicate, Behaviour)>,
    standing: Behaviour,
    decision: Option<Decision>,
}

impl Default for Script {
    fn default() -> Self {
        Self { queue: VecDeque::new(), rules: Vec::new(), standing: Behaviour::Normal, decision: None }
    }
}

impl Script {
    pub(crate) fn push(&mut self, behaviour: Behaviour) {
        self.queue.push_back(behaviour);
    }

    pub(crate) fn rule(&mut self, predicate: Predicate, behaviour: Behaviour) {
        self.rules.push((predicate, behaviour));
    }

    pub(crate) fn stand(&mut self, behaviour: Behaviour) {
        self.standing = behaviour;
    }

    pub(crate) fn decide(&mut self, decision: Decision) {
        self.decision = Some(decision);
    }

    /// Returns the behaviour of one call, and removes it from the queue if it was queued.
    pub(crate) fn take(&mut self, call: &Call) -> Behaviour {
        if let Some(behaviour) = self.queue.pop_front() {
            return behaviour;
        }
        if let Some((_, behaviour)) = self.rules.iter().find(|(predicate, _)| predicate(call)) {
            return behaviour.clone();
        }
        self.decision.as_mut().map_or_else(|| self.standing.clone(), |decide| decide(call))
    }
}

//! What the stub can be told to do with a call, and the order in which it is told.

use std::collections::VecDeque;
use std::time::Duration;

use super::calls::Call;
use super::dialect::Dialect;

/// One way to treat a call. Those that change an embeddings answer leave other routes as they are.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// As the real service would.
    Normal,
    /// Waits first.
    Delay(Duration),
    /// Holds the call until the test releases it.
    Gate,
    /// Answers this and nothing else.
    Status { code: u16, headers: Vec<(&'static str, String)>, body: String },
    /// 429 `rate_limit_exceeded` with `retry-after-ms` and `retry-after`.
    RateLimit { retry_after_ms: u64 },
    /// 429 `insufficient_quota`.
    Quota,
    /// Closes the connection without a byte.
    HangUp,
    /// Sends the head and half of the body, then closes.
    CutBody,
    /// Data in reverse order, every `index` right.
    Reorder,
    /// The last item repeats the first one's `index`.
    DuplicateIndex,
    /// The last item is left out.
    MissingItem,
    /// One item more than was asked for.
    ExtraItem,
    /// Every vector is one component short.
    WrongDimension,
    /// The first vector holds something that is not finite: NaN bits as base64, `1e999` as floats.
    Nan,
    /// The first vector is all zeros.
    AllZero,
    /// Base64 answers hold f64, as some servers send.
    Float64Base64,
    /// Floats whatever was asked for.
    FloatsForBase64,
    /// Items without `index`.
    NoIndex,
    /// 200 with an HTML page.
    Garbage,
    /// The answer names this model; its vectors stay those of the model asked for.
    ModelName(String),
    /// Another model answers: under its own name, with its own vectors of the length asked for.
    OtherModel(String),
    /// An answer without `usage`.
    NoUsage,
    /// Claims `content-encoding: gzip` over plain bytes.
    GzipLie,
    /// The body in these content codings, as a `content-encoding` header lists them.
    Encoded(&'static str),
    /// These headers beside the usual ones.
    Headers(Vec<(&'static str, String)>),
    /// The body in pieces of this many bytes with this pause before each.
    SlowBody { chunk_bytes: usize, pause: Duration },
    /// As another service would.
    Dialect(Dialect),
    /// All of these, in order.
    All(Vec<Behaviour>),
}

impl Behaviour {
    /// The model that answers in place of the one asked for.
    pub(crate) fn other_model(&self) -> Option<&str> {
        match self {
            Self::OtherModel(model) => Some(model),
            Self::All(several) => several.iter().find_map(Self::other_model),
            _ => None,
        }
    }

    /// The service whose dialect the call is answered in.
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

/// What to do next: queued behaviours first, then the first matching rule, then the standing one, or what is decided
/// call by call in its place.
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

    /// The behaviour of one call; a queued one is used up by it.
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

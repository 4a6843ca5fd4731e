//! Label values of the catalogue as enums, so that no other series can exist.

use super::label::{Label, labels};
use crate::config::Priority;
use crate::process::governor::GovernorAction;

labels! {
    /// Result of a finished span.
    SpanResult {
        /// The collector accepted it.
        Exported = "exported",
        /// The queue was full.
        QueueFull = "queue_full",
        /// The collector rejected it or was unreachable for too long.
        Failed = "failed",
    }
}

labels! {
    /// Verdict of the upstream on a bearer token whose claims name the caller.
    TokenProof {
        /// It accepted the token.
        Accepted = "accepted",
        /// It refused the token with 401 or 403.
        Refused = "refused",
    }
}

labels! {
    /// Content coding of an answer that vecho compressed.
    AnswerCoding {
        /// RFC 1952
        Gzip = "gzip",
        /// RFC 7932
        Brotli = "br",
        /// RFC 8878
        Zstd = "zstd",
    }
}

labels! {
    /// Part of the public port that answered.
    Route {
        /// The embeddings route: cached input by input.
        Embeddings = "embeddings",
        /// The similarity route.
        Similar = "similar",
        /// Everything else under the base URL.
        Passthrough = "passthrough",
    }
}

labels! {
    /// Outcome of a request on the public port; the first six are also the values of `x-vecho-cache`.
    Outcome {
        /// Every input came from a tier.
        Hit = "hit",
        /// Some inputs came from a tier, the others from a fetch.
        Partial = "partial",
        /// Every input came from a fetch, its own or one already in flight.
        Miss = "miss",
        /// At least one input came from an expired entry, because the upstream is unavailable.
        Stale = "stale",
        /// At least one input is a mock, because the upstream is unavailable.
        Mock = "mock",
        /// An embeddings request that passed through unchanged because it cannot be cached.
        Bypass = "bypass",
        /// The upstream rejected the request; its error was passed on.
        Refused = "refused",
        /// The upstream throttled the request; its error was passed on.
        Throttled = "throttled",
        /// The upstream was unavailable, and no fallback answer was possible.
        Unavailable = "unavailable",
        /// vecho itself rejected the request to enforce one of its limits.
        Rejected = "rejected",
        /// An input is too long for its model (`limits.long_input`).
        LongInput = "long_input",
        /// A budget of the day does not cover the request.
        OverBudget = "over_budget",
        /// The request had `only-if-cached`, and not everything was cached.
        NotCached = "not_cached",
        /// The client disconnected before its response was complete.
        Cancelled = "cancelled",
        /// The request passed through, and the upstream answered it.
        Forwarded = "forwarded",
    }
}

impl Outcome {
    /// Returns true for outcomes that count in the error rate: the client got no answer because the upstream or vecho
    /// lacked capacity. Requests that the upstream rejects do not count, and neither do those that a budget rejects: it
    /// does what its operator wants.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Rejected)
    }

    /// Returns true if vecho itself has written the response, from vectors.
    pub const fn has_vectors(self) -> bool {
        matches!(self, Self::Hit | Self::Partial | Self::Miss | Self::Stale | Self::Mock)
    }
}

labels! {
    /// Source of the answer to one input.
    InputSource {
        /// The memory tier.
        Memory = "memory",
        /// The disk tier.
        Disk = "disk",
        /// The Redis tier.
        Redis = "redis",
        /// A longer vector from a tier, shortened.
        Derived = "derived",
        /// A fetch that another request had started (single-flight).
        Joined = "joined",
        /// The upstream.
        Upstream = "upstream",
        /// An expired entry.
        Stale = "stale",
        /// The mock embedder.
        Mock = "mock",
    }
}

impl InputSource {
    /// Returns the source of an input that a tier answers. Cached replies count as memory, since they are copies of its
    /// records.
    pub const fn of_tier(tier: Tier) -> Self {
        match tier {
            Tier::Memory | Tier::Answers => Self::Memory,
            Tier::Disk => Self::Disk,
            Tier::Redis => Self::Redis,
        }
    }
}

labels! {
    /// Tokens of answered inputs.
    TokenKind {
        /// Counted and charged by the upstream.
        Billed = "billed",
        /// Tokens that the upstream would have charged without the cache.
        Saved = "saved",
    }
}

labels! {
    /// Reason why a request passes through uncached. The header, traces and `explain` use the same words.
    Bypass {
        /// The body is not one JSON object.
        NotJson = "not_json",
        /// The body has a member whose effect on the vectors is unknown.
        UnknownField = "unknown_field",
        /// A known member has a value without a known meaning.
        WrongType = "wrong_type",
        /// An empty list, text or token array; the service decides how to handle it.
        EmptyInput = "empty_input",
        /// No `input`, or no `model` if the path names none.
        NoInput = "no_input",
        /// The content type is not JSON.
        ContentType = "content_type",
        /// The body has an unsupported content coding, or does not match its coding.
        ContentEncoding = "content_encoding",
        /// The upstream's response failed validation and was passed on unchanged.
        UnreadableAnswer = "unreadable_answer",
        /// A text contains an unpaired surrogate, which UTF-8 cannot represent.
        LoneSurrogate = "lone_surrogate",
        /// The body has a duplicate member.
        DuplicateKey = "duplicate_key",
        /// The model changed several times while the response was assembled.
        UnsteadyModel = "unsteady_model",
        /// The request has more inputs than a cacheable request may have.
        TooManyInputs = "too_many_inputs",
        /// Parsing or answering the request would exceed the memory limit for all requests together.
        TooLarge = "too_large",
        /// The path is similar to `/embeddings` but different.
        OtherPath = "other_path",
    }
}

labels! {
    /// Reason why vecho itself rejected a request.
    Rejection {
        /// The body is larger than `limits.max_body_bytes`.
        BodyTooLarge = "body_too_large",
        /// `limits.max_connections` are open.
        Connections = "connections",
        /// `limits.max_requests` are in flight.
        Requests = "requests",
        /// `limits.max_inflight_bytes` are in use.
        InflightBytes = "inflight_bytes",
        /// The request head is too large, too slow or malformed, or its upstream address is too long.
        Header = "header",
        /// A pause in the body exceeded `limits.body_timeout`, or the whole body `limits.request_timeout`.
        BodyTimeout = "body_timeout",
        /// A request control has an unknown value.
        BadControl = "bad_control",
        /// An input is too long for its model (`limits.long_input`).
        LongInput = "long_input",
        /// The request had `only-if-cached`, and not everything was cached.
        OnlyIfCached = "only_if_cached",
        /// A budget of the day does not cover the request (`budget.tokens_per_day` and the like).
        Budget = "budget",
        /// The ops port denied access.
        Forbidden = "forbidden",
    }
}

labels! {
    /// Outcome of one upstream call.
    CallOutcome {
        /// A valid response.
        Ok = "ok",
        /// The upstream rejected the request.
        Refused = "refused",
        /// The upstream throttled the call.
        Throttled = "throttled",
        /// No response, or a server error.
        Unavailable = "unavailable",
        /// A successful response whose body failed validation.
        Unreadable = "unreadable",
    }
}

labels! {
    /// Reason for the retry of an upstream call.
    RetryReason {
        /// The upstream was unavailable.
        Unavailable = "unavailable",
        /// The upstream throttled the call.
        Throttled = "throttled",
        /// A reused connection was closed before the first byte of a response.
        ReusedConnection = "reused_connection",
    }
}

labels! {
    /// End of the wait for an input that another replica fetches.
    LeaseWait {
        /// The other replica has stored the vector.
        Stored = "stored",
        /// The other replica died or gave up, and this one fetches.
        TakenOver = "taken_over",
        /// The call of the other replica failed, and this one asks for itself.
        Failed = "failed",
        /// Redis did not answer, and this replica asks for itself.
        Unavailable = "unavailable",
        /// The wait was too long, and this replica asks for itself.
        TooLong = "too_long",
    }
}

labels! {
    /// A tier of the cache, by its name in headers, metrics and routes.
    Tier {
        /// Records in the memory of this process.
        Memory = "memory",
        /// The reply cache: finished bodies in the memory of this process. Its label keeps an older name, because
        /// dashboards and alerts of users contain it.
        Answers = "answers",
        /// The disk of this machine.
        Disk = "disk",
        /// Redis or Valkey, shared by replicas.
        Redis = "redis",
    }
}

labels! {
    /// Event of the reply cache.
    AnswerEvent {
        /// A cached reply answered a request.
        Served = "served",
        /// A reply was stored.
        Stored = "stored",
    }
}

labels! {
    /// Result of a check whether a model has changed behind its name.
    WatchResult {
        /// There was nothing to compare with; the answer is the reference from now on.
        First = "first",
        /// The vectors are those of the reference.
        Same = "same",
        /// The vectors have changed.
        Drifted = "drifted",
        /// Two answers in a row differ from one another.
        Unsteady = "unsteady",
        /// No call was made, because another replica had asked within the period.
        Elsewhere = "elsewhere",
        /// No call was made, because the upstream counts as unavailable.
        Skipped = "skipped",
        /// The call failed, or was throttled.
        Failed = "failed",
        /// The upstream refused the call.
        Refused = "refused",
    }
}

labels! {
    /// A listening port.
    Port {
        /// The public port for applications.
        Public = "public",
        /// The ops port.
        Admin = "admin",
    }
}

impl Label for Priority {
    const LABELS: &'static [&'static str] = &[Self::Interactive.name(), Self::Bulk.name()];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for GovernorAction {
    const LABELS: &'static [&'static str] = &{
        let mut labels = [""; Self::ALL.len()];
        let mut at = 0;
        // A constant cannot use iterators.
        while at < labels.len() {
            labels[at] = Self::ALL[at].label();
            at += 1;
        }
        labels
    };

    fn index(self) -> usize {
        self as usize
    }
}

labels! {
    /// Result of a configuration reload.
    ReloadResult {
        /// The new configuration is in force.
        Ok = "ok",
        /// The new configuration has faults; the old one stays in force.
        Failed = "failed",
    }
}

/// The state of the breaker in front of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are allowed.
    Closed,
    /// One probe is allowed.
    HalfOpen,
    /// No call is allowed.
    Open,
}

impl BreakerState {
    /// Returns the value of the gauge.
    pub const fn value(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// Returns the state for a value of the gauge.
    pub const fn from_value(value: i64) -> Self {
        match value {
            0 => Self::Closed,
            1 => Self::HalfOpen,
            _ => Self::Open,
        }
    }

    /// Returns the name of the state.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

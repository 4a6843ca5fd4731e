//! The label values of the catalogue, as enums: a series that is not written here cannot exist.

/// A closed set of label values; a value knows its place, so that a handle is found by index.
pub trait Label: Copy + 'static {
    /// Every value as it is printed, in the order of [`Label::index`].
    const LABELS: &'static [&'static str];

    /// Its place in [`Label::LABELS`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The value as it is printed.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $name {
            const LABELS: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// What became of a finished span.
    SpanResult {
        /// The collector has it.
        Exported = "exported",
        /// Too many were waiting.
        QueueFull = "queue_full",
        /// The collector refused it, or could not be reached for too long.
        Failed = "failed",
    }
}

labels! {
    /// Which part of the public port answered.
    Route {
        /// The embeddings route: cached input by input.
        Embeddings = "embeddings",
        /// Everything else under the base URL.
        Passthrough = "passthrough",
    }
}

labels! {
    /// How a request on the public port ended; the first six are also the values of `x-vecho-cache`.
    Outcome {
        /// Every input came from a tier.
        Hit = "hit",
        /// Some inputs came from a tier, the others from a fetch.
        Partial = "partial",
        /// Every input came from a fetch, its own or one already under way.
        Miss = "miss",
        /// At least one input is an entry past its time, because the upstream is unavailable.
        Stale = "stale",
        /// At least one input is a mock, because the upstream is unavailable.
        Mock = "mock",
        /// An embeddings request that went through unchanged, because it cannot be cached.
        Bypass = "bypass",
        /// The upstream refused the request; its error was passed on.
        Refused = "refused",
        /// The upstream asked to slow down; its error was passed on.
        Throttled = "throttled",
        /// The upstream could not be asked, and nothing could stand in.
        Unavailable = "unavailable",
        /// vecho itself refused the request, to hold one of its limits.
        Rejected = "rejected",
        /// `only-if-cached` was asked for, and not everything was cached.
        NotCached = "not_cached",
        /// The client hung up before its answer was complete.
        Cancelled = "cancelled",
        /// Passed through, and answered by the upstream.
        Forwarded = "forwarded",
    }
}

impl Outcome {
    /// Whether it counts in the error rate: a client did not get its answer, for want of the upstream or of room. What
    /// the upstream refuses is between the client and the upstream.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Rejected)
    }
}

labels! {
    /// Where the answer to one input came from.
    SourceLabel {
        /// The memory tier.
        Memory = "memory",
        /// The disk tier.
        Disk = "disk",
        /// The Redis tier.
        Redis = "redis",
        /// A fetch that another request had started.
        Joined = "joined",
        /// The upstream.
        Upstream = "upstream",
        /// An entry past its time.
        Stale = "stale",
        /// The mock embedder.
        Mock = "mock",
    }
}

labels! {
    /// Tokens of answered inputs.
    TokenKind {
        /// Counted and charged by the upstream.
        Billed = "billed",
        /// Those the upstream would have charged, had the answer not been at hand.
        Saved = "saved",
    }
}

labels! {
    /// Reason why a request passes through uncached. The same words are in the header, in traces and in `explain`.
    Bypass {
        /// The body is not one JSON object.
        NotJson = "not_json",
        /// The body holds a member whose effect on the vectors is not known.
        UnknownField = "unknown_field",
        /// A known member holds a value that has no known meaning.
        WrongType = "wrong_type",
        /// An empty list, text or token array: the service decides.
        EmptyInput = "empty_input",
        /// No `input`, or no `model` where the path names none.
        NoInput = "no_input",
        /// The content type is not JSON.
        ContentType = "content_type",
        /// The body is compressed.
        ContentEncoding = "content_encoding",
        /// The upstream's answer failed validation and was passed on as it came.
        UnreadableAnswer = "unreadable_answer",
        /// A text holds half of a surrogate pair, which no UTF-8 string can.
        LoneSurrogate = "lone_surrogate",
        /// The body holds a member twice.
        DuplicateKey = "duplicate_key",
        /// The model changed several times while the answer was put together.
        UnsteadyModel = "unsteady_model",
        /// More inputs than one request may have to be cached.
        TooManyInputs = "too_many_inputs",
        /// Reading or answering it would take more memory than requests may take together.
        TooLarge = "too_large",
        /// The path is not `/embeddings` but similar to it.
        OtherPath = "other_path",
    }
}

labels! {
    /// Why vecho itself refused a request.
    Rejection {
        /// The body is larger than `limits.max_body_bytes`.
        BodyTooLarge = "body_too_large",
        /// `limits.max_connections` are open.
        Connections = "connections",
        /// `limits.max_requests` are under way.
        Requests = "requests",
        /// `limits.max_inflight_bytes` of bodies are under way.
        InflightBytes = "inflight_bytes",
        /// There was no room for its vectors before its deadline.
        Memory = "memory",
        /// The request head is too large, too slow or malformed.
        Header = "header",
        /// The body came slower than `limits.body_timeout`.
        BodyTimeout = "body_timeout",
        /// A request control holds a value that it does not know.
        BadControl = "bad_control",
        /// `only-if-cached` was asked for, and not everything was cached.
        OnlyIfCached = "only_if_cached",
        /// The ops port refused access.
        Forbidden = "forbidden",
    }
}

labels! {
    /// How one upstream call ended.
    CallOutcome {
        /// A validated answer.
        Ok = "ok",
        /// The upstream refused the request.
        Refused = "refused",
        /// The upstream asked to slow down.
        Throttled = "throttled",
        /// No answer, or a server error.
        Unavailable = "unavailable",
        /// A success whose body failed validation.
        Unreadable = "unreadable",
    }
}

labels! {
    /// Why an upstream call was repeated.
    RetryReason {
        /// The upstream was unavailable.
        Unavailable = "unavailable",
        /// The upstream asked to slow down.
        Throttled = "throttled",
        /// A kept connection was cut before the first byte of an answer.
        ReusedConnection = "reused_connection",
    }
}

labels! {
    /// A store whose size is watched.
    Tier {
        /// The memory tier.
        Memory = "memory",
        /// The rendered answers.
        Answers = "answers",
        /// The disk tier.
        Disk = "disk",
        /// The Redis tier.
        Redis = "redis",
    }
}

labels! {
    /// What happened to a rendered answer.
    AnswerEvent {
        /// It answered a request.
        Served = "served",
        /// It was kept.
        Stored = "stored",
    }
}

labels! {
    /// A listening port.
    Port {
        /// The port of the applications.
        Public = "public",
        /// The ops port.
        Admin = "admin",
    }
}

labels! {
    /// What the governor did to stay under the memory limit.
    GovernorAction {
        /// Freed memory was given back to the operating system.
        Trim = "trim",
        /// A tier was made smaller.
        Shrink = "shrink",
        /// Memory was freed on an operator's request.
        Optimize = "optimize",
    }
}

labels! {
    /// How re-reading the configuration ended.
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
    /// Calls go through.
    Closed,
    /// One probe goes through.
    HalfOpen,
    /// No call goes through.
    Open,
}

impl BreakerState {
    /// The value of the gauge.
    pub const fn value(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// The state that the gauge shows.
    pub const fn from_value(value: i64) -> Self {
        match value {
            0 => Self::Closed,
            1 => Self::HalfOpen,
            _ => Self::Open,
        }
    }

    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

//! Keys: calls to the upstream, and answers in its absence.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "upstream.url",
        "\"https://api.openai.com/v1\"",
        "Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; \"mock:\" is the built-in mock.",
    ),
    key(
        "upstream.identity",
        "none",
        "Base URL that stands for the upstream in the keys of entries, such as a former upstream.url; by default \
         upstream.url, or the url of the first of several targets.",
    ),
    key(
        "upstream.api_key",
        "none",
        "API key that replaces the caller's in calls; without it, each caller's own key is forwarded.",
    )
    .secret()
    .live(),
    key("upstream.api_key_file", "none", "File that holds upstream.api_key.").live(),
    key(
        "upstream.api_key_header",
        "\"auto\"",
        "Header that carries the API key: authorization, api-key, or auto, which is api-key for Azure.",
    ),
    key(
        "upstream.encoding",
        "\"auto\"",
        "Encoding of the vectors requested from the upstream: auto (base64 if they are known to be f32), as_asked \
         (the caller's), base64, float.",
    )
    .live(),
    key(
        "upstream.compression",
        "\"auto\"",
        "Content codings that embeddings calls offer to the upstream: auto (those of the caller, unless upstream.url is \
         this machine), on (gzip, br and zstd), off.",
    )
    .live(),
    key(
        "upstream.max_concurrent",
        "20",
        "Maximum number of embeddings calls in flight; a quarter more, at least one, for models that wait behind \
         slow calls to others, and for calls that take unusually long.",
    ),
    key(
        "upstream.connect_timeout",
        "\"5s\"",
        "Timeout of name resolution, TCP connect, the exchange with a proxy and TLS handshake together.",
    ),
    key(
        "upstream.headers_timeout",
        "none",
        "Minimum time after which a call that takes ten times as long as recent calls of its model is late; its \
         requests then get a 504. By default they wait.",
    )
    .live(),
    key(
        "upstream.call_timeout",
        "\"1200s\"",
        "Timeout of one embeddings call, including its answer; above limits.request_timeout, late answers are still \
         stored.",
    )
    .live(),
    key(
        "upstream.idle_timeout",
        "\"60s\"",
        "Time for which an unused connection to the upstream stays open; at most 4s for pass-through requests.",
    ),
    key(
        "upstream.max_connection_age",
        "\"60s\"",
        "Time for which a connection to the upstream is used for new requests; after it, the upstream's name is \
         resolved again.",
    ),
    key("upstream.max_answer_bytes", "268435456", "Maximum size of an embeddings answer that vecho reads, in bytes."),
    key("upstream.ca_file", "none", "PEM file with roots to trust in addition to the public ones."),
    key(
        "upstream.proxy",
        "\"env\"",
        "Forward proxy for calls to the upstream: env (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY decide), none, \
         or a URL such as http://USER:PASSWORD@HOST:PORT.",
    ),
    key(
        "upstream.cert_file",
        "none",
        "PEM file with the client certificate chain for the upstream; requires upstream.key_file.",
    ),
    key("upstream.key_file", "none", "PEM file with the private key of upstream.cert_file."),
    key(
        "upstream.http2",
        "\"off\"",
        "Protocol of connections to the upstream: off (HTTP/1.1), or auto (HTTP/2 where the TLS handshake offers it).",
    ),
    key("batch.max_inputs", "2048", "Maximum number of inputs in one upstream call.").live(),
    key(
        "batch.max_tokens",
        "300000",
        "Maximum number of tokens in one upstream call, estimated from the length of the texts.",
    )
    .live(),
    key(
        "batch.target_time",
        "\"2s\"",
        "Target duration of a call that carries several requests, or one part of a larger request.",
    )
    .live(),
    key(
        "retry.max_attempts",
        "3",
        "Maximum number of attempts per call, including the first; a repetition because an idle connection was \
         closed does not count.",
    )
    .live(),
    key(
        "retry.base_wait",
        "\"200ms\"",
        "Wait before the first retry; it doubles with each further retry, with full jitter.",
    )
    .live(),
    key(
        "retry.max_wait",
        "\"5s\"",
        "Maximum wait before a retry. A retry-after of up to 5s, or up to this value if it is longer, is followed; a \
         longer one is passed to the caller.",
    )
    .live(),
    key(
        "retry.budget_ratio",
        "0.2",
        "Retries allowed per call, as an average; at 0 only the initial reserve is allowed.",
    )
    .live(),
    key(
        "breaker.failures",
        "5",
        "Number of different requests that must fail in a row before the model or the host counts as unavailable; 0 \
         disables this.",
    )
    .live(),
    key("breaker.open_for", "\"1s\"", "Time without calls after the breaker opens; it doubles with each failed probe.")
        .live(),
    key("breaker.max_open", "\"30s\"", "Maximum time between two probes of the breaker.").live(),
    key(
        "fallback.mode",
        "\"mock\"",
        "Answer while the upstream is unavailable: error, stale (else error), mock (stale, else a marked mock).",
    )
    .live(),
    key(
        "fallback.mock_dimensions",
        "1536",
        "Dimensions of a mock if neither the request nor earlier answers determine them.",
    )
    .live(),
];

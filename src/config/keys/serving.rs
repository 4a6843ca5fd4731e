//! Keys: limits, memory, TLS and the ops port.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key("limits.max_header_bytes", "65536", "Maximum size of a request head, in bytes."),
    key("limits.header_timeout", "\"10s\"", "Timeout of a whole request head, and of a TLS handshake."),
    key("limits.idle_timeout", "\"120s\"", "Time for which an idle client connection stays open."),
    key("limits.body_timeout", "\"30s\"", "Maximum pause between two parts of a request body."),
    key(
        "limits.max_body_bytes",
        "none",
        "Maximum size of an embeddings request body, in bytes; by default 64 MiB, or limits.max_inflight_bytes if \
         that is less.",
    ),
    key(
        "limits.request_timeout",
        "\"600s\"",
        "Maximum duration of an embeddings request, including the arrival of its body.",
    )
    .live(),
    key(
        "limits.long_input",
        "[\"pass\"]",
        "Treatment of inputs over 8192 tokens of OpenAI's models: pass, reject or truncate; MODEL=truncate is for one \
         model, of any name.",
    )
    .live(),
    key("limits.max_connections", "4096", "Maximum number of connections on the public port."),
    key(
        "limits.max_requests",
        "2048",
        "Maximum number of requests in flight on the public port; if one caller has reached it, other callers may \
         exceed it by an eighth.",
    ),
    key(
        "limits.max_inflight_bytes",
        "none",
        "Maximum memory for bodies and answers of requests in flight, in bytes, also with an eighth more for other \
         callers; by default a fifth of memory.limit_mb, at most 128 MiB.",
    ),
    key(
        "memory.limit_mb",
        "500",
        "Memory limit of the process, in MiB, at least 32; a lower limit of the container takes precedence.",
    ),
    key(
        "memory.check_every",
        "\"1s\"",
        "Interval between checks of the memory limit; near the limit a quarter of it, and at most 50ms for about a \
         second after a burst of requests begins.",
    ),
    key("tls.cert_file", "none", "PEM file with the certificate chain of the public port; requires tls.key_file."),
    key("tls.key_file", "none", "PEM file with the private key of the public port."),
    key(
        "admin.token",
        "none",
        "Token that the ops port requires for every route except probes and metrics, also from loopback.",
    )
    .secret(),
    key("admin.token_file", "none", "File that holds admin.token."),
];

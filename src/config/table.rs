//! The table of configuration keys. Files, environment, checks, documentation and reloads all use it.

use super::key::ConfigKey;

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> ConfigKey {
    ConfigKey::new(name, default, doc)
}

/// Every key, in the order of the documentation.
pub const KEYS: &[ConfigKey] = &[
    key("listen", "\"127.0.0.1:7861\"", "Address of the public port, which applications call."),
    key("admin_listen", "\"127.0.0.1:7862\"", "Address of the ops port: metrics, health, cache control."),
    key("workers", "none", "Number of threads that serve requests; by default one per processor."),
    key(
        "upstream.url",
        "\"https://api.openai.com/v1\"",
        "Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; \"mock:\" is the built-in mock.",
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
        "upstream.max_concurrent",
        "20",
        "Maximum number of embeddings calls in flight; a quarter more, at least one, for models that wait behind \
         slow calls to others, and for calls that take unusually long.",
    ),
    key("upstream.connect_timeout", "\"5s\"", "Timeout of name resolution, TCP connect and TLS handshake together."),
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
    key("cache.ttl", "\"30d\"", "Time for which an entry is fresh.").live(),
    key(
        "cache.stale_for",
        "\"7d\"",
        "Time for which an expired entry is kept, for use while the upstream is unavailable; \"0s\" keeps none.",
    )
    .live(),
    key("cache.max_entries", "none", "Maximum number of entries in memory; by default only the memory limit applies."),
    key(
        "cache.scope",
        "\"auto\"",
        "Callers that share entries: credential (those with the same credential), proxy (all), shared (all that the \
         upstream accepted), or auto: proxy if vecho holds a key or uses mock:, else credential.",
    ),
    key("cache.key_secret", "none", "Secret that prevents readers of a shared tier from guessing cache keys.").secret(),
    key("cache.key_secret_file", "none", "File that holds cache.key_secret."),
    key(
        "cache.extra_fields",
        "[\"input_type\", \"task\", \"task_type\", \"truncate\", \"truncation\", \"prompt_name\", \
         \"add_special_tokens\", \"auto_truncate\", \"dimension\", \"drop_params\", \"embd_normalize\", \
         \"embed_dtype\", \"embedding_type\", \"encoding\", \"encoding_type\", \"instruction\", \
         \"late_chunking\", \"modality\", \"normalize\", \"normalized\", \"output_dimension\", \
         \"output_dtype\", \"priority\", \"text_type\", \"truncate_dim\", \"truncate_prompt_tokens\", \
         \"truncation_direction\", \"truncation_side\"]",
        "Request members that are part of the cache key; a request with any other member that is not null is \
         forwarded uncached.",
    )
    .live(),
    key(
        "cache.key_headers",
        "[]",
        "Request headers that select the provider, such as x-portkey-provider of a gateway; their values are part of \
         the cache key.",
    ),
    key(
        "cache.same_models",
        "[]",
        "Model names in answers that mean the same model, each as \"NAME=MODEL\"; for gateways that alternate \
         between providers.",
    )
    .live(),
    key(
        "cache.derive_dimensions",
        "false",
        "Whether a missing vector of fewer dimensions is made from a longer one in the cache, for models trained for it.",
    )
    .live(),
    key(
        "cache.codec",
        "\"lossless\"",
        "Encoding of stored vectors: lossless (about half the size), bf16 and int8 (both lossy), f32 (uncompressed).",
    )
    .live(),
    key("cache.memory_percent", "60", "Share of the memory limit for vectors, in percent."),
    key("cache.answers_percent", "10", "Share of the memory limit for the reply cache, in percent; 0 disables it."),
    key("disk.enabled", "true", "Enables the disk tier, which keeps vectors across restarts."),
    key(
        "disk.path",
        "none",
        "Folder of the disk tier; by default vecho in XDG_CACHE_HOME or in ~/.cache, and without either there is no \
         disk tier.",
    ),
    key(
        "disk.max_mb",
        "2048",
        "Maximum size of all files of the disk tier together, in MiB; the oldest entries are removed first.",
    ),
    key(
        "disk.queue_mb",
        "32",
        "Maximum size of entries in memory that wait to be written to disk, in MiB; at most a sixteenth of the memory \
         limit.",
    ),
    key("disk.off_for", "\"30s\"", "Time for which the disk tier is off after a failure."),
    key(
        "redis.url",
        "none",
        "Address of Redis or Valkey: redis://HOST:PORT/DATABASE, or rediss:// for TLS; for a cluster several, \
         separated by commas.",
    ),
    key("redis.cluster", "false", "Treats redis.url as nodes of a cluster."),
    key("redis.username", "none", "ACL user of the Redis tier."),
    key("redis.password", "none", "Password of the Redis tier.").secret(),
    key("redis.password_file", "none", "File that holds redis.password."),
    key("redis.key_prefix", "\"vecho:\"", "Prefix of all names in Redis; replicas with the same prefix share entries."),
    key("redis.ca_file", "none", "PEM file with the roots to trust for Redis, instead of the public ones."),
    key("redis.cert_file", "none", "PEM file with the client certificate for Redis; requires redis.key_file."),
    key("redis.key_file", "none", "PEM file with the private key of redis.cert_file."),
    key("redis.timeout", "\"50ms\"", "Timeout of one lookup in Redis; a lookup that takes longer is a miss."),
    key(
        "redis.connect_timeout",
        "\"1s\"",
        "Timeout of name resolution, TCP connect, TLS handshake and login together; no request waits for it.",
    ),
    key(
        "redis.queue_mb",
        "16",
        "Maximum size of entries in memory that wait to be written to Redis, in MiB; at most a sixteenth of the \
         memory limit.",
    ),
    key(
        "redis.lease",
        "\"0s\"",
        "Maximum time for which other replicas wait while one replica fetches the same texts; \"0s\" disables leases.",
    ),
    key(
        "auth.vouch_ttl",
        "\"5m\"",
        "Time for which a credential that the upstream accepted stays accepted, in scope shared.",
    )
    .live(),
    key(
        "auth.credential_headers",
        "[\"authorization\", \"api-key\", \"x-api-key\", \"openai-organization\", \"openai-project\"]",
        "Request headers that together form the credential of a caller.",
    ),
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
    key(
        "savings.prices",
        "[\"text-embedding-3-small=0.02\", \"text-embedding-3-large=0.13\", \"text-embedding-ada-002=0.10\"]",
        "Price of a million tokens by model, each as \"MODEL=PRICE\"; without a price, only the tokens of a model are \
         counted.",
    )
    .live(),
    key("savings.currency", "\"USD\"", "Currency of savings.prices, as three letters.").live(),
    key(
        "log.level",
        "\"info\"",
        "Log level (error, warn, info, debug, trace, off) or filter, such as \"info,vecho::upstream=debug\".",
    )
    .live(),
    key("log.format", "\"text\"", "Format of log lines: text, or json with one object per line."),
    key(
        "traces.endpoint",
        "none",
        "Base URL of an OTLP/HTTP collector, such as http://collector:4318; traces are sent to /v1/traces below it.",
    ),
    key("traces.url", "none", "Complete URL for traces, used unchanged; it takes precedence over traces.endpoint."),
    key(
        "traces.headers",
        "none",
        "Headers sent to the collector: name=value, separated by commas, special characters as %XX.",
    )
    .secret()
    .live(),
    key("traces.headers_file", "none", "File that holds traces.headers.").live(),
    key(
        "traces.sample_ratio",
        "1.0",
        "Share of the traces begun here that are recorded, from 0 to 1; if a request has a traceparent, its sampled \
         flag decides.",
    ),
    key(
        "traces.service_name",
        "none",
        "Attribute service.name of the spans; by default the one in traces.resource, else vecho.",
    ),
    key(
        "traces.resource",
        "[]",
        "Additional resource attributes, each as name=value, such as k8s.namespace.name=search.",
    ),
    key("traces.timeout", "\"10s\"", "Timeout of one export to the collector, including the connect."),
    key(
        "traces.send_every",
        "\"5s\"",
        "Maximum time for which a finished span waits for an export; 512 waiting spans are exported at once.",
    ),
    key(
        "traces.queue_spans",
        "2048",
        "Maximum number of finished spans that wait for the collector; further spans are dropped.",
    ),
    key("traces.ca_file", "none", "PEM file with roots to trust for the collector, in addition to the public ones."),
    key(
        "reload.poll_every",
        "\"5s\"",
        "Interval between checks of the configuration and secret files for changes; at \"0s\" only SIGHUP reloads \
         them.",
    ),
    key(
        "shutdown.grace",
        "\"25s\"",
        "Time from SIGTERM until requests that are still open are cut; \"0s\" cuts them at once.",
    ),
];

/// Environment variables of other software, and the corresponding keys.
pub const WELL_KNOWN: &[(&str, &str)] = &[
    ("OPENAI_API_KEY", "upstream.api_key"),
    ("CACHE_MAX_SIZE", "cache.max_entries"),
    ("CACHE_TTL_SECONDS", "cache.ttl"),
    ("EMBEDDING_BATCH_SIZE", "batch.max_inputs"),
    ("MAX_CONCURRENT_REQUESTS", "upstream.max_concurrent"),
    ("MEMORY_LIMIT_MB", "memory.limit_mb"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.url"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "traces.resource"),
];

//! The table of configuration keys. Files, environment, checks, documentation and reloads all use it.

use super::Key;

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key::new(name, default, doc)
}

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("listen", "\"127.0.0.1:7861\"", "Address of the public port, which applications call."),
    key("admin_listen", "\"127.0.0.1:7862\"", "Address of the ops port: metrics, health, cache control."),
    key("workers", "none", "Threads that serve requests; without it, as many as there are processors."),
    key(
        "upstream.url",
        "\"https://api.openai.com/v1\"",
        "Base URL of the service behind, as in OPENAI_BASE_URL of an application; \"mock:\" is the built-in mock.",
    ),
    key("upstream.api_key", "none", "API key sent in place of the caller's; without it, callers bring their own.")
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
        "Encoding vectors are asked for in: auto (base64 where they are known to be f32), as_asked, base64, float.",
    )
    .live(),
    key(
        "upstream.max_concurrent",
        "20",
        "Most embeddings calls under way at once; a fourth more for models that wait for slow calls to others.",
    ),
    key("upstream.connect_timeout", "\"5s\"", "Limit of name lookup, TCP and TLS together."),
    key(
        "upstream.headers_timeout",
        "none",
        "Least limit of a call up to its answer's headers, once calls were answered; ten times what they took lately if longer.",
    )
    .live(),
    key(
        "upstream.call_timeout",
        "\"1200s\"",
        "Limit of one embeddings call, its answer included; longer than limits.request_timeout, so that late answers are kept.",
    )
    .live(),
    key(
        "upstream.idle_timeout",
        "\"60s\"",
        "How long an unused connection to the upstream is kept; for pass-through requests, 4s at most.",
    ),
    key(
        "upstream.max_connection_age",
        "\"60s\"",
        "How long a connection to the upstream takes new requests, so that changes of its address are followed.",
    ),
    key("upstream.max_answer_bytes", "268435456", "Largest embeddings answer that is read, in bytes."),
    key("upstream.ca_file", "none", "PEM file with roots to trust besides the public ones."),
    key("batch.max_inputs", "2048", "Most inputs in one upstream call.").live(),
    key("batch.max_tokens", "300000", "Most tokens in one upstream call, as estimated from the length of its texts.")
        .live(),
    key(
        "batch.target_time",
        "\"2s\"",
        "Time that a call may take which carries several requests, or a part of a request that would take longer.",
    )
    .live(),
    key(
        "retry.max_attempts",
        "3",
        "Calls made for one batch, the first included, a free one after a cut connection not.",
    )
    .live(),
    key("retry.base_wait", "\"200ms\"", "Wait before the first repetition; it doubles from there, with full jitter.")
        .live(),
    key("retry.max_wait", "\"5s\"", "Longest wait that is chosen here. A retry-after may ask for up to five seconds if that is more; a longer one goes to the caller at once.")
        .live(),
    key("retry.budget_ratio", "0.2", "Repetitions allowed per call made, over time.").live(),
    key("breaker.failures", "5", "Different requests that fail in a row before the model, or the host, counts as unavailable; 0 means never.")
        .live(),
    key("breaker.open_for", "\"1s\"", "How long calling is given up the first time; doubles with each failed probe.")
        .live(),
    key("breaker.max_open", "\"30s\"", "Longest time between two probes.").live(),
    key(
        "fallback.mode",
        "\"mock\"",
        "Answer while the upstream is unavailable: error, stale (else error), mock (stale, else a marked mock).",
    )
    .live(),
    key("fallback.mock_dimensions", "1536", "Dimensions of a mock where neither request nor earlier answers tell.")
        .live(),
    key("cache.ttl", "\"30d\"", "How long an entry is fresh.").live(),
    key("cache.stale_for", "\"7d\"", "How long after that it is kept to stand in while the upstream is unavailable.")
        .live(),
    key("cache.max_entries", "none", "Most entries in memory; without it, only the memory limit bounds them."),
    key(
        "cache.scope",
        "\"auto\"",
        "Who may share an entry: credential, proxy, shared; auto is proxy with an own key or mock:, else credential.",
    ),
    key("cache.key_secret", "none", "Secret that makes cache keys unguessable to others who can read a shared tier.")
        .secret(),
    key("cache.key_secret_file", "none", "File that holds cache.key_secret."),
    key(
        "cache.extra_fields",
        "[\"input_type\", \"task\", \"task_type\", \"truncate\", \"truncation\", \"prompt_name\", \
         \"add_special_tokens\", \"auto_truncate\", \"dimension\", \"drop_params\", \"embd_normalize\", \
         \"embed_dtype\", \"embedding_type\", \"encoding\", \"encoding_type\", \"instruction\", \
         \"late_chunking\", \"modality\", \"normalize\", \"normalized\", \"output_dimension\", \
         \"output_dtype\", \"priority\", \"text_type\", \"truncate_dim\", \"truncate_prompt_tokens\", \
         \"truncation_direction\", \"truncation_side\"]",
        "Request members that join the key; any other member that is not null makes a request pass through uncached.",
    )
    .live(),
    key(
        "cache.key_headers",
        "[]",
        "Request headers that choose who answers, such as a gateway's x-portkey-provider; their values join the key.",
    ),
    key(
        "cache.same_models",
        "[]",
        "Names that answers give one model: \"NAME=MODEL\", NAME counts as MODEL; for gateways that use several in turn.",
    )
    .live(),
    key(
        "cache.codec",
        "\"lossless\"",
        "How vectors are packed: lossless (half size where no bit is lost), bf16, int8 (both lossy), f32 (not at all).",
    )
    .live(),
    key("cache.memory_percent", "60", "Share of the memory limit for vectors, in percent."),
    key("cache.answers_percent", "10", "Share of the memory limit for rendered answers, in percent."),
    key("disk.enabled", "true", "Whether vectors are kept on disk, where they outlive the process."),
    key(
        "disk.path",
        "none",
        "Folder of the disk tier; without it, vecho in XDG_CACHE_HOME or in ~/.cache, and no disk tier without either.",
    ),
    key("disk.max_mb", "2048", "Most that the disk tier takes, in MiB."),
    key(
        "disk.queue_mb",
        "32",
        "Most that waits in memory to be written to disk, in MiB; at most a sixteenth of the memory limit.",
    ),
    key("disk.off_for", "\"30s\"", "How long the disk tier is left alone after it failed."),
    key(
        "redis.url",
        "none",
        "Redis or Valkey: redis://HOST:PORT/DATABASE, or rediss:// for TLS; of a cluster several, with commas.",
    ),
    key("redis.cluster", "false", "Whether redis.url names nodes of a cluster."),
    key("redis.username", "none", "ACL user of the Redis tier."),
    key("redis.password", "none", "Password of the Redis tier.").secret(),
    key("redis.password_file", "none", "File that holds redis.password."),
    key("redis.key_prefix", "\"vecho:\"", "What the names of all keys in Redis begin with."),
    key("redis.ca_file", "none", "PEM file with the roots to trust for Redis, in place of the public ones."),
    key(
        "redis.cert_file",
        "none",
        "PEM file with the client certificate for Redis; with redis.key_file, or not at all.",
    ),
    key("redis.key_file", "none", "PEM file with the private key of that certificate."),
    key("redis.timeout", "\"50ms\"", "Limit of one question to Redis; what is not answered by then is a miss."),
    key("redis.connect_timeout", "\"1s\"", "Limit of name lookup, TCP, TLS and login together."),
    key(
        "redis.queue_mb",
        "16",
        "Most that waits in memory to be written to Redis, in MiB; at most a sixteenth of the memory limit.",
    ),
    key(
        "redis.lease",
        "\"0s\"",
        "How long one replica may keep the others from fetching the same missing texts; \"0s\": each asks for itself.",
    ),
    key("auth.vouch_ttl", "\"5m\"", "How long the upstream's yes to a credential holds, in scope shared.").live(),
    key(
        "auth.credential_headers",
        "[\"authorization\", \"api-key\", \"x-api-key\", \"openai-organization\", \"openai-project\"]",
        "Request headers that together are a caller's credential.",
    ),
    key("limits.max_header_bytes", "65536", "Largest request head, in bytes."),
    key("limits.header_timeout", "\"10s\"", "Limit of a request head from first to last byte, and of a TLS handshake."),
    key("limits.idle_timeout", "\"120s\"", "How long a connection may wait for its next request."),
    key("limits.body_timeout", "\"30s\"", "Longest pause between two pieces of a request body."),
    key(
        "limits.max_body_bytes",
        "none",
        "Largest embeddings request body, in bytes; without it, 64 MiB or limits.max_inflight_bytes if that is less.",
    ),
    key("limits.request_timeout", "\"600s\"", "Longest life of an embeddings request.").live(),
    key("limits.max_connections", "4096", "Most connections on the public port."),
    key(
        "limits.max_requests",
        "2048",
        "Most requests under way on the public port; beside one that fills it, other callers may use an eighth more.",
    ),
    key(
        "limits.max_inflight_bytes",
        "none",
        "Most bytes that requests under way take, likewise; without it, a fifth of memory.limit_mb, 128 MiB at most.",
    ),
    key(
        "memory.limit_mb",
        "500",
        "Memory the process stays under, in MiB, 32 at least; the container's limit counts where it is less.",
    ),
    key("memory.check_every", "\"1s\"", "How often memory is looked at; near the limit, four times as often."),
    key(
        "tls.cert_file",
        "none",
        "PEM file with the certificate chain of the public port; with tls.key_file, or not at all.",
    ),
    key("tls.key_file", "none", "PEM file with the private key of the public port."),
    key(
        "admin.token",
        "none",
        "Token that every route of the ops port but probes and metrics requires, also from loopback.",
    )
    .secret(),
    key("admin.token_file", "none", "File that holds admin.token."),
    key(
        "savings.prices",
        "[\"text-embedding-3-small=0.02\", \"text-embedding-3-large=0.13\", \"text-embedding-ada-002=0.10\"]",
        "What a million tokens cost, by model: \"MODEL=PRICE\"; a model without a price is counted in tokens alone.",
    )
    .live(),
    key("savings.currency", "\"USD\"", "The currency of savings.prices, in three letters.").live(),
    key(
        "log.level",
        "\"info\"",
        "A level (error, warn, info, debug, trace, off) or a filter: \"info,vecho::upstream=debug\".",
    )
    .live(),
    key("log.format", "\"text\"", "How log lines look: text, or json with one object a line."),
    key(
        "traces.endpoint",
        "none",
        "Base URL of an OTLP/HTTP collector, such as http://collector:4318; traces go to /v1/traces below it.",
    ),
    key("traces.url", "none", "Whole URL that traces go to, as it is; it wins over traces.endpoint."),
    key("traces.headers", "none", "Headers sent to the collector: name=value, several with commas, %XX for odd bytes.")
        .secret()
        .live(),
    key("traces.headers_file", "none", "File that holds traces.headers.").live(),
    key(
        "traces.sample_ratio",
        "1.0",
        "Share of traces begun here that is recorded; where a traceparent comes along, its sampled flag decides.",
    ),
    key("traces.service_name", "none", "service.name of the spans; without it, that of traces.resource, else vecho."),
    key(
        "traces.resource",
        "[]",
        "Further attributes of the resource, each name=value, such as k8s.namespace.name=search.",
    ),
    key("traces.timeout", "\"10s\"", "Limit of one delivery to the collector, the connection included."),
    key(
        "traces.send_every",
        "\"5s\"",
        "Longest wait of a finished span for others to be sent with; 512 are sent at once.",
    ),
    key("traces.queue_spans", "2048", "Most finished spans that wait for the collector; what comes on top is dropped."),
    key("traces.ca_file", "none", "PEM file with roots to trust for the collector besides the public ones."),
    key(
        "reload.poll_every",
        "\"5s\"",
        "How often configuration and secret files are looked at; \"0s\": only on SIGHUP.",
    ),
    key("shutdown.grace", "\"25s\"", "Time from SIGTERM until what still runs is cut."),
];

//! Keys: the cache, its tiers and who shares it.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
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
        "\"auto\"",
        "Lease by which one replica fetches a text and the others wait: \"auto\" follows the usual time of calls and is \
         renewed, a duration is its fixed length, \"0s\" disables leases.",
    ),
    key(
        "auth.vouch_ttl",
        "\"5m\"",
        "Time for which a credential that the upstream accepted stays accepted, in scope shared.",
    )
    .live(),
    key(
        "auth.identity",
        "\"header\"",
        "What names a caller: header (its credential headers), or token (the claims of its bearer token, so a renewed \
         token keeps the entries; the upstream checks each token first).",
    ),
    key(
        "auth.credential_headers",
        "[\"authorization\", \"api-key\", \"x-api-key\", \"openai-organization\", \"openai-project\"]",
        "Request headers that together form the credential of a caller.",
    ),
];

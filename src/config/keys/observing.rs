//! Keys: prices, logs, traces, reloads and shutdown.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
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
    key(
        "traces.proxy",
        "\"env\"",
        "Forward proxy for deliveries to the collector, with the same values as upstream.proxy.",
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

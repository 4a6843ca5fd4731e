//! The catalogue: one table that defines every metric with its type, labels, buckets and help text.

use std::fmt::Write;

use super::label::Label;
use super::labels::{
    AnswerCoding, AnswerEvent, Bypass, CallOutcome, InputSource, LeaseWait, Outcome, Port, Rejection, ReloadResult,
    RetryReason, Route, SpanResult, Tier, TokenKind, TokenProof, WatchResult,
};
use crate::config::Priority;
use crate::process::governor::GovernorAction;

/// The type of a metric, as Prometheus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// Returns the type as Prometheus prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One label of a metric and the values it can take.
#[derive(Clone, Copy, Debug)]
pub struct LabelSet {
    /// Name of the label.
    pub name: &'static str,
    /// Every value; empty if the values are only known at run time.
    pub values: &'static [&'static str],
}

/// One metric of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// Description in one sentence.
    pub help: &'static str,
    /// Labels, in the order in which handles pass values.
    pub labels: &'static [LabelSet],
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}

const fn label<L: Label>(name: &'static str) -> LabelSet {
    LabelSet { name, values: L::LABELS }
}

const fn counter(name: &'static str, labels: &'static [LabelSet], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help, labels, buckets: &[] }
}

const fn gauge(name: &'static str, labels: &'static [LabelSet], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help, labels, buckets: &[] }
}

const fn histogram(
    name: &'static str,
    labels: &'static [LabelSet],
    buckets: &'static [f64],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Histogram, help, labels, buckets }
}

const ROUTE_OUTCOME: &[LabelSet] = &[label::<Route>("route"), label::<Outcome>("outcome")];
const TIER: &[LabelSet] = &[label::<Tier>("tier")];
const PORT: &[LabelSet] = &[label::<Port>("port")];

const PRIORITY: &[LabelSet] = &[label::<Priority>("priority")];
const PACE_RESOURCE: &[LabelSet] = &[
    LabelSet { name: "target", values: &[] },
    LabelSet { name: "model", values: &[] },
    LabelSet { name: "resource", values: &["requests", "tokens"] },
];
const TARGET: &[LabelSet] = &[LabelSet { name: "target", values: &[] }];
const TARGET_OUTCOME: &[LabelSet] = &[LabelSet { name: "target", values: &[] }, label::<CallOutcome>("outcome")];
const TARGET_MODEL: &[LabelSet] = &[LabelSet { name: "target", values: &[] }, LabelSet { name: "model", values: &[] }];

const MODEL_KIND: &[LabelSet] = &[
    LabelSet { name: "model", values: &[] },
    LabelSet { name: "cache_namespace", values: &[] },
    label::<TokenKind>("kind"),
];

const BUDGET: &[LabelSet] =
    &[LabelSet { name: "budget", values: &[] }, LabelSet { name: "cache_namespace", values: &[] }];

/// Buckets from the duration of a memory hit to that of the longest call.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const POWERS_OF_TWO: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];

macro_rules! catalogue {
    ($($id:ident: $family:expr;)+) => {
        $(pub(super) const $id: Family = $family;)+

        /// Every metric, in the order of the documentation.
        pub const CATALOGUE: &[Family] = &[$($id),+];
    };
}

catalogue! {
    REQUESTS: counter("vecho_requests_total", ROUTE_OUTCOME,
        "Requests on the public port, by how they ended.");
    REQUEST_DURATION: histogram("vecho_request_duration_seconds", ROUTE_OUTCOME, SECONDS,
        "Time from a request's head until its answer begins; a series appears with its first request.");
    REQUESTS_IN_FLIGHT: gauge("vecho_requests_in_flight", &[],
        "Requests under way on the public port.");
    BODY_BYTES_IN_FLIGHT: gauge("vecho_body_bytes_in_flight", &[],
        "Bytes that embeddings requests under way hold: bodies, memory for reading them, answers that wait to be sent.");
    VECTOR_BYTES_IN_FLIGHT: gauge("vecho_vector_bytes_in_flight", &[],
        "Bytes of memory set aside for the vectors of requests under way.");
    INPUTS: counter("vecho_inputs_total", &[label::<InputSource>("source")],
        "Answered inputs, by where the answer came from.");
    TOKENS: counter("vecho_tokens_total", &[label::<TokenKind>("kind")],
        "Tokens of answered inputs: billed by the upstream, or saved because the answer was at hand.");
    MODEL_TOKENS: counter("vecho_model_tokens_total", MODEL_KIND,
        "The same tokens by requested model and namespace; beyond 64 such pairs, the rest is under other.");
    MODEL_COST: counter("vecho_model_cost_total", MODEL_KIND,
        "What these tokens cost, or would have cost, by savings.prices and in savings.currency.");
    BUDGET_LIMIT: gauge("vecho_budget_limit", BUDGET,
        "Limit of a day for each configured budget, by its key and namespace: tokens, or money in savings.currency.");
    BUDGET_SPENT: gauge("vecho_budget_spent", BUDGET,
        "What embeddings calls have cost since the day (UTC) began, of all replicas, by budget.");
    BUDGET_REFUSED: counter("vecho_budget_refused_total", BUDGET,
        "Fetches that were refused because a budget does not cover them, by budget.");
    BUDGET_UNPRICED: counter("vecho_budget_unpriced_tokens_total", &[],
        "Tokens of models without a price, which count at the highest price while money is limited.");
    BYPASS: counter("vecho_bypass_total", &[label::<Bypass>("reason")],
        "Embeddings requests that went through uncached, by reason.");
    COMPRESSED: counter("vecho_compressed_answers_total", &[label::<AnswerCoding>("coding")],
        "Answers that were compressed for their callers, by content coding.");
    REJECTED: counter("vecho_rejected_total", &[label::<Rejection>("reason")],
        "Requests that vecho itself refused, by reason, on both ports.");
    UPSTREAM_CALLS: counter("vecho_upstream_calls_total", &[label::<CallOutcome>("outcome")],
        "Embeddings calls to the upstream, each attempt counted, by how they ended.");
    UPSTREAM_CALL_DURATION: histogram("vecho_upstream_call_duration_seconds", &[], SECONDS,
        "Time of one embeddings call to the upstream, answer body included.");
    UPSTREAM_CALL_INPUTS: histogram("vecho_upstream_call_inputs", &[], POWERS_OF_TWO,
        "Inputs in one embeddings call to the upstream.");
    UPSTREAM_CALL_REQUESTS: histogram("vecho_upstream_call_requests", &[], POWERS_OF_TWO,
        "Requests whose misses were merged into one embeddings call to the upstream.");
    UPSTREAM_RETRIES: counter("vecho_upstream_retries_total", &[label::<RetryReason>("reason")],
        "Embeddings calls that were repeated, by reason.");
    UPSTREAM_SPLITS: counter("vecho_upstream_splits_total", &[],
        "Embeddings calls that were halved because the upstream found them too large.");
    UPSTREAM_ISOLATIONS: counter("vecho_upstream_isolations_total", &[],
        "Refused embeddings calls whose requests were then sent one by one.");
    UPSTREAM_IN_FLIGHT: gauge("vecho_upstream_in_flight", &[],
        "Embeddings calls to the upstream under way.");
    UPSTREAM_QUEUED_INPUTS: gauge("vecho_upstream_queued_inputs", &[],
        "Inputs that wait for a permit to call the upstream.");
    PACE_WAITING: gauge("vecho_pace_waiting", PRIORITY,
        "Embeddings calls that wait for their turn inside the service's rate limits, by priority.");
    PACE_WAIT: histogram("vecho_pace_wait_seconds", PRIORITY, SECONDS,
        "Time for which such calls waited, by priority; calls that did not wait do not count.");
    PACE_LIMIT: gauge("vecho_pace_limit_per_minute", PACE_RESOURCE,
        "Rate limit per minute that calls are paced by: configured, reported by the service, or found out by trial; of several credentials the scarcest; beyond 64 models under other.");
    PACE_LEFT: gauge("vecho_pace_left", PACE_RESOURCE,
        "What is left of such a limit now.");
    PACE_HELD: gauge("vecho_pace_held_seconds", TARGET_MODEL,
        "Time for which calls are still held back after the service refused one for its rate.");
    PACE_REFUSED: counter("vecho_pace_refused_total", PRIORITY,
        "Requests that were refused because the turn of their call would have come after their deadline, by priority.");
    TARGET_CALLS: counter("vecho_target_calls_total", TARGET_OUTCOME,
        "Embeddings calls to each of several targets, each attempt counted, by how they ended.");
    TARGET_MOVES: counter("vecho_target_moves_total", TARGET,
        "Embeddings calls that left a target for another one because it failed or limits the rate.");
    TARGET_BREAKER: gauge("vecho_target_breaker_state", TARGET,
        "The breaker in front of each target: 0 closed, 1 half-open, 2 open.");
    TARGET_DISAGREES: gauge("vecho_target_disagrees", TARGET_MODEL,
        "1 if a target gave other vectors for vecho's own texts than the others, else 0; beyond 64 models under other.");
    INCIDENTS: counter("vecho_incidents_total", &[],
        "Incidents: times during which requests found the upstream unavailable.");
    INCIDENT_ACTIVE: gauge("vecho_incident_active", &[],
        "1 from the first request that found the upstream unavailable until the upstream answers again.");
    BREAKER_STATE: gauge("vecho_upstream_breaker_state", &[],
        "The breaker in front of the upstream: 0 closed, 1 half-open, 2 open.");
    BREAKER_OPENED: counter("vecho_upstream_breaker_opened_total", &[],
        "Times the breaker in front of the upstream opened.");
    CACHE_ENTRIES: gauge("vecho_cache_entries", TIER,
        "Entries held, by tier.");
    CACHE_BYTES: gauge("vecho_cache_bytes", TIER,
        "Bytes held, by tier.");
    CACHE_CAPACITY: gauge("vecho_cache_capacity_bytes", TIER,
        "Bytes that may be held, by tier.");
    CACHE_EVICTIONS: counter("vecho_cache_evictions_total", TIER,
        "Entries evicted to make room, by tier.");
    CACHE_DROPPED: counter("vecho_cache_dropped_total", TIER,
        "Entries that were not written, by tier: too many waited, or the tier was down.");
    CACHE_TIER_DOWN: gauge("vecho_cache_tier_down", TIER,
        "1 while a tier that is configured does not work, by tier.");
    CACHE_LOOKUP_DURATION: histogram("vecho_cache_lookup_duration_seconds", TIER, SECONDS,
        "Duration of one lookup in a tier below memory, by tier.");
    LEASE_WAITS: counter("vecho_lease_waits_total", &[label::<LeaseWait>("end")],
        "Inputs that waited for the fetch of another replica, by the end of the wait.");
    CACHE_PURGES: counter("vecho_cache_purges_total", &[],
        "Times an operator emptied the cache or a part of it.");
    CACHE_FORGOTTEN: counter("vecho_cache_forgotten_inputs_total", &[],
        "Inputs whose entries an operator removed.");
    CACHE_ANSWERS: counter("vecho_cache_answers_total", &[label::<AnswerEvent>("result")],
        "Replies of the reply cache: served from it, or stored in it.");
    FLIGHTS: gauge("vecho_flights", &[],
        "Keys whose fetch is under way.");
    MODEL_DRIFTS: counter("vecho_model_drifts_total", &[],
        "Times another model began to answer, by its name or as drift.action found; older entries are misses then.");
    WATCH_CHECKS: counter("vecho_model_checks_total", &[label::<WatchResult>("result")],
        "Checks whether a model still gives vecho's own texts the same vectors, by result.");
    WATCH_DRIFTED: gauge("vecho_model_drifted", &[LabelSet { name: "model", values: &[] }],
        "1 if the last check of a model found other vectors than before, else 0.");
    WATCH_DIFFERENCE: gauge("vecho_model_difference", &[LabelSet { name: "model", values: &[] }],
        "Difference, 1 - cosine, that the last check of a model found; drift.bound is the limit.");
    WATCH_TOKENS: counter("vecho_model_check_tokens_total", &[],
        "Tokens that the upstream charged for these checks.");
    ROTATING_CREDENTIALS: counter("vecho_rotating_credentials_total", &[],
        "Callers whose bearer tokens change while their claims stay; in scope credential each token has its own entries.");
    TOKEN_PROOFS: counter("vecho_token_proofs_total", &[label::<TokenProof>("result")],
        "Bearer tokens that the upstream accepted for the first time, or refused, with auth.identity = token.");
    CONNECTIONS: gauge("vecho_connections", PORT,
        "Open connections, by port.");
    CONNECTIONS_REJECTED: counter("vecho_connections_rejected_total", PORT,
        "Connections rejected because too many were open, by port: with a 503; behind TLS and in a rush without one.");
    MEMORY_RESIDENT: gauge("vecho_memory_resident_bytes", &[],
        "Resident memory as the governor last saw it.");
    MEMORY_LIMIT: gauge("vecho_memory_limit_bytes", &[],
        "Resident memory that the governor stays under.");
    GOVERNOR_ACTIONS: counter("vecho_governor_actions_total", &[label::<GovernorAction>("action")],
        "What the governor did to stay under the memory limit, by action.");
    TRACE_SPANS: counter("vecho_trace_spans_total", &[label::<SpanResult>("result")],
        "Finished spans of traces, by result of their delivery.");
    CONFIG_RELOADS: counter("vecho_config_reloads_total", &[label::<ReloadResult>("result")],
        "Times the configuration was read again, by result.");
    CONFIG_CURRENT: gauge("vecho_config_last_reload_successful", &[],
        "0 if the last reload of the configuration, a secret or a certificate failed and the previous one is active.");
    READY: gauge("vecho_ready", &[],
        "1 while requests are accepted, 0 while starting and while draining.");
    BUILD_INFO: gauge("vecho_build_info", &[LabelSet { name: "version", values: &[] }],
        "Always 1; the label tells the version.");
    PROCESS_START_TIME: gauge("process_start_time_seconds", &[],
        "Start of the process, in seconds since the Unix epoch.");
    PROCESS_RESIDENT: gauge("process_resident_memory_bytes", &[],
        "Resident memory of the process.");
    PROCESS_VIRTUAL: gauge("process_virtual_memory_bytes", &[],
        "Address space of the process; most of it is never touched.");
    PROCESS_THREADS: gauge("process_threads", &[],
        "Threads of the process.");
    PROCESS_CPU: counter("process_cpu_seconds_total", &[],
        "User and system CPU time of the process.");
    PROCESS_OPEN_FDS: gauge("process_open_fds", &[],
        "Open file descriptors.");
    PROCESS_MAX_FDS: gauge("process_max_fds", &[],
        "Most file descriptors that may be open.");
}

/// Formats the catalogue as a Markdown table for the documentation.
pub fn catalogue_markdown() -> String {
    let mut table = String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
    for family in CATALOGUE {
        let labels: Vec<String> = family.labels.iter().map(label_markdown).collect();
        writeln!(table, "| `{}` | {} | {} | {} |", family.name, family.kind.name(), labels.join("<br>"), family.help)
            .expect("writing to a String must succeed");
    }
    table
}

fn label_markdown(label: &LabelSet) -> String {
    if label.values.is_empty() {
        return format!("`{}`", label.name);
    }
    let values: Vec<String> = label.values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{}`: {}", label.name, values.join(", "))
}

//! Tables of spans and of their attributes. All names are defined here, and the documentation is generated from them.

use std::fmt::Write;

/// Name of a span attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name in OpenTelemetry's semantic conventions, or a name that begins with `vecho.`.
    pub name: &'static str,
    /// Meaning of the value.
    pub doc: &'static str,
}

/// Kind of span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanName {
    /// Name of the span. In some names the last word is a placeholder.
    pub name: &'static str,
    /// Part of a request that the span covers.
    pub doc: &'static str,
}

macro_rules! attributes {
    ($($id:ident: $name:literal, $doc:literal;)+) => {
        $(#[doc = $doc] pub const $id: Attribute = Attribute { name: $name, doc: $doc };)+

        /// Every attribute, in the order of the documentation.
        pub const ATTRIBUTES: &[Attribute] = &[$($id),+];
    };
}

macro_rules! spans {
    ($($id:ident: $name:literal, $doc:literal;)+) => {
        $(pub(super) const $id: SpanName = SpanName { name: $name, doc: $doc };)+

        /// Every kind of span, in the order of the documentation.
        pub const SPANS: &[SpanName] = &[$($id),+];
    };
}

spans! {
    REQUEST: "METHOD ROUTE", "Server span: a request of the public port, until its answer begins.";
    LOOK_UP: "look up TIER", "One lookup in a tier below memory.";
    WAIT: "wait", "The wait for the inputs that no tier had; linked to the calls of other traces that fetched them.";
    LEASE: "lease", "Agreement with other replicas on the one that fetches each input.";
    QUEUE: "queue", "Inputs that wait for an upstream call.";
    CALL: "embeddings MODEL", "Client span: one attempt of a call to the upstream; linked to the other requests in it.";
    FORWARD: "METHOD", "Client span: a request passed through, until its answer begins.";
}

attributes! {
    METHOD: "http.request.method", "The method; `_OTHER` if HTTP does not define it.";
    ROUTE: "http.route", "The embeddings path with a placeholder for the deployment; not on pass-through requests.";
    PATH: "url.path", "The path, without its query.";
    SCHEME: "url.scheme", "Whether the request came over TLS: `http` or `https`.";
    SERVER: "server.address", "The host of the upstream, or of the target that the call goes to.";
    PORT: "server.port", "The port of that host.";
    STATUS: "http.response.status_code", "The status of the answer.";
    RESEND_COUNT: "http.request.resend_count", "How often the call was made before.";
    ERROR_TYPE: "error.type", "How a request or call failed: the status, or the outcome in one word.";
    OPERATION: "gen_ai.operation.name", "`embeddings`";
    REQUEST_MODEL: "gen_ai.request.model", "The model asked for.";
    RESPONSE_MODEL: "gen_ai.response.model", "The model that answered.";
    DIMENSIONS: "gen_ai.embeddings.dimension.count", "The dimensions asked for.";
    INPUT_TOKENS: "gen_ai.usage.input_tokens", "Tokens that the upstream says the call cost.";
    OUTCOME: "vecho.outcome", "How a request or call ended, as in the metrics; for embeddings the value of `x-vecho-cache`.";
    SOURCES: "vecho.sources", "The value of `x-vecho-sources`: inputs by source.";
    TOKENS_BILLED: "vecho.tokens.billed", "Tokens that the upstream charged for this request.";
    TOKENS_SAVED: "vecho.tokens.saved", "Tokens that it would have charged.";
    BYPASS_REASON: "vecho.bypass.reason", "Why the request passed through uncached.";
    INPUTS: "vecho.inputs", "How many inputs the request, the queue or the call has.";
    TIER: "vecho.tier", "The tier of the lookup.";
    KEYS: "vecho.keys", "How many keys are looked up.";
    FOUND: "vecho.found", "How many of them are found.";
    LED: "vecho.led", "How many keys this request has fetched.";
    WAITED_FOR: "vecho.joined", "How many keys others are fetching already.";
    TARGET: "vecho.target", "Name of the target that the call goes to, if there are several.";
    MERGED_REQUESTS: "vecho.requests", "How many requests share the call.";
}

/// Returns both tables as Markdown, for the documentation.
pub fn tables_markdown() -> String {
    let mut text = String::from("| span | what it covers |\n|---|---|\n");
    for SpanName { name, doc } in SPANS {
        writeln!(text, "| `{name}` | {doc} |").expect("writing to a String must succeed");
    }
    text.push_str("\n| attribute | what it tells |\n|---|---|\n");
    for Attribute { name, doc } in ATTRIBUTES {
        writeln!(text, "| `{name}` | {doc} |").expect("writing to a String must succeed");
    }
    text
}

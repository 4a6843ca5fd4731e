//! Explains what would happen to a request without executing it.

use bytes::Bytes;
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Proxy;
use super::controls::read_controls;
use super::intake::{body_codings, path_model, read_origin};
use super::tokens::CallerToken;
use crate::cache::{Found, Lookup};
use crate::config::{CallerIdentity, Config};
use crate::flow::{InputRules, RequestOrigin, UNMEASURED, Unfit, model_key, space_key, upstream_encoding};
use crate::key::Key;
use crate::observe::traces::TraceContext;
use crate::spend::Purchase;
use crate::upstream::{RouteKind, classify_path, deployment, resembles_embeddings};
use crate::wire::{Bypass, BypassCause, EmbedRequest, Input, MAX_INPUT_TOKENS, read_request, unknown_fields};

impl Proxy {
    /// Returns for each input of a request its key, its tier and its age, or the reason why the request cannot be
    /// cached.
    pub async fn explain(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Value {
        let config = self.live.load();
        let described = async {
            let described = self.described(&config, path, (headers, body)).await?;
            let origin = described.origin(&config, headers, self.token(&config, headers))?;
            let mut request = described.request(&config)?;
            let rules = self.input_rules(&config, &origin);
            self.flow.fit_inputs(&mut request, &rules).await.map_err(unfit)?;
            Ok(self.explain_request(&config, &request, &origin).await)
        };
        let mut explained = described.await.unwrap_or_else(|refusal| refusal);
        if !self.flow.spend.is_off() && explained.get("budget").is_none() {
            // Requests to other paths are neither counted nor refused.
            let is_counted = path.parse().is_ok_and(|uri: Uri| resembles_embeddings(uri.path()));
            explained["budget"] = json!({ "counts": is_counted });
        }
        explained
    }

    /// Reads a request that the ops port received for this port, up to its body. Returns the reason if it would not be
    /// cached.
    pub(super) async fn described(
        &self,
        config: &Config,
        path: &str,
        (headers, body): (&HeaderMap, &Bytes),
    ) -> Result<Described, Value> {
        let uri = path.parse::<Uri>().map_err(|_| refusal("bad_path", "the path is not one"))?;
        let kind = classify_path(origin(config, &uri, headers, None)?.uri.path());
        if kind == RouteKind::Other {
            let message = "requests to this path pass through unchanged: it is not an embeddings path";
            return Err(refusal_of(&BypassCause::other_path(uri.path()), message));
        }
        Ok(Described { uri, kind, body: self.explained_body(config, headers, body).await? })
    }

    /// Returns the rules for the inputs of a request that the ops port received for this port.
    pub(super) fn input_rules<'r>(&self, config: &'r Config, origin: &'r RequestOrigin<'_>) -> InputRules<'r> {
        let deadline = Instant::now() + config.limits.request_timeout;
        InputRules { config, uri: &origin.uri, now_ms: self.flow.clock.now_ms(), deadline }
    }

    /// Returns the body without its content codings, or the reason why it would not be read.
    async fn explained_body(&self, config: &Config, headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Value> {
        let unread = |bypass: Bypass| {
            let message = "with the content type and encoding that this came with, it would pass through";
            refusal(bypass.label(), message)
        };
        read_controls(headers).map_err(|bad| refusal("bad_control", &bad.to_string()))?;
        let codings = body_codings(headers).map_err(unread)?;
        if codings.is_empty() {
            return Ok(body.clone());
        }
        // An explanation has no admission, so nothing is reserved for the decoded body.
        match self.decoder.decode(codings, body.clone(), config.limits.max_body_bytes, |_| true).await {
            Ok(Some(plain)) => Ok(plain),
            Ok(None) => Err(unread(Bypass::ContentEncoding)),
            Err(error) => Err(refusal("body_too_large", &format!("{error} (limits.max_body_bytes)"))),
        }
    }

    async fn explain_request(&self, config: &Config, request: &EmbedRequest<'_>, origin: &RequestOrigin<'_>) -> Value {
        let space = space_key(&origin.scope, &origin.uri, &request.space);
        let now_ms = self.flow.clock.now_ms();
        let accepted_credential = origin.accepted_credential(&request.space);
        let vouched = accepted_credential
            .is_none_or(|accepted_credential| self.flow.accepted_credentials.holds(&accepted_credential, now_ms));
        // `find` and `examine` create no state and promote no record.
        let space_state = self.flow.spaces.find(&space).unwrap_or_default();
        let trace = TraceContext::NONE;
        let (max_age_ms, codec, leases) = (None, config.cache.codec, None);
        let lookup = Lookup { now_ms, max_age_ms, space_state: &space_state, space, codec, trace, leases };
        let keys: Vec<Key> = request.inputs.iter().map(|input| input.key(&space)).collect();
        let found = self.flow.tiers.examine(&keys, &lookup).await;
        let encoding = upstream_encoding(config, request, &space_state, now_ms);
        // A full hit needs no call, so the encoding of calls does not matter then.
        if space_state.is_unreadable(encoding.meaning(), now_ms) && !found.iter().all(Found::is_fresh) {
            return passes_through(&Bypass::UnreadableAnswer.into(), &[]);
        }
        let missing: Vec<bool> = found.iter().map(|found| !found.is_fresh()).collect();
        let inputs: Vec<Value> = request
            .inputs
            .iter()
            .zip(keys.iter().zip(found))
            .map(|(input, (key, found))| explain_input(input, key, found, now_ms))
            .collect();
        let model = model_key(&origin.uri, &request.space);
        let targets = self.flow.batcher.router().reports(&model, request.space.model_name());
        let targets: Vec<Value> =
            targets.iter().map(|target| json!({ "name": &*target.name, "state": target.state })).collect();
        let mut explained = json!({
            "cacheable": true,
            "upstream": origin.uri.to_string(),
            "model": request.space.model,
            "dimensions": request.space.dimensions,
            "fields": fields(request),
            "credential_accepted": vouched,
            "identity": if origin.owner.is_some() { CallerIdentity::Token } else { CallerIdentity::Header }.name(),
            "failed_requests": self.flow.batcher.router().failures(&model),
            "targets": targets,
            "inputs": inputs,
        });
        if let Some(budget) = self.explain_budget(request, origin, &missing) {
            explained["budget"] = budget;
        }
        explained
    }

    /// Returns what the budgets would say to a fetch of some inputs, if there is any budget.
    fn explain_budget(
        &self,
        request: &EmbedRequest<'_>,
        origin: &RequestOrigin<'_>,
        missing: &[bool],
    ) -> Option<Value> {
        let spend = &self.flow.spend;
        if spend.is_off() {
            return None;
        }
        let is_missing = |(_, is_missing): &(&Input<'_>, &bool)| **is_missing;
        let tokens = request.inputs.iter().zip(missing).filter(is_missing).map(|(input, _)| input.estimated_tokens());
        let tokens: usize = tokens.sum();
        let model = request.space.model.clone().or_else(|| deployment(origin.uri.path())).unwrap_or_default();
        let namespace = origin.namespace.and_then(|name| std::str::from_utf8(name).ok());
        let purchase = Purchase { namespace, model: &model, answered: None };
        let refusal = if tokens == 0 { None } else { spend.outlook(&purchase, tokens as u64) };
        let message = refusal.map(|refusal| refusal.to_string());
        Some(json!({ "counts": true, "expected_tokens": tokens, "refusal": message }))
    }
}

/// A request to an embeddings path whose body could be read.
pub(super) struct Described {
    uri: Uri,
    kind: RouteKind,
    /// The body without its content codings.
    body: Bytes,
}

impl Described {
    /// Returns the caller, the scope and the upstream address that these headers give.
    pub(super) fn origin<'h>(
        &self,
        config: &Config,
        headers: &'h HeaderMap,
        token: Option<CallerToken>,
    ) -> Result<RequestOrigin<'h>, Value> {
        origin(config, &self.uri, headers, token)
    }

    /// Parses the body. Returns the reason if the request would pass through.
    pub(super) fn request(&self, config: &Config) -> Result<EmbedRequest<'_>, Value> {
        let extra_fields = &config.cache.extra_fields;
        read_request(&self.body, extra_fields, path_model(self.kind)).map_err(|cause| {
            let unknown = match cause.reason {
                Bypass::UnknownField => unknown_fields(&self.body, extra_fields),
                _ => Vec::new(),
            };
            passes_through(&cause, &unknown)
        })
    }
}

fn origin<'h>(
    config: &Config,
    uri: &Uri,
    headers: &'h HeaderMap,
    token: Option<CallerToken>,
) -> Result<RequestOrigin<'h>, Value> {
    read_origin(config, uri, headers, token).map_err(|error| refusal("uri_too_long", &error.to_string()))
}

/// Describes why a request would be refused because of its inputs.
pub(super) fn unfit(unfit: Unfit) -> Value {
    match unfit {
        Unfit::TooLong(place) => {
            let message =
                format!("input[{place}] has more than {MAX_INPUT_TOKENS} tokens: the request would be refused");
            refusal("long_input", &message)
        }
        Unfit::Unmeasured => refusal(UNMEASURED, "the tokens of its inputs cannot be counted at the moment"),
    }
}

fn explain_input(input: &Input<'_>, key: &Key, found: Found, now_ms: u64) -> Value {
    let (state, record, tier) = match found {
        Found::Fresh(record, tier) => ("fresh", Some(record), Some(tier.label())),
        Found::Stale(record) => ("stale", Some(record), None),
        Found::Missing => ("missing", None, None),
    };
    let age_seconds = record.as_ref().map(|record| now_ms.saturating_sub(record.times.created_ms) / 1_000);
    let left_seconds = record.as_ref().map(|record| record.times.fresh_until_ms.saturating_sub(now_ms) / 1_000);
    json!({
        "key": key.to_string(),
        "kind": if matches!(input, Input::Text(_)) { "text" } else { "tokens" },
        "state": state,
        "tier": tier,
        "age_seconds": age_seconds,
        "fresh_for_seconds": left_seconds,
        "model": record.as_ref().map(|record| record.identity.model.to_string()),
        "dimension": record.as_ref().map(|record| record.identity.dimension),
    })
}

fn fields<'a>(request: &'a EmbedRequest<'_>) -> Vec<&'a String> {
    request.space.extras.keys().collect()
}

/// Describes a bypass in the words of the header, with the names of all unknown members.
fn passes_through(cause: &BypassCause, unknown_fields: &[String]) -> Value {
    let mut refusal = refusal_of(cause, "the request would pass through unchanged");
    if !unknown_fields.is_empty() {
        refusal["unknown_fields"] = json!(unknown_fields);
    }
    refusal
}

fn refusal_of(cause: &BypassCause, message: &str) -> Value {
    let mut refusal = refusal(cause.reason.label(), message);
    if let Some((kind, subject)) = cause.subject() {
        refusal[kind] = json!(subject);
    }
    refusal
}

pub(super) fn refusal(reason: &str, message: &str) -> Value {
    json!({ "cacheable": false, "reason": reason, "message": message })
}

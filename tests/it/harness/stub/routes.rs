//! The stub's routes: embeddings under every prefix, and routes for tests of pass-through.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::super::encode::encode;
use super::behaviour::Behaviour;
use super::calls::Call;
use super::control;
use super::embeddings::Draft;
use super::quota::judge;
use super::quota_headers;
use super::reply::{Body, Reply, Transport};
use super::request::EmbedCall;
use super::server::HungUp;
use super::state::{State, lock};
use super::streams::{chat_events, events, realtime, upload};

/// Answers one request, or closes the connection.
pub(crate) async fn serve(
    state: Arc<State>,
    connection: u64,
    request: Request<Incoming>,
) -> Result<Response<Body>, HungUp> {
    let mut call = Call {
        connection,
        method: request.method().clone(),
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        headers: request.headers().clone(),
        body: Bytes::new(),
        at: Instant::now(),
    };
    match call.route() {
        "/v1/files" => return Ok(upload(&state, call, request.into_body()).await),
        "/v1/realtime" => return Ok(realtime(&state, call, request)),
        _ => {}
    }
    call.body = request.into_body().collect().await.map_err(|_| HungUp)?.to_bytes();
    if call.path.starts_with("/__") {
        return Ok(control::answer(&state, &call).into_response());
    }
    state.record(call.clone());
    let verdict = judge(&state, &call);
    if let Some(mut refusal) = verdict.as_ref().and_then(quota_headers::refusal) {
        dress(&state, &mut refusal);
        return Ok(refusal.into_response());
    }
    let behaviour = lock(&state.script).take(&call);
    let mut reply = match meet(&state, &behaviour).await? {
        Some(reply) => reply,
        None if wants_stream(&call) => return Ok(events(&state, chat_events(), "text/event-stream")),
        None if call.route() == "/v1/slow-download" => {
            return Ok(events(&state, vec![Bytes::from(vec![b'x'; 65_536]); 4], "application/octet-stream"));
        }
        None => match behaviour.dialect() {
            Some(dialect) => dialect.envelope(answer(&state, &call, &behaviour)),
            None => answer(&state, &call, &behaviour),
        },
    };
    if let Some(verdict) = &verdict {
        quota_headers::report(verdict, &mut reply);
    }
    dress(&state, &mut reply);
    carry(&behaviour, &mut reply);
    Ok(reply.into_response())
}

/// Applies the part of a behaviour that precedes or replaces an answer.
async fn meet(state: &State, behaviour: &Behaviour) -> Result<Option<Reply>, HungUp> {
    match behaviour {
        Behaviour::Delay(delay) => tokio::time::sleep(*delay).await,
        Behaviour::Gate => state.gate.pass().await,
        Behaviour::HangUp => return Err(HungUp),
        Behaviour::Status { code, headers, body } => {
            let mut reply = Reply::new(*code, "application/json", body.clone());
            for (name, value) in headers {
                reply.set(name, value);
            }
            return Ok(Some(reply));
        }
        Behaviour::RateLimit { retry_after_ms } => return Ok(Some(rate_limited(*retry_after_ms))),
        Behaviour::Quota => {
            let message = "You exceeded your current quota, please check your plan and billing details.";
            return Ok(Some(Reply::error(429, "insufficient_quota", Some("insufficient_quota"), message)));
        }
        Behaviour::Garbage => return Ok(Some(Reply::new(200, "text/html", "<html><body>It works!</body></html>"))),
        Behaviour::All(several) => {
            for behaviour in several {
                if let Some(reply) = Box::pin(meet(state, behaviour)).await? {
                    return Ok(Some(reply));
                }
            }
        }
        _ => {}
    }
    Ok(None)
}

fn rate_limited(retry_after_ms: u64) -> Reply {
    let message = "Rate limit reached for text-embedding-3-small in organization org-stub on tokens per min (TPM).";
    let mut reply = Reply::error(429, "tokens", Some("rate_limit_exceeded"), message);
    reply.set("retry-after-ms", &retry_after_ms.to_string());
    reply.set("retry-after", &retry_after_ms.div_ceil(1000).to_string());
    reply
}

fn answer(state: &State, call: &Call, behaviour: &Behaviour) -> Reply {
    if let Some(refusal) = unauthorized(state, call) {
        return refusal;
    }
    match call.route() {
        _ if call.is_embeddings() => embeddings(state, call, behaviour),
        "/v1/models" => models(),
        "/v1/chat/completions" => chat(),
        "/v1/echo" => echo(call),
        route => {
            let message = format!("Invalid URL ({} {route})", call.method);
            Reply::error(404, "invalid_request_error", None, &message)
        }
    }
}

fn unauthorized(state: &State, call: &Call) -> Option<Reply> {
    let keys = lock(&state.keys);
    let accepted = keys.as_ref()?;
    let bearer = call.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let given = bearer.or_else(|| call.header("api-key")).unwrap_or_default();
    let message = "Incorrect API key provided: sk-****. You can find your API key at https://platform.openai.com.";
    (!accepted.contains(given)).then(|| Reply::error(401, "invalid_request_error", Some("invalid_api_key"), message))
}

fn embeddings(state: &State, call: &Call, behaviour: &Behaviour) -> Reply {
    if call.method != Method::POST {
        return Reply::error(405, "invalid_request_error", None, "Not allowed to GET on /v1/embeddings.");
    }
    if let Some(refusal) = behaviour.dialect().and_then(|dialect| dialect.refusal(call)) {
        return refusal;
    }
    let limits = *lock(&state.limits);
    let read = match EmbedCall::read(call, limits) {
        Ok(read) => read,
        Err(refusal) => return Reply::error(refusal.status, refusal.kind, refusal.code, &refusal.message),
    };
    let mut draft = Draft::new(&read);
    if let Some(model) = behaviour.other_model() {
        draft.answer_as(model, &read);
    }
    draft.apply(behaviour);
    state.bill(read.tokens);
    let mut reply = draft.render();
    reply.set("openai-model", draft.model());
    reply
}

fn models() -> Reply {
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_705_948_997, "owned_by": "system"});
    let data = ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"].map(model);
    Reply::json(json!({"object": "list", "data": data}).to_string())
}

fn chat() -> Reply {
    let message = json!({"role": "assistant", "content": "Hello world!", "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5});
    let body = json!({"id": "chatcmpl-stub", "object": "chat.completion", "created": 1_705_948_997,
        "model": "gpt-stub", "choices": [choice], "usage": usage});
    Reply::json(body.to_string())
}

fn wants_stream(call: &Call) -> bool {
    call.route() == "/v1/chat/completions" && call.json().get("stream") == Some(&Value::Bool(true))
}

fn echo(call: &Call) -> Reply {
    let header = |(name, value): (&http::HeaderName, &HeaderValue)| {
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    };
    let headers: Vec<Value> = call.headers.iter().map(header).collect();
    let body = json!({"method": call.method.as_str(), "path": call.path, "headers": headers,
        "body_bytes": call.body.len(), "body_blake3": blake3::hash(&call.body).to_hex().as_str()});
    Reply::json(body.to_string())
}

/// Adds the headers that the service and its edge set on every answer.
pub(crate) fn dress(state: &State, reply: &mut Reply) {
    let number = state.next_answer();
    reply.set_default("x-request-id", &format!("req_{number:032x}"));
    for (name, value) in [
        ("openai-organization", "org-stub"),
        ("openai-processing-ms", "7"),
        ("openai-version", "2020-10-01"),
        ("set-cookie", "__cf_bm=stub; path=/; HttpOnly"),
        ("alt-svc", "h3=\":443\"; ma=86400"),
        ("cf-ray", "8f00000000000000-AMS"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ] {
        reply.set_default(name, value);
    }
    if lock(&state.quotas).is_none() {
        quota_headers::report_plenty(reply);
    }
}

/// Sets the transport of the answer.
fn carry(behaviour: &Behaviour, reply: &mut Reply) {
    match behaviour {
        Behaviour::CutBody => reply.transport = Transport::CutInTheMiddle,
        Behaviour::SlowBody { chunk_bytes, pause } => {
            reply.transport = Transport::InPieces { bytes: *chunk_bytes, pause: *pause };
        }
        Behaviour::GzipLie => reply.set("content-encoding", "gzip"),
        Behaviour::Encoded(codings) => {
            reply.body = encode(codings, &reply.body).into();
            reply.set("content-encoding", codings);
        }
        Behaviour::Headers(headers) => headers.iter().for_each(|(name, value)| reply.set(name, value)),
        Behaviour::All(several) => several.iter().for_each(|behaviour| carry(behaviour, reply)),
        _ => {}
    }
}

//! The stub's control interface over HTTP, for clients in other languages: `POST /__control`, `GET /__calls`.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::calls::Call;
use super::reply::Reply;
use super::state::{State, lock};

/// Answers a control request, which is not recorded as a call.
pub(crate) fn answer(state: &State, call: &Call) -> Reply {
    match (&call.method, call.route()) {
        (&Method::POST, "/__control") => queue(state, &call.json()),
        (&Method::GET, "/__calls") => Reply::json(list(state).to_string()),
        _ => Reply::error(404, "invalid_request_error", None, "no such control"),
    }
}

/// Queues the behaviours of `{"next": [{"behaviour": "rate_limit", "retry_after_ms": 50}]}`. `{"always": {..}}` sets
/// the standing behaviour for calls without a queued one.
fn queue(state: &State, body: &Value) -> Reply {
    if let Some(behaviour) = body.get("always").and_then(read) {
        lock(&state.script).stand(behaviour);
        return Reply::json("{}");
    }
    let wishes = body.get("next").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let read: Option<Vec<Behaviour>> = wishes.iter().map(read).collect();
    match read {
        Some(behaviours) if !behaviours.is_empty() => {
            let mut script = lock(&state.script);
            for behaviour in behaviours {
                script.push(behaviour);
            }
            Reply::json("{}")
        }
        _ => Reply::error(400, "invalid_request_error", None, "no behaviour of that name"),
    }
}

fn read(wish: &Value) -> Option<Behaviour> {
    let number = |name: &str| wish.get(name).and_then(Value::as_u64);
    Some(match wish.get("behaviour")?.as_str()? {
        "normal" => Behaviour::Normal,
        "delay" => Behaviour::Delay(Duration::from_millis(number("ms")?)),
        "rate_limit" => Behaviour::RateLimit { retry_after_ms: number("retry_after_ms")? },
        "quota" => Behaviour::Quota,
        "hang_up" => Behaviour::HangUp,
        "cut_body" => Behaviour::CutBody,
        "status" => {
            let code = u16::try_from(number("code")?).ok()?;
            let body = wish.get("body").and_then(Value::as_str).unwrap_or("{}").to_owned();
            Behaviour::Status { code, headers: Vec::new(), body }
        }
        _ => return None,
    })
}

fn list(state: &State) -> Value {
    let calls = lock(&state.calls);
    let entry = |call: &Call| json!({"path": call.path, "inputs": call.inputs().len(), "connection": call.connection});
    calls.iter().map(entry).collect()
}

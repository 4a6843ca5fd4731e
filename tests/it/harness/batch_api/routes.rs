//! Routes of the stub.

use serde_json::{Value, json};

use super::http::BatchRequest;
use super::service::Service;

/// Answers a request.
pub(crate) fn answer(service: &mut Service, request: &BatchRequest) -> (u16, Vec<u8>) {
    let prefix = if service.is_azure { "/openai" } else { "/v1" };
    let Some(path) = request.path().strip_prefix(prefix) else { return refusal(404, "not_found") };
    if service.is_azure && (request.parameter("api-version").is_none() || request.header("api-key").is_none()) {
        service.violations.push(format!("{}: api-version and api-key are required", request.target));
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let value = match (request.method.as_str(), &parts[..]) {
        ("POST", ["files"]) => {
            let (name, content) = request.form();
            service.uploads += 1;
            Some(service.add_file(&name, content))
        }
        ("GET", ["files"]) => Some(list(service, request)),
        ("GET", ["files", id]) => service.file(id).map(|place| {
            service.files[place].looks += 1;
            service.file_value(place)
        }),
        ("GET", ["files", id, "content"]) => {
            let Some(place) = service.file(id) else { return refusal(404, "not_found") };
            return (200, service.files[place].content.clone());
        }
        ("DELETE", ["files", id]) => service.file(id).map(|place| {
            service.files[place].is_deleted = true;
            json!({"id": id, "deleted": true})
        }),
        ("POST", ["batches"]) => {
            let body: Value = serde_json::from_slice(&request.body).expect("the body is JSON");
            match service.create(&body) {
                Ok(batch) => Some(batch),
                Err(message) => return refusal(400, &message),
            }
        }
        ("GET", ["batches"]) => Some(batches(service, request)),
        ("GET", ["batches", id]) => service.poll(id),
        ("POST", ["deployments", _, "embeddings"] | ["embeddings"]) => service.live_model.map(|model| {
            let item = json!({"object": "embedding", "index": 0, "embedding": [0.6, 0.8]});
            json!({"object": "list", "data": [item], "model": model, "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        }),
        _ => None,
    };
    value.map_or_else(|| refusal(404, "not_found"), |value| (200, value.to_string().into_bytes()))
}

pub(crate) fn refusal(status: u16, code: &str) -> (u16, Vec<u8>) {
    let error = json!({"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": code}});
    (status, error.to_string().into_bytes())
}

/// Lists files in pages of two, newest first.
fn list(service: &Service, request: &BatchRequest) -> Value {
    let files: Vec<Value> = (0..service.files.len())
        .rev()
        .filter(|place| !service.files[*place].is_deleted)
        .map(|place| service.file_value(place))
        .collect();
    page(&files, request)
}

/// Lists batches in pages of two, newest first.
fn batches(service: &Service, request: &BatchRequest) -> Value {
    let batches: Vec<Value> = service.batches.iter().rev().map(|batch| batch.value.clone()).collect();
    page(&batches, request)
}

fn page(all: &[Value], request: &BatchRequest) -> Value {
    let after = request.parameter("after");
    let start = after.and_then(|after| all.iter().position(|value| value["id"] == after)).map_or(0, |place| place + 1);
    let end = (start + 2).min(all.len());
    let data = &all[start..end];
    json!({"object": "list", "data": data, "has_more": end < all.len(), "last_id": data.last().map(|last| &last["id"])})
}

//! Dialects of services with their own client libraries.

use serde_json::{Value, json};

use super::calls::Call;
use super::reply::Reply;

/// A service whose requests, answers or errors differ from OpenAI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Refuses unknown members and every `encoding_format` except base64. Its usage has only `total_tokens`.
    Voyage,
    /// Refuses unknown members. Its answers have an `id`, which its client requires.
    Mistral,
    /// Azure AI Foundry. Its answers have an `id`.
    AzureInference,
}

impl Dialect {
    /// Returns the refusal of a request that OpenAI would accept.
    pub(crate) fn refusal(self, call: &Call) -> Option<Reply> {
        let body = call.json();
        let unknown = body.as_object()?.keys().find(|name| !self.knows(name));
        if let Some(name) = unknown {
            let status = if self == Self::Mistral { 422 } else { 400 };
            return Some(Reply::error(status, "invalid_request_error", None, &format!("'{name}' is not supported")));
        }
        let format = body.get("encoding_format").filter(|format| !format.is_null() && *format != "base64");
        let message = "Value for argument 'encoding_format' is not one of [null, 'base64'].";
        (self == Self::Voyage && format.is_some()).then(|| Reply::error(400, "invalid_request_error", None, message))
    }

    fn knows(self, name: &str) -> bool {
        match (self, name) {
            (Self::AzureInference, _)
            | (_, "input" | "model" | "encoding_format" | "output_dimension" | "output_dtype") => true,
            (Self::Voyage, name) => ["input_type", "truncation"].contains(&name),
            (Self::Mistral, name) => name == "metadata",
        }
    }

    /// Returns the answer's `id`.
    pub(crate) fn id(self) -> Option<&'static str> {
        match self {
            Self::Voyage => None,
            Self::Mistral => Some("embd-0a1b2c3d"),
            Self::AzureInference => Some("cce5a2f1-84d5-4f4d-ae02-bf1ab40e2d76"),
        }
    }

    /// Converts an error to the envelope of this service.
    pub(crate) fn envelope(self, reply: Reply) -> Reply {
        let document: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let message = &document["error"]["message"];
        let body = match self {
            _ if reply.status == 200 => return reply,
            Self::AzureInference => return reply,
            Self::Voyage => json!({"detail": message}),
            Self::Mistral => {
                json!({"object": "error", "message": message, "type": "invalid_request_error", "code": null})
            }
        };
        Reply { body: body.to_string().into(), ..reply }
    }
}

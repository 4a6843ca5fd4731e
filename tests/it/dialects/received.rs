//! An embeddings request, as parsed by a server.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use super::gzip;
use crate::harness::stub::Input;

/// The form of `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One text.
    Text,
    /// A list of texts.
    Texts,
    /// One array of tokens.
    Tokens,
    /// A list of token arrays.
    TokenLists,
    /// Any other form.
    Other,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body, decoded if it was compressed.
    pub(crate) body: Bytes,
    /// The members of the body. Empty if the body is not a JSON object.
    pub(crate) members: Map<String, Value>,
    pub(crate) form: Form,
    pub(crate) inputs: Vec<Input>,
}

impl Received {
    pub(crate) fn read(head: &http::request::Parts, body: Bytes) -> Self {
        let compressed = head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip");
        let body = if compressed { gzip::unpack(&body).unwrap_or(body) } else { body };
        let members = serde_json::from_slice::<Map<String, Value>>(&body).unwrap_or_default();
        let (form, inputs) = read_inputs(members.get("input").unwrap_or(&Value::Null));
        Self {
            method: head.method.clone(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers: head.headers.clone(),
            body,
            members,
            form,
            inputs,
        }
    }

    /// Returns the path without its query.
    pub(crate) fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Returns a member that is present and not null.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Returns a member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_str()
    }

    /// Returns the model that the body or an Azure path names.
    pub(crate) fn model(&self) -> Option<&str> {
        let deployment = self.route().split_once("/deployments/").and_then(|(_, rest)| rest.split('/').next());
        deployment.or_else(|| self.text("model"))
    }

    /// Returns the texts among the inputs.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        self.inputs.iter().filter_map(|input| match input {
            Input::Text(text) => Some(text.as_str()),
            Input::Tokens(_) => None,
        })
    }

    /// Returns true if a text contains this word.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.texts().any(|text| text.contains(word))
    }
}

fn read_inputs(input: &Value) -> (Form, Vec<Input>) {
    let read = match input {
        Value::String(text) => Some((Form::Text, vec![Input::Text(text.clone())])),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_number) => {
            tokens(input).map(|tokens| (Form::Tokens, vec![tokens]))
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts = items.iter().filter_map(Value::as_str);
            Some((Form::Texts, texts.map(Input::from).collect()))
        }
        Value::Array(items) => items.iter().map(tokens).collect::<Option<_>>().map(|lists| (Form::TokenLists, lists)),
        _ => None,
    };
    read.unwrap_or((Form::Other, Vec::new()))
}

fn tokens(value: &Value) -> Option<Input> {
    let token = |item: &Value| item.as_u64().and_then(|token| u32::try_from(token).ok());
    value.as_array()?.iter().map(token).collect::<Option<Vec<u32>>>().map(Input::Tokens)
}

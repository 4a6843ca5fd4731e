//! Client requests: body templates with placeholders for input and model, and headers.

use bytes::Bytes;
use serde_json::{Value, json};

use super::gzip;

/// The form in which a client sends its inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// One text.
    Text,
    /// A list of this many different texts.
    Texts(usize),
    /// Five texts, two of them repeated.
    Repeated,
    /// One array of tokens.
    Tokens,
    /// A list of this many token arrays.
    TokenLists(usize),
    /// Three texts; the second one contains `poison`.
    Poisoned,
    /// A text and an empty one.
    WithEmpty,
    /// A list of objects with one text each.
    Objects,
}

/// A request of a client.
#[derive(Clone, Debug)]
pub(crate) struct ClientRequest {
    pub(crate) name: &'static str,
    /// The body, with the placeholders `$INPUT` and `$MODEL`.
    pub(crate) template: &'static str,
    pub(crate) shape: Shape,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    packed: bool,
}

impl ClientRequest {
    const fn new(name: &'static str, shape: Shape, template: &'static str) -> Self {
        Self { name, template, shape, headers: Vec::new(), packed: false }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the body with the inputs of a round. Different rounds have no input in common.
    pub(crate) fn body(&self, model: &str, round: usize) -> Bytes {
        let input = self.shape.input(round).to_string();
        let body = self.template.replace("$MODEL", &json!(model).to_string()).replace("$INPUT", &input);
        if self.packed { gzip::pack(body.as_bytes()) } else { body.into() }
    }

    /// Returns true if the client requests base64.
    pub(crate) fn asks_base64(&self) -> bool {
        self.template.contains(r#""base64""#)
    }

    /// Returns true if no input occurs twice.
    pub(crate) const fn is_distinct(&self) -> bool {
        !matches!(self.shape, Shape::Repeated)
    }
}

impl Shape {
    fn input(self, round: usize) -> Value {
        let text = |at: usize| format!("round {round}: the quick brown fox, {at}");
        let tokens = |at: usize| vec![9906, 1917, 100 + round, 200 + at];
        match self {
            Self::Text => json!(text(0)),
            Self::Texts(count) => (0..count).map(text).collect(),
            Self::Repeated => [0, 1, 0, 2, 1].map(text).to_vec().into(),
            Self::Tokens => json!(tokens(0)),
            Self::TokenLists(count) => (0..count).map(tokens).collect(),
            Self::Poisoned => json!([text(0), format!("poison {round}"), text(2)]),
            Self::WithEmpty => json!([text(0), ""]),
            Self::Objects => json!([{"text": text(0)}, {"text": text(1)}]),
        }
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $function:ident: $name:literal, $shape:expr, $template:literal $(, $header:literal = $value:literal)*;)*) => {
        $($(#[$doc])* pub(crate) fn $function() -> ClientRequest {
            ClientRequest::new($name, $shape, $template)$(.header($header, $value))*
        })*
    };
}

requests! {
    /// openai-python 2.
    python: "openai-python", Shape::Texts(3), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"base64"}"#;
    /// openai-python 1 without numpy, which also writes JSON with spaces.
    old_python: "openai-python 1 without numpy", Shape::Texts(3), r#"{"input": $INPUT, "model": $MODEL, "encoding_format": "float"}"#;
    /// openai-node.
    node: "openai-node with one text", Shape::Text, r#"{"model":$MODEL,"input":$INPUT,"encoding_format":"base64"}"#;
    /// No `encoding_format`, as sent by curl and by clients in Go and Ruby.
    plain: "list without encoding_format", Shape::Texts(3), r#"{"model":$MODEL,"input":$INPUT}"#;
    plain_text: "text without encoding_format", Shape::Text, r#"{"model":$MODEL,"input":$INPUT}"#;
    list_of_one: "list of one", Shape::Texts(1), r#"{"model":$MODEL,"input":$INPUT}"#;
    repeated: "list with repeated texts", Shape::Repeated, r#"{"model":$MODEL,"input":$INPUT,"encoding_format":"base64"}"#;
    tokens: "one token array", Shape::Tokens, r#"{"model":$MODEL,"input":$INPUT}"#;
    /// `LangChain` sends token arrays computed with tiktoken.
    langchain: "LangChain with token arrays", Shape::TokenLists(3), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"base64"}"#;
    encoding_null: "encoding_format null", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"encoding_format":null}"#;
    /// Vercel AI SDK, Haystack.
    ai_sdk: "AI SDK", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"encoding_format":"float"}"#;
    browser: "browser", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"encoding_format":"float"}"#, "origin" = "https://app.example";
    dimensions: "dimensions", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"dimensions":4}"#;
    dimensions_base64: "dimensions and base64", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"dimensions":4,"encoding_format":"base64"}"#;
    dimensions_null: "dimensions null", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"dimensions":null,"user":null}"#;
    user: "user", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"user":"end-user-7","encoding_format":"base64"}"#;
    /// voyageai sends every member, most of them null.
    voyage: "voyageai", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"input_type":null,"truncation":true,"output_dtype":null,"output_dimension":null,"encoding_format":"base64"}"#;
    voyage_query: "voyageai query", Shape::Texts(1), r#"{"input":$INPUT,"model":$MODEL,"input_type":"query","truncation":true,"output_dimension":4}"#;
    ragflow: "RAGFlow with drop_params", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"float","drop_params":true}"#;
    lightrag: "LightRAG with output_dimension", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"base64","output_dimension":4}"#;
    openrouter: "provider object", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"provider":{"order":["x"],"allow_fallbacks":false}}"#;
    nim: "input_type passage", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"input_type":"passage","truncate":"NONE","encoding_format":"float"}"#;
    modality: "modality per input", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"input_type":"query","modality":["text","text"]}"#;
    jina: "Jina client with task", Shape::Texts(2), r#"{"model":$MODEL,"task":"retrieval.passage","normalized":true,"input":$INPUT}"#;
    late_chunking: "late_chunking", Shape::Texts(2), r#"{"model":$MODEL,"task":"retrieval.passage","late_chunking":true,"input":$INPUT}"#;
    objects: "inputs as objects", Shape::Objects, r#"{"model":$MODEL,"input":$INPUT}"#;
    messages: "messages in place of input", Shape::Text, r#"{"model":$MODEL,"messages":[{"role":"user","content":$INPUT}],"encoding_format":"float"}"#;
    vllm_members: "truncate_prompt_tokens", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"truncate_prompt_tokens":512}"#;
    foundry: "azure-ai-inference", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL}"#, "api-key" = "key", "extra-parameters" = "pass-through";
    /// The path names the model, and the body does not.
    azure: "Azure client without model", Shape::Texts(2), r#"{"input":$INPUT,"encoding_format":"base64"}"#, "api-key" = "key";
    azure_with_model: "Azure client", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"base64"}"#, "api-key" = "key";
    portkey: "Portkey headers", Shape::Texts(2), r#"{"input":$INPUT,"model":$MODEL,"encoding_format":"float"}"#, "x-portkey-api-key" = "pk", "x-portkey-provider" = "openai";
    poisoned: "one bad text among good", Shape::Poisoned, r#"{"model":$MODEL,"input":$INPUT}"#;
    poisoned_base64: "one bad text among good in base64", Shape::Poisoned, r#"{"model":$MODEL,"input":$INPUT,"encoding_format":"base64"}"#;
    with_empty: "an empty text in the list", Shape::WithEmpty, r#"{"model":$MODEL,"input":$INPUT}"#;
    unknown_member: "unknown member", Shape::Texts(2), r#"{"model":$MODEL,"input":$INPUT,"chunking_strategy":"auto"}"#;
    many33: "33 texts", Shape::Texts(33), r#"{"model":$MODEL,"input":$INPUT}"#;
    many97: "97 texts", Shape::Texts(97), r#"{"model":$MODEL,"input":$INPUT}"#;
    many300: "300 texts", Shape::Texts(300), r#"{"model":$MODEL,"input":$INPUT}"#;
}

/// A body compressed with gzip.
pub(crate) fn compressed() -> ClientRequest {
    let mut request = plain().header("content-encoding", "gzip");
    (request.name, request.packed) = ("body in gzip", true);
    request
}

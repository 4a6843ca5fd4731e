//! Simplified dialects of hosted services and gateways, based on their documents, clients and public reports. All run
//! on loopback, so vecho does not recognise OpenAI or Azure by host name.

use serde_json::{Value, json};

use super::dialect::{Dialect, Transport, detail};
use super::quirks;
use super::received::Form;

const TEXTS: &[Form] = &[Form::Text, Form::Texts];
const BOTH: &[&str] = &["float", "base64"];

pub(crate) fn openai() -> Dialect {
    Dialect::v1("OpenAI")
        .differs("the reference: 2,048 inputs, empty texts refused, `usage` counts `cl100k_base` tokens")
        .model("text-embedding-3-small")
        .check(quirks::forms(
            &[Form::Text, Form::Texts, Form::Tokens, Form::TokenLists],
            400,
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
        ))
        .check(quirks::no_empty_text(400, "'$.input' is invalid."))
        .check(quirks::encodings(BOTH, 400))
        .check(quirks::without(&["output_dimension", "input_type", "chunking_strategy"], 400))
        .check(quirks::fails_at("poison", 400, "This model's maximum context length is 8192 tokens."))
        .change(quirks::openai_usage)
        .change(quirks::sends("openai-processing-ms", "7"))
}

/// Azure OpenAI with deployments.
pub(crate) fn azure() -> Dialect {
    azure_at("Azure OpenAI", "", "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21")
        .differs("the path names the deployment and the query the version; `api-key` or an Entra ID token")
        .check(quirks::query("api-version"))
}

/// Azure OpenAI behind API Management, which adds a prefix.
pub(crate) fn azure_behind_prefix() -> Dialect {
    azure_at(
        "Azure API Management",
        "/my-api",
        "/my-api/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21",
    )
    .differs("Azure's paths behind a prefix of the operator's own")
    .check(quirks::query("api-version"))
}

/// Azure's version 1 paths.
pub(crate) fn azure_v1() -> Dialect {
    azure_at("Azure OpenAI v1", "/openai/v1", "/openai/v1/embeddings")
        .differs("the base URL ends in `/openai/v1`, and the body names the deployment")
}

fn azure_at(name: &'static str, base: &'static str, path: &'static str) -> Dialect {
    let mut dialect = Dialect::new(name, base, path).model("text-embedding-3-small");
    dialect.key_header = Some("api-key");
    dialect
        .check(quirks::encodings(BOTH, 400))
        .change(quirks::openai_usage)
        .change(quirks::sends("x-ms-region", "West Europe"))
}

pub(crate) fn foundry() -> Dialect {
    let mut dialect = Dialect::new("Azure AI Foundry", "/models", "/models/embeddings?api-version=2024-05-01-preview")
        .differs("`/models/embeddings` with `api-version`; unknown members fail unless a header passes them through")
        .model("embed-v-4-0")
        .check(quirks::query("api-version"))
        .check(quirks::forms(TEXTS, 422, "input: Input should be a valid list of strings"))
        .change(quirks::says("id", "0a1b2c3d-foundry"));
    dialect.key_header = Some("api-key");
    dialect
}

pub(crate) fn voyage() -> Dialect {
    Dialect::v1("Voyage")
        .differs("`encoding_format` may only be `base64` or absent; no token arrays; `usage` has `total_tokens` alone")
        .model("voyage-3.5")
        .errors(detail)
        .check(quirks::encodings(&["base64"], 400))
        .check(quirks::forms(TEXTS, 400, "Argument 'input' must be a string or a list of strings."))
        .check(quirks::without(&["dimensions", "user", "drop_params"], 400))
        .check(quirks::max_inputs(1000, 400, |_| "The batch size limit is 1000.".to_owned()))
        .change(quirks::total_tokens_alone)
}

pub(crate) fn jina() -> Dialect {
    Dialect::v1("Jina")
        .differs("`task`, `normalized`, `late_chunking` (a vector then depends on the whole list), inputs as objects")
        .model("jina-embeddings-v3")
        .errors(detail)
        .check(quirks::without(&["user", "drop_params"], 422))
        .change(quirks::says("created", 1_732_000_000))
}

pub(crate) fn mistral() -> Dialect {
    Dialect::v1("Mistral")
        .differs("`id` in the answer, which its own client demands; 256 inputs; `dimensions` is `output_dimension`")
        .model("codestral-embed")
        .errors(|_, message| {
            json!({"object": "error", "message": message, "type": "invalid_request_prompt", "param": null, "code": "3210"})
        })
        .check(quirks::without(&["dimensions", "user", "drop_params", "truncation"], 422))
        .check(quirks::forms(TEXTS, 422, "Input should be a valid string"))
        .check(quirks::max_inputs(256, 400, |_| "Too many inputs in request, split into more batches.".to_owned()))
        .change(quirks::says("id", "embd-1"))
}

pub(crate) fn cohere() -> Dialect {
    Dialect::new("Cohere, compatibility API", "/compatibility/v1", "/compatibility/v1/embeddings")
        .differs("96 inputs; texts alone; errors are a flat `message` and an `id`")
        .model("embed-v4.0")
        .errors(|_, message| json!({"id": "7f3c", "message": message}))
        .check(quirks::forms(TEXTS, 400, "invalid request: input must be a string or a list of strings"))
        .check(quirks::max_inputs(96, 400, |count| {
            format!("invalid request: total number of texts must be at most 96 - received {count}")
        }))
        .check(quirks::fails_at("poison", 400, "invalid request: all elements in texts must be valid"))
        .change(quirks::says("id", "c0-here"))
}

pub(crate) fn gemini() -> Dialect {
    Dialect::new("Gemini, OpenAI endpoint", "/v1beta/openai", "/v1beta/openai/embeddings")
        .differs("`index` is missing where it is 0, `usage` always; 100 inputs; an error is a list with one object")
        .model("gemini-embedding-001")
        .errors(
            |status, message| json!([{"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}]),
        )
        .check(quirks::forms(TEXTS, 400, "Invalid value at 'content'"))
        .check(quirks::max_inputs(100, 400, |_| {
            "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n".to_owned()
        }))
        .change(quirks::no_zero_index)
        .change(quirks::no_usage)
}

pub(crate) fn openrouter() -> Dialect {
    Dialect::new("OpenRouter", "/api/v1", "/api/v1/embeddings")
        .differs("`provider` is an object that chooses the server; `id` and `usage.cost` in the answer")
        .model("openai/text-embedding-3-small")
        .check(quirks::encodings(BOTH, 400))
        .change(quirks::says("id", "gen-emb-1"))
        .change(|_, draft| {
            if let Some(usage) = &mut draft.usage {
                usage["cost"] = json!(0.000_001);
            }
        })
}

/// A gateway that alternates between the provider's model name and its own.
pub(crate) fn two_names() -> Dialect {
    openrouter().change(quirks::names_in_turn(&["text-embedding-3-small", "azure/text-embedding-3-small"]))
}

pub(crate) fn nim() -> Dialect {
    Dialect::v1("NVIDIA NIM")
        .differs("asymmetric models need `input_type`; `modality` is a list, one for each input; an error is one text")
        .model("nvidia/llama-nemotron-embed-1b-v2")
        .errors(|_, message| json!({ "error": message }))
        .check(quirks::requires("input_type", 400, "'input_type' parameter is required for asymmetric models"))
        .check(quirks::encodings(BOTH, 400))
        .check(quirks::forms(TEXTS, 400, "input must be a string or a list of strings"))
}

pub(crate) fn databricks() -> Dialect {
    Dialect::new("Databricks", "/serving-endpoints", "/serving-endpoints/embeddings")
        .differs("the base URL ends in `/serving-endpoints`; 150 inputs; errors are `error_code` and `message`")
        .model("databricks-gte-large-en")
        .errors(|_, message| json!({"error_code": "BAD_REQUEST", "message": message}))
        .check(quirks::without(&["dimensions", "drop_params"], 400))
        .check(quirks::max_inputs(150, 400, |_| "Input embeddings size is too large, exceeding 150 limit.".to_owned()))
        .change(quirks::floats)
        .change(quirks::says("id", "db-1"))
}

pub(crate) fn litellm() -> Dialect {
    Dialect::new("LiteLLM proxy", "", "/embeddings")
        .differs("unsupported members fail unless `drop_params` is true; cost and call id in headers")
        .model("azure-embeddings")
        .errors(|status, message| {
            json!({"error": {"message": message, "type": "None", "param": "None", "code": status.to_string()}})
        })
        .check(|received| match (received.member("dimensions"), received.member("drop_params")) {
            (Some(_), drop) if drop != Some(&Value::Bool(true)) => {
                let message = "litellm.UnsupportedParamsError: azure does not support parameters: {'dimensions': 4}";
                super::dialect::refuse(400, message)
            }
            _ => Ok(()),
        })
        .change(quirks::sends("x-litellm-response-cost", "0.00002"))
        .change(quirks::sends("x-litellm-call-id", "call-1"))
}

pub(crate) fn portkey() -> Dialect {
    Dialect::v1("Portkey")
        .differs("headers choose the provider; trace headers in the answer")
        .model("@openai/text-embedding-3-small")
        .check(quirks::header("x-portkey-provider", 400, "Either x-portkey-config or x-portkey-provider is required"))
        .change(quirks::sends("x-portkey-trace-id", "trace-1"))
}

/// Vertex AI behind a gateway that forwards its errors as `detail`.
pub(crate) fn vertex_gateway() -> Dialect {
    Dialect::v1("Vertex AI behind a gateway")
        .differs("250 inputs and 20,000 tokens in one call; the refusal is a `detail` that names no limit")
        .model("text-embedding-005")
        .errors(detail)
        .check(quirks::max_inputs(250, 400, |_| "The request could not be processed.".to_owned()))
        .check(quirks::max_tokens(20_000, 400, "The request could not be processed."))
        .check(quirks::forms(TEXTS, 400, "The request could not be processed."))
}

/// A gateway that sends CORS headers.
pub(crate) fn for_browsers() -> Dialect {
    Dialect::v1("gateway with CORS")
        .differs("`access-control-allow-origin` on every answer")
        .change(quirks::sends("access-control-allow-origin", "*"))
}

/// A gateway that compresses every answer.
pub(crate) fn compressing() -> Dialect {
    Dialect::v1("gateway that compresses")
        .differs("answers are compressed with gzip, asked or not; compressed bodies are read")
        .transport(Transport::PacksAnswers)
}

/// A server that accepts repeated slashes.
pub(crate) fn merging_slashes() -> Dialect {
    Dialect::v1("nginx in front").differs("repeated slashes count as one").transport(Transport::MergesSlashes)
}

//! Dialects of self-hosted servers, based on their sources and on published reports.

use serde_json::{Value, json};

use super::dialect::{Dialect, Transport, detail};
use super::quirks;
use super::received::Form;

const TEXTS: &[Form] = &[Form::Text, Form::Texts];
const BOTH: &[&str] = &["float", "base64"];

pub(crate) fn tei() -> Dialect {
    Dialect::v1("Text Embeddings Inference")
        .differs("flat errors: 413 above 32 inputs or for a text that is too long, 422 for odd input")
        .model("BAAI/bge-small-en-v1.5")
        .without_key()
        .errors(tei_error)
        .check(quirks::forms(&[Form::Text, Form::Texts, Form::TokenLists], 422, "`input` has a wrong form"))
        .check(quirks::max_inputs(32, 413, |count| format!("batch size {count} > maximum allowed batch size 32")))
        .check(quirks::no_empty_text(400, "`inputs` cannot be empty"))
        .check(quirks::fails_at("poison", 413, "`inputs` must have less than 512 tokens. Given: 601"))
}

/// TEI with a model that fails on a text.
pub(crate) fn tei_backend() -> Dialect {
    Dialect::v1("Text Embeddings Inference, backend error")
        .differs("424 where the model fails on a text")
        .without_key()
        .errors(|_, message| json!({"message": message, "code": 424, "type": "backend"}))
        .check(quirks::fails_at("poison", 424, "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)"))
}

fn tei_error(status: u16, message: &str) -> Value {
    let kind = if status == 422 { "tokenizer" } else { "validation" };
    json!({"message": message, "code": status, "type": kind})
}

pub(crate) fn vllm() -> Dialect {
    Dialect::v1("vLLM")
        .differs("`id` and `created` in the answer; takes `messages`, `truncate_prompt_tokens`, `embed_dtype`")
        .model("intfloat/e5-small")
        .without_key()
        .errors(vllm_error)
        .check(quirks::encodings(BOTH, 400))
        .check(quirks::fails_at("poison", 400, "This model's maximum context length is 512 tokens."))
        .change(quirks::says("id", "embd-0f0f"))
        .change(quirks::says("created", 1_732_000_000))
}

/// vLLM of 2024, which refuses base64.
pub(crate) fn vllm_without_base64() -> Dialect {
    Dialect::v1("vLLM 0.4")
        .differs("400 for `\"encoding_format\": \"base64\"`")
        .without_key()
        .errors(vllm_error)
        .check(quirks::encodings(&["float"], 400))
}

/// vLLM of 2024, with float64 in base64.
pub(crate) fn vllm_float64() -> Dialect {
    let mut dialect = Dialect::v1("vLLM 0.5")
        .differs("base64 holds float64")
        .without_key()
        .errors(vllm_error)
        .change(quirks::float64);
    dialect.garbles = true;
    dialect
}

/// vLLM under load.
pub(crate) fn vllm_out_of_order() -> Dialect {
    Dialect::v1("vLLM, out of order")
        .differs("items in the order in which they were finished, each with its `index`")
        .without_key()
        .change(quirks::reversed)
}

fn vllm_error(status: u16, message: &str) -> Value {
    json!({"object": "error", "message": message, "type": "BadRequestError", "param": null, "code": status})
}

pub(crate) fn llama_cpp() -> Dialect {
    Dialect::v1("llama.cpp")
        .differs("500 for a text longer than its physical batch; ignores `dimensions`")
        .model("nomic-embed-text-v1.5")
        .without_key()
        .errors(llama_error)
        .check(quirks::encodings(BOTH, 400))
        .check(quirks::no_empty_text(400, "Input content cannot be empty"))
        .check(quirks::fails_at(
            "poison",
            500,
            "input (992 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        ))
        .change(quirks::ignores_dimensions)
}

/// llama.cpp of 2024.
pub(crate) fn old_llama_cpp() -> Dialect {
    Dialect::v1("llama.cpp of 2024")
        .differs("takes one token array and no list of them; always floats; no counts in `usage`")
        .without_key()
        .errors(llama_error)
        .check(quirks::forms(
            &[Form::Text, Form::Texts, Form::Tokens],
            500,
            "[json.exception.type_error.302] type must be number, but is array",
        ))
        .change(quirks::floats)
        .change(quirks::ignores_dimensions)
        .change(quirks::zero_usage)
}

fn llama_error(status: u16, message: &str) -> Value {
    let kind = if status == 400 { "invalid_request_error" } else { "server_error" };
    json!({"error": {"code": status, "message": message, "type": kind}})
}

pub(crate) fn ollama() -> Dialect {
    Dialect::v1("Ollama")
        .differs("floats to a base64 request; 500 where a vector holds NaN; no token arrays")
        .model("nomic-embed-text")
        .without_key()
        .errors(|_, message| json!({"error": {"message": message, "type": "api_error", "param": null, "code": null}}))
        .check(quirks::forms(TEXTS, 400, "invalid input type"))
        .check(quirks::fails_at("poison", 500, "failed to encode response: json: unsupported value: NaN"))
        .change(quirks::floats)
}

pub(crate) fn lm_studio() -> Dialect {
    Dialect::v1("LM Studio")
        .differs("floats to a base64 request; `usage` is zero; no token arrays")
        .model("text-embedding-nomic-embed-text-v1.5")
        .without_key()
        .errors(|_, message| json!({ "error": message }))
        .check(quirks::forms(TEXTS, 400, "'input' field must be a string or an array of strings"))
        .change(quirks::floats)
        .change(quirks::zero_usage)
}

pub(crate) fn docker_model_runner() -> Dialect {
    Dialect::new("Docker Model Runner", "/engines/v1", "/engines/v1/embeddings")
        .differs("the base URL ends in `/engines/v1`; floats to a base64 request")
        .model("ai/mxbai-embed-large")
        .without_key()
        .change(quirks::floats)
        .change(quirks::ignores_dimensions)
}

pub(crate) fn infinity() -> Dialect {
    Dialect::new("Infinity", "", "/embeddings")
        .differs("no `/v1`; texts alone; 422 for odd input; `id` and `created` in the answer")
        .model("BAAI/bge-small-en-v1.5")
        .without_key()
        .errors(detail)
        .check(quirks::forms(TEXTS, 422, "Input should be a valid string"))
        .check(quirks::encodings(BOTH, 422))
        .check(quirks::fails_at("poison", 422, "String should have at most 122880 characters"))
        .change(quirks::says("id", "infinity-5f2c"))
        .change(quirks::says("created", 1_732_000_000))
}

/// A small server on `FastAPI`, written for one model.
pub(crate) fn fastapi() -> Dialect {
    Dialect::v1("FastAPI, one text")
        .differs("422 unless `input` is one text; 422 for members that it does not know")
        .without_key()
        .errors(detail)
        .check(quirks::forms(&[Form::Text], 422, "Input should be a valid string"))
        .check(quirks::without(&["encoding_format", "user", "dimensions"], 422))
        .change(quirks::no_usage)
        .change(quirks::no_index)
}

/// The same kind of server, which accepts only lists.
pub(crate) fn fastapi_lists() -> Dialect {
    Dialect::v1("FastAPI, lists alone")
        .differs("422 unless `input` is a list; no `index` at all")
        .without_key()
        .errors(detail)
        .check(quirks::forms(&[Form::Texts], 422, "Input should be a valid list"))
        .change(quirks::no_index)
}

/// A route declared with a trailing slash.
pub(crate) fn fastapi_slash() -> Dialect {
    Dialect::new("FastAPI, trailing slash", "/v1", "/v1/embeddings/")
        .differs("307 from the path without the slash to the one with it, by the inner host's name")
        .without_key()
        .transport(Transport::Moved("/v1/embeddings", 307))
}

/// A server that has moved permanently.
pub(crate) fn moved() -> Dialect {
    Dialect::new("gateway that has moved", "/v1", "/llm/v1/embeddings")
        .differs("308 from the old path to the new one, by the inner host's name")
        .transport(Transport::Moved("/v1/embeddings", 308))
}

/// uvicorn, which closes idle connections after five seconds, often when the next request arrives.
pub(crate) fn uvicorn() -> Dialect {
    Dialect::v1("uvicorn, kept connections")
        .differs("closes a kept connection as its next request arrives")
        .without_key()
        .transport(Transport::ClosesKept)
}

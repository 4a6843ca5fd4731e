//! The rows of the matrix: a server dialect, a client request, and the expected outcome.

use super::local::{
    docker_model_runner, fastapi, fastapi_lists, fastapi_slash, infinity, llama_cpp, lm_studio, moved, old_llama_cpp,
    ollama, tei, tei_backend, uvicorn, vllm, vllm_float64, vllm_out_of_order, vllm_without_base64,
};
use super::requests::{
    ai_sdk, azure as azure_client, azure_with_model, browser, compressed, dimensions, dimensions_base64,
    dimensions_null, encoding_null, foundry as foundry_client, jina as jina_client, langchain, late_chunking, lightrag,
    list_of_one, many33, many97, many300, messages, modality, nim as nim_client, node, objects, old_python,
    openrouter as provider, plain, plain_text, poisoned, poisoned_base64, portkey as portkey_client, python, ragflow,
    repeated, tokens, unknown_member, user, vllm_members, voyage as voyageai, voyage_query, with_empty,
};
use super::row::Expect::{AsDirect, Bypass, Cut, Fails, Hit, Refused};
use super::row::{Row, row};
use super::services::{
    azure, azure_behind_prefix, azure_v1, cohere, compressing, databricks, for_browsers, foundry, gemini, jina,
    litellm, merging_slashes, mistral, nim, openai, openrouter, portkey, two_names, vertex_gateway, voyage,
};

const EXTRA_FIELDS: &str = "cache.extra_fields";

/// Returns every row.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = services();
    rows.extend(gateways());
    rows.extend(local());
    rows.extend(paths());
    rows
}

fn services() -> Vec<Row> {
    vec![
        row(openai(), python(), Hit),
        row(openai(), old_python(), Hit),
        row(openai(), node(), Hit),
        row(openai(), plain_text(), Hit),
        row(openai(), repeated(), Hit),
        row(openai(), langchain(), Hit),
        row(openai(), tokens(), Hit),
        row(openai(), dimensions_base64(), Hit),
        row(openai(), dimensions_null(), Hit),
        row(openai(), user(), Hit),
        row(openai(), with_empty(), Refused),
        row(openai(), poisoned(), Refused),
        row(openai(), poisoned_base64(), Refused),
        row(openai(), unknown_member(), Refused),
        row(azure(), azure_client(), Hit),
        row(azure(), azure_with_model(), Hit),
        row(azure_v1(), azure_with_model(), Hit),
        row(foundry(), foundry_client(), Hit),
        row(voyage(), plain(), Hit),
        row(voyage(), plain_text(), Hit),
        row(voyage(), python(), Hit),
        row(voyage(), voyageai(), Hit),
        row(voyage(), voyage_query(), Hit),
        row(voyage(), encoding_null(), Hit),
        row(voyage(), old_python(), Refused),
        row(voyage(), langchain(), Refused),
        row(jina(), jina_client(), Hit),
        row(jina(), python(), Hit),
        // With late chunking, a vector depends on its neighbours in the list.
        row(jina(), late_chunking(), Bypass("unknown_field")),
        row(mistral(), plain(), Hit),
        row(mistral(), lightrag(), Hit),
        row(mistral(), dimensions(), Refused),
        row(mistral(), many300(), Cut),
        row(cohere(), python(), Hit),
        row(cohere(), plain_text(), Hit),
        row(cohere(), poisoned(), Refused),
        row(gemini(), python(), Hit),
        row(gemini(), plain(), Hit),
        row(gemini(), list_of_one(), Hit),
        row(nim(), nim_client(), Hit),
        row(nim(), python(), Refused),
        // The member is a list with one value per input, so it cannot be part of the key of one input.
        row(nim(), modality(), Bypass("wrong_type")),
        row(databricks(), python(), Hit),
        row(databricks(), plain_text(), Hit),
        row(databricks(), dimensions(), Refused),
    ]
}

fn gateways() -> Vec<Row> {
    vec![
        row(openrouter(), python(), Hit),
        row(openrouter(), provider(), Bypass("unknown_field")),
        row(openrouter(), provider(), Hit).with(EXTRA_FIELDS, "provider"),
        row(two_names(), python(), Hit)
            .with("cache.same_models", "text-embedding-3-small=azure/text-embedding-3-small"),
        row(litellm(), plain(), Hit),
        row(litellm(), ragflow(), Hit),
        row(litellm(), dimensions(), Refused),
        row(portkey(), portkey_client(), Hit).with("cache.key_headers", "x-portkey-provider"),
        row(portkey(), plain(), Refused),
        row(vertex_gateway(), plain(), Hit),
        row(vertex_gateway(), encoding_null(), Hit),
        row(vertex_gateway(), plain_text(), Hit),
        row(azure_behind_prefix(), azure_with_model(), Hit),
        row(for_browsers(), browser(), Hit),
        row(for_browsers(), ai_sdk(), Hit),
        row(compressing(), plain(), Hit),
        row(compressing(), python(), Hit),
        row(compressing(), compressed(), Hit),
    ]
}

fn local() -> Vec<Row> {
    vec![
        row(tei(), python(), Hit),
        row(tei(), plain(), Hit),
        row(tei(), langchain(), Hit),
        row(tei(), plain_text(), Hit),
        row(tei(), poisoned(), Refused),
        row(tei(), tokens(), Refused),
        row(tei_backend(), poisoned_base64(), Refused),
        row(vllm(), python(), Hit),
        row(vllm(), langchain(), Hit),
        row(vllm(), vllm_members(), Hit),
        row(vllm(), messages(), Bypass("unknown_field")),
        row(vllm(), poisoned(), Refused),
        row(vllm_without_base64(), python(), Refused),
        row(vllm_without_base64(), plain(), Hit),
        row(vllm_float64(), old_python(), Hit),
        row(vllm_float64(), python(), AsDirect("the base64 of this server holds no f32")),
        row(vllm_out_of_order(), python(), Hit),
        row(vllm_out_of_order(), repeated(), Hit),
        row(llama_cpp(), python(), Hit),
        row(llama_cpp(), dimensions(), Hit),
        row(llama_cpp(), dimensions_base64(), Hit),
        row(llama_cpp(), langchain(), Hit),
        row(llama_cpp(), with_empty(), Refused),
        row(llama_cpp(), poisoned(), Fails),
        row(llama_cpp(), poisoned_base64(), Fails),
        row(old_llama_cpp(), python(), Hit),
        row(old_llama_cpp(), tokens(), Hit),
        row(old_llama_cpp(), langchain(), Fails),
        row(ollama(), python(), Hit),
        row(ollama(), node(), Hit),
        row(ollama(), plain(), Hit),
        row(ollama(), poisoned(), Fails),
        row(ollama(), langchain(), Refused),
        row(lm_studio(), python(), Hit),
        row(lm_studio(), tokens(), Refused),
        row(docker_model_runner(), python(), Hit),
        row(docker_model_runner(), dimensions(), Hit),
        row(infinity(), python(), Hit),
        row(infinity(), user(), Hit),
        row(infinity(), objects(), Refused),
        row(infinity(), poisoned(), Refused),
        row(fastapi(), plain_text(), Hit),
        row(fastapi(), plain(), Refused),
        row(fastapi_lists(), plain(), Hit),
        row(fastapi_lists(), list_of_one(), Hit),
        row(fastapi_lists(), plain_text(), Refused),
        row(fastapi_slash(), plain(), Hit).everywhere_at("/v1/embeddings"),
        row(moved(), python(), Hit).everywhere_at("/v1/embeddings"),
        row(uvicorn(), python(), Hit),
        row(uvicorn(), plain_text(), Hit),
    ]
}

/// Returns rows for base URLs, paths of clients, and requests above a server's limit.
fn paths() -> Vec<Row> {
    const VERSION: &str = "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21";
    vec![
        row(openai(), python(), Hit).at("/embeddings"),
        row(gemini(), python(), Hit).at("/embeddings"),
        row(openrouter(), python(), Hit).at("/v1/embeddings"),
        row(docker_model_runner(), plain(), Hit).at("/v1/embeddings"),
        row(azure_behind_prefix(), azure_client(), Hit).at(VERSION),
        row(merging_slashes(), python(), Hit).everywhere_at("/v1//embeddings").at("//embeddings"),
        row(merging_slashes(), python(), Hit).everywhere_at("/v1//embeddings"),
        row(merging_slashes(), plain(), Hit).everywhere_at("/v1/embeddings/"),
        row(tei(), many33(), Cut),
        row(cohere(), many97(), Cut),
        row(vertex_gateway(), many300(), AsDirect("the refusal names no limit")),
    ]
}

//! Real client libraries see no difference through vecho, and their second round causes no upstream call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::script::{
    AZURE_INFERENCE, HAYSTACK, LANGCHAIN, LANGCHAIN_NODE, LITELLM, LLAMA_INDEX, MISTRAL, OPENAI_COMPRESSED,
    OPENAI_NODE, OPENAI_PYTHON, OPENAI_PYTHON_1, Script, VERCEL_NODE, VOYAGE,
};
use crate::harness::stub::Dialect;
use crate::harness::{Behaviour, Stub, Vecho};

const SMALL: &str = "text-embedding-3-small";
const TINY: &str = "tiny";
/// The texts of `documents` in the reports of the newer scripts.
const DOCUMENTS: [&str; 4] = ["one", "two", "one", "a longer document"];

fn stub() -> Stub {
    let stub = Stub::start();
    stub.accept_keys(["sk-test"]);
    stub
}

/// Starts the upstream of a client that is made for another service.
fn stub_of(dialect: Dialect) -> Stub {
    let stub = stub();
    stub.always(Behaviour::Dialect(dialect));
    stub
}

/// Returns the report of the script without vecho.
fn direct(script: Script) -> Value {
    run(script, &stub())
}

fn run(script: Script, stub: &Stub) -> Value {
    script.run(&stub.base_url(), &stub.root_url())
}

/// Runs the script directly against an upstream, and through vecho against a second one of the same kind.
fn run_both(script: Script, dialect: Option<Dialect>) -> (Value, Value) {
    let upstream = || dialect.map_or_else(stub, stub_of);
    let (alone, behind) = (upstream(), upstream());
    // Other services have their own paths: vecho gets only their host as base URL and forwards every path unchanged.
    let address = if dialect.is_some() { behind.root_url() } else { behind.base_url() };
    let vecho = Vecho::start_with(&address, &[]);
    let direct = run(script, &alone);
    let through = script.run(&vecho.base_url(), &behind.root_url());
    assert_eq!(paths(&behind), paths(&alone), "requests reach the upstream at the path that the client chose");
    (direct, through)
}

fn paths(stub: &Stub) -> BTreeSet<String> {
    stub.embedding_calls().into_iter().map(|call| call.path).collect()
}

/// Clients ask for compression by themselves.
#[test]
fn compressed_answers_give_clients_the_same_results_as_directly() {
    for script in [OPENAI_PYTHON, OPENAI_NODE] {
        let (alone, behind) = (stub(), stub());
        let vecho = Vecho::start_with(&behind.base_url(), &[("VECHO_COMPRESSION", "on")]);
        assert_equal(&run(script, &alone), &script.run(&vecho.base_url(), &behind.root_url()));
    }
}

/// Vectors of all sizes, at once and in pieces, in both encodings, from the upstream and from the caches.
#[test]
fn the_openai_package_reads_the_vectors_of_the_upstream_from_compressed_answers() {
    let (alone, behind) = (stub(), stub());
    let vecho = Vecho::start_with(&behind.base_url(), &[("VECHO_COMPRESSION", "on")]);
    let (direct, through) =
        (run(OPENAI_COMPRESSED, &alone), OPENAI_COMPRESSED.run(&vecho.base_url(), &behind.root_url()));
    let [direct, through] = [&direct, &through].map(|report| report.as_array().expect("a report is a list"));
    assert_eq!(direct.len(), through.len());
    for (direct, through) in direct.iter().zip(through) {
        assert_eq!((&direct["coding"], &through["coding"]), (&Value::Null, &json!("gzip")));
        assert!(direct["vectors"] == through["vectors"], "{} inputs", direct["inputs"]);
    }
}

fn assert_no_difference(script: Script) {
    let (direct, through) = run_both(script, None);
    assert_equal(&direct, &through);
}

/// Like [`assert_no_difference`], for scripts that embed [`DOCUMENTS`]. Their vectors must equal those of the upstream.
fn assert_no_difference_in_documents(script: Script, dialect: Option<Dialect>) {
    let (direct, through) = run_both(script, dialect);
    let expected: Vec<Vec<f32>> = DOCUMENTS.iter().map(|text| Stub::vector(TINY, None, *text)).collect();
    for round in direct["rounds"].as_array().expect("rounds are a list") {
        let read = round["cacheable"]["documents"]["vectors"].as_array().expect("documents have vectors");
        assert_eq!(read.iter().map(components).collect::<Vec<_>>(), expected, "the vectors of the upstream");
    }
    assert_equal(&direct, &through);
}

fn assert_equal(direct: &Value, through: &Value) {
    for round in 0..2 {
        let (through, direct) = (&through["rounds"][round], &direct["rounds"][round]);
        let parts = direct.as_object().expect("a round has parts");
        for (name, part) in parts {
            assert_eq!(&through[name], part, "{name} of round {round} through vecho and without it");
        }
    }
    let (sent, unsaved) = (&through["cacheable_inputs_sent"], &direct["cacheable_inputs_sent"]);
    assert!(
        unsaved[0].as_u64() > Some(0) && unsaved[0] == unsaved[1],
        "without vecho every round is paid for: {unsaved}"
    );
    assert!(
        sent[0].as_u64() > Some(0) && sent[0].as_u64() < unsaved[0].as_u64(),
        "repeated inputs are sent once: {sent}"
    );
    assert_eq!(sent[1], 0, "the second round is answered from the cache");
}

#[test]
fn openai_python_gets_the_same_results_as_directly() {
    assert_no_difference(OPENAI_PYTHON);
}

#[test]
fn openai_python_1_gets_the_same_results_as_directly() {
    assert_no_difference(OPENAI_PYTHON_1);
}

#[test]
fn openai_node_gets_the_same_results_as_directly() {
    assert_no_difference(OPENAI_NODE);
}

#[test]
fn langchain_gets_the_same_results_as_directly() {
    assert_no_difference(LANGCHAIN);
}

#[test]
fn llama_index_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(LLAMA_INDEX, None);
}

#[test]
fn haystack_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(HAYSTACK, None);
}

#[test]
fn litellm_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(LITELLM, None);
}

#[test]
fn langchain_for_node_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(LANGCHAIN_NODE, None);
}

#[test]
fn the_vercel_sdk_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(VERCEL_NODE, None);
}

#[test]
fn the_client_of_voyage_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(VOYAGE, Some(Dialect::Voyage));
}

#[test]
fn the_client_of_mistral_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(MISTRAL, Some(Dialect::Mistral));
}

#[test]
fn the_client_of_azure_inference_gets_the_same_results_as_directly() {
    assert_no_difference_in_documents(AZURE_INFERENCE, Some(Dialect::AzureInference));
}

#[test]
fn the_clients_report_the_vectors_and_errors_of_the_upstream() {
    for script in [OPENAI_PYTHON, OPENAI_PYTHON_1, OPENAI_NODE] {
        let document = direct(script);
        for round in document["rounds"].as_array().expect("rounds are a list") {
            assert_vectors(&round["cacheable"]);
            assert_errors(&round["errors"]);
            let recovered = &round["recovered"];
            assert_eq!(recovered["rate_limit"]["items"].as_array().map(Vec::len), Some(1));
            assert_eq!(recovered["hang_up"]["items"].as_array().map(Vec::len), Some(1));
            assert_eq!(round["passed"]["stream"], json!(["Hello", " world", "!"]));
        }
    }
}

fn assert_vectors(results: &Value) {
    let tiny = |texts: &[&str]| texts.iter().map(|text| Stub::vector(TINY, None, *text)).collect::<Vec<_>>();
    let small = |dimensions, text| vec![Stub::vector(SMALL, dimensions, text)];
    for (name, expected) in [
        ("single", small(None, "a gateway that remembers")),
        ("batch", tiny(&["one", "two", "three"])),
        ("duplicates", tiny(&["x", "y", "x"])),
        ("floats", small(None, "one")),
        ("dimensions", small(Some(256), "one")),
        ("token_lists", vec![Stub::vector(TINY, None, [1, 2, 3]), Stub::vector(TINY, None, [4, 5])]),
        ("token_list", vec![Stub::vector(TINY, None, [1, 2, 3])]),
        ("user", tiny(&["one"])),
        ("unicode", tiny(&["h\u{e9}llo \u{1f600}", "tab\tquote\" \\ / < > &", "\u{2028} and \0", "   "])),
    ] {
        assert_eq!(vectors(&results[name]), expected, "{name}");
    }
}

fn vectors(result: &Value) -> Vec<Vec<f32>> {
    result["items"].as_array().expect("items are a list").iter().map(|item| components(&item["embedding"])).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "scripts print an f32 widened to f64, or its shortest decimal")]
fn components(vector: &Value) -> Vec<f32> {
    let component = |value: &Value| value.as_f64().expect("a component is a number") as f32;
    vector.as_array().expect("a vector is a list").iter().map(component).collect()
}

fn assert_errors(errors: &Value) {
    for (name, status, code) in [
        ("empty_in_list", 400, Value::Null),
        ("wrong_key", 401, json!("invalid_api_key")),
        ("missing_model", 404, json!("model_not_found")),
        ("no_dimensions", 400, Value::Null),
    ] {
        let error = &errors[name];
        assert_eq!((&error["status"], &error["code"]), (&json!(status), &code), "{name}");
        assert_eq!(error["type"], "invalid_request_error", "{name}");
    }
}

#[test]
fn langchain_sends_token_lists_and_reports_the_vectors_of_the_upstream() {
    let stub = stub();
    let document = LANGCHAIN.run(&stub.base_url(), &stub.root_url());
    let bytes = |text: &str| Stub::vector(SMALL, None, text.bytes().map(u32::from).collect::<Vec<_>>().as_slice());
    let results = &document["rounds"][1]["cacheable"];
    let documents = results["documents"].as_array().expect("a list");
    let read: Vec<Vec<f32>> = documents.iter().map(components).collect();
    assert_eq!(read, ["one", "two", "one", "a longer document"].map(bytes));
    assert_eq!(results["async"], results["documents"]);
    let first = &stub.embedding_calls()[0];
    assert_eq!(first.inputs(), [json!([111, 110, 101]), json!([116, 119, 111]), json!([111, 110, 101])]);
}

//! Applications with real client libraries notice no difference, and their second round costs nothing upstream.

use serde_json::{Value, json};

use crate::harness::script::{LANGCHAIN, OPENAI_NODE, OPENAI_PYTHON, OPENAI_PYTHON_1, Script};
use crate::harness::{Stub, Vecho};

const SMALL: &str = "text-embedding-3-small";
const TINY: &str = "tiny";

fn stub() -> Stub {
    let stub = Stub::start();
    stub.accept_keys(["sk-test"]);
    stub
}

/// What the script reports when nothing stands between it and the upstream.
fn direct(script: Script) -> Value {
    let stub = stub();
    script.run(&stub.base_url(), &stub.root_url())
}

fn assert_no_difference(script: Script) {
    let stub = stub();
    let vecho = Vecho::start(&stub);
    let through = script.run(&vecho.base_url(), &stub.root_url());
    let direct = direct(script);
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
fn openai_python_notices_no_difference() {
    assert_no_difference(OPENAI_PYTHON);
}

#[test]
fn openai_python_1_notices_no_difference() {
    assert_no_difference(OPENAI_PYTHON_1);
}

#[test]
fn openai_node_notices_no_difference() {
    assert_no_difference(OPENAI_NODE);
}

#[test]
fn langchain_notices_no_difference() {
    assert_no_difference(LANGCHAIN);
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

#[expect(clippy::cast_possible_truncation, reason = "scripts print an f32 widened to f64, or its shortest decimal")]
fn vectors(result: &Value) -> Vec<Vec<f32>> {
    let component = |value: &Value| value.as_f64().expect("a component is a number") as f32;
    let vector = |item: &Value| item["embedding"].as_array().expect("a list").iter().map(component).collect();
    result["items"].as_array().expect("items are a list").iter().map(vector).collect()
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
    let documents: Vec<Value> = results["documents"].as_array().expect("a list").clone();
    let read = |vector: &Value| vectors(&json!({"items": [{"embedding": vector}]})).remove(0);
    let read: Vec<Vec<f32>> = documents.iter().map(read).collect();
    assert_eq!(read, ["one", "two", "one", "a longer document"].map(bytes));
    assert_eq!(results["async"], results["documents"]);
    let first = &stub.embedding_calls()[0];
    assert_eq!(first.inputs(), [json!([111, 110, 101]), json!([116, 119, 111]), json!([111, 110, 101])]);
}

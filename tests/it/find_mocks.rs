//! Mocks are found again: by the command and by the queries of the documents.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::Front;
use crate::harness::script::PGVECTOR;
use crate::harness::tls::Folder;

const SMALL: &str = "text-embedding-3-small";

/// Returns real vectors and mocks of some texts, in both encodings.
async fn vectors(texts: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let front = Front::with(&[("fallback.mode", "mock"), ("retry.max_attempts", "1")]).await;
    let embeddings = async |suffix: &str, encoding: &str| -> Vec<Value> {
        let texts: Vec<String> = texts.iter().map(|text| format!("{text}{suffix}")).collect();
        let answer = front.ask(&json!({"model": SMALL, "input": texts, "encoding_format": encoding})).await;
        assert_eq!(answer.status, 200);
        answer.json()["data"].as_array().expect("items").iter().map(|item| item["embedding"].clone()).collect()
    };
    let real = [embeddings("", "float").await, embeddings("", "base64").await].concat();
    front.stub.down().await;
    let mocks = [embeddings(" unknown", "float").await, embeddings(" unknown", "base64").await].concat();
    (real, mocks)
}

fn find(input: &str, files: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vecho"))
        .arg("find-mocks")
        .args(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vecho must start");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it must read its input");
    child.wait_with_output().expect("it must end")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

#[tokio::test]
async fn the_command_finds_each_mock_and_no_real_vector() {
    let (real, mocks) = vectors(&["one", "two words", "three more words"]).await;
    let mut lines: Vec<String> = real.iter().map(|vector| json!({"id": "r", "vector": vector}).to_string()).collect();
    lines.push(json!({"id": "m7", "metadata": {"text": "x"}, "values": mocks[0]}).to_string());
    lines.push(mocks[4].to_string());
    // PostgreSQL's vector type is exported as a text.
    lines.push(json!({"embedding": mocks[2].to_string()}).to_string());
    lines.push(json!({"data": [{"embedding": real[0]}, {"embedding": mocks[1]}]}).to_string());
    let found = find(&lines.join("\n"), &["-"]);
    assert_eq!(text(&found.stdout), "-:7\t\"m7\"\n-:8\n-:9\n-:10\n");
    assert_eq!(text(&found.stderr), "4 of 11 vectors are mocks\n");
    assert_eq!(found.status.code(), Some(1));
    let one = find(&format!("id,vector\n{}", lines[6]), &["-"]);
    assert_eq!(text(&one.stderr), "1 of 1 vector is a mock\nwarning: 1 line without valid JSON, not searched\n");
    assert_eq!(one.status.code(), Some(1), "a line that cannot be searched hides no mock");
    let in_part = find(&format!("id,vector\n{}", lines[0]), &["-"]);
    assert_eq!(in_part.status.code(), Some(64), "a file that is searched in part must not pass");
    let none = find(&lines[..6].join("\n"), &["-"]);
    assert_eq!((text(&none.stdout), none.status.code()), ("", Some(0)));
}

#[tokio::test]
async fn mocks_in_base64_of_f64_and_beside_numbers_that_json_lacks_are_found() {
    let (real, mocks) = vectors(&["one", "two words"]).await;
    let doubles = |vector: &Value| {
        let components = vector.as_array().expect("it has numbers").iter();
        let bytes: Vec<u8> = components.flat_map(|number| number.as_f64().expect("a number").to_le_bytes()).collect();
        base64_simd::STANDARD.encode_to_string(bytes)
    };
    let broken = real[0].to_string().replacen('[', "[NaN,", 1);
    let lines = [
        json!({"id": 1, "vector": doubles(&mocks[0])}).to_string(),
        json!({"id": 2, "vector": doubles(&real[0])}).to_string(),
        // Python writes numbers that are not finite in this way.
        format!(r#"{{"id":3,"score":NaN,"low":-Infinity,"text":"\"NaN","vector":{}}}"#, mocks[1]),
        format!(r#"{{"id":4,"score":Infinity,"vector":{}}}"#, real[1]),
        format!(r#"{{"id":5,"vector":{broken}}}"#),
        format!(r#"{{"id":6,"vector":"{}"}}"#, mocks[0].to_string().replacen('[', "[ ", 1)),
    ];
    let found = find(&lines.join("\n"), &["-"]);
    assert_eq!((text(&found.stdout), text(&found.stderr)), ("-:1\t1\n-:3\t3\n-:6\t6\n", "3 of 6 vectors are mocks\n"));
    let faulty = find(&format!("{}\n{{\"a\":NaNs}}\n{{\"a\":Nan}}", lines[1]), &["-"]);
    assert!(text(&faulty.stderr).contains("2 lines without valid JSON"), "{}", text(&faulty.stderr));
}

#[test]
fn files_without_vectors_are_refused_and_files_that_cannot_be_read_are_named() {
    let found = find("{\"id\":1}\nno json\n[1,2]\n", &["-"]);
    assert_eq!(
        text(&found.stderr),
        "warning: 1 line without valid JSON, not searched\n\
         warning: 2 lines without a vector of at least 64 components\n\
         vecho: no vector was found; the files need one JSON object or array per line\n"
    );
    assert_eq!(found.status.code(), Some(64), "a CSV file must not pass for one without mocks");
    assert_eq!(find("", &["-"]).status.code(), Some(64), "an empty file has no vectors either");
    let missing = find("", &["/nowhere/at/all"]);
    assert!(text(&missing.stderr).starts_with("vecho: /nowhere/at/all cannot be read: "));
    assert_eq!(missing.status.code(), Some(64));
    assert_eq!(find("", &[]).status.code(), Some(64), "a file must be named");
}

#[tokio::test]
async fn the_documented_numpy_lines_find_the_same_vectors() {
    let (real, mocks) = vectors(&["one", "two words"]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("docs/FAILURES.md")).expect("the guide is readable");
    let lines = guide.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it has Python");
    let floats: Vec<&Value> = real.iter().chain(&mocks).filter(|vector| vector.is_array()).collect();
    let script = format!(
        "import json, sys\nimport numpy as np\nvectors = np.array(json.load(sys.stdin), dtype=np.float32)\n\
         for kind in (np.float32, np.float16):\n    v = vectors.astype(kind)[:, :96]\n    {}\n    print(np.flatnonzero(mocks).tolist())\n",
        lines.trim_end().replace('\n', "\n    ")
    );
    let python = root.join("target/test-env/py/bin/python");
    let mut child = Command::new(&python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup-tests first", python.display()));
    let input = json!(floats).to_string();
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it must read its input");
    let output = child.wait_with_output().expect("it must end");
    assert_eq!(text(&output.stdout), "[2, 3]\n[2, 3]\n");
}

/// Returns the recorded vectors of OpenAI and Azure.
fn recorded() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vectors");
    let files = std::fs::read_dir(folder).expect("the folder is readable").map(|entry| entry.expect("a file").path());
    let vectors = files.filter(|path| path.extension().is_some_and(|end| end == "f32")).map(|path| {
        let bytes = std::fs::read(path).expect("the file is readable");
        let (numbers, _) = bytes.as_chunks();
        json!(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect::<Vec<_>>())
    });
    vectors.collect()
}

#[tokio::test]
async fn the_documented_pgvector_query_finds_the_same_vectors() {
    let (real, mocks) = vectors(&["one", "two words"]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("docs/FAILURES.md")).expect("the guide is readable");
    let query = guide.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it has SQL");
    let recorded = recorded();
    assert!(recorded.len() >= 7, "{} recorded vectors", recorded.len());
    let floats = |vectors: Vec<Value>| vectors.into_iter().filter(Value::is_array).collect::<Vec<_>>();
    let (real, mut mocks) = ([floats(real), recorded].concat(), floats(mocks));
    // A store may hold the first dimensions of a vector only, and rows without one.
    mocks.push(json!(mocks[0].as_array().expect("it has numbers")[..64]));
    let items = [real.clone(), mocks.clone(), vec![Value::Null]].concat();
    let folder = Folder::new("pgvector");
    let mut command = PGVECTOR.command();
    command.env("ITEMS", folder.write("items.json", json!(items).to_string())).env("QUERY", query);
    let report = PGVECTOR.report(command);
    let expected = json!((real.len()..real.len() + mocks.len()).collect::<Vec<_>>());
    assert_eq!((&report["vector"], &report["halfvec"]), (&expected, &expected), "{report}");
}

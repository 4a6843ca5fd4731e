//! Limits of the service.

use serde_json::Value;

use super::job::Site;

#[tokio::test]
async fn a_job_is_cut_to_fifty_thousand_requests_per_batch() {
    let site = Site::new("batch-api-large");
    let lines: Vec<String> = (0..50_001).map(|number| format!("text {number}")).collect();
    let file = site.folder.write("texts.txt", lines.join("\n"));
    site.stub.fail("POST /v1/files", crate::harness::batch_api::Fault::Status(401, "invalid_api_key"));
    site.warm(&file, &["--yes"]).said("sending 50,001 requests in 2 batches");
    let line_count = |part: usize| {
        let path = format!("{file}.batch-state.{part}.requests");
        std::fs::read_to_string(path).expect("the part is there").lines().count()
    };
    assert_eq!([line_count(1), line_count(2)], [50_000, 1]);
}

#[tokio::test]
async fn a_job_is_cut_by_requests_and_by_tokens() {
    let site = Site::new("batch-api-cut");
    let file = site.file(&["one", "two", "three", "four", "five"]);
    site.warm(&file, &["--yes", "--batch-requests", "2"]).well().said("5 requests in 3 batches").said("5 were fetched");
    let sizes: Vec<u64> = site
        .stub
        .service()
        .batches
        .iter()
        .filter_map(|batch| batch.value["request_counts"]["total"].as_u64())
        .collect();
    assert_eq!(sizes, [2, 2, 1]);
    let file = site.file(&["a b c d e f", "g h i j k l", "m"]);
    // Three bytes count as one token of a model with an unknown tokenizer.
    site.warm(&file, &["--yes", "--batch-tokens", "5"]).well().said("3 requests in 2 batches, about 9 tokens");
    site.stub.is_content();
}

#[tokio::test]
async fn a_failed_input_is_recorded_without_its_text() {
    let site = Site::new("batch-api-state");
    let file = site.file(&["very private"]);
    site.stub.fail("POST /v1/files", crate::harness::batch_api::Fault::Status(400, "invalid_file"));
    assert_eq!(site.warm(&file, &["--yes"]).status, Some(1));
    let state = std::fs::read_to_string(format!("{file}.batch-state")).expect("the state is kept");
    let state: Value = serde_json::from_str(&state).expect("it is JSON");
    assert_eq!(
        (&state["failed"][0]["place"], state["failed"].as_array().map(Vec::len)),
        (&Value::from("line 1"), Some(1))
    );
    assert!(!state.to_string().contains("private"), "{state}");
}

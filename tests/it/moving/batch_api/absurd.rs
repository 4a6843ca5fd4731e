//! A state file with numbers that no job has.

use serde_json::{Value, json};

use super::job::Site;
use crate::harness::batch_api::Fault;

#[tokio::test]
async fn a_state_file_with_impossible_numbers_is_refused_by_its_name() {
    let site = Site::new("batch-api-absurd");
    let file = site.file(&["one", "two"]);
    site.stub.fail("GET /v1/batches/", Fault::Status(401, "invalid_api_key"));
    site.warm(&file, &["--yes", "--batch-requests", "1"]).said("invalid_api_key");
    let path = format!("{file}.batch-state");
    let written = std::fs::read_to_string(&path).expect("the job has a state");
    let state: Value = serde_json::from_str(&written).expect("the state is JSON");
    for (pointer, number) in [
        ("/parts/0/requests", u64::MAX),
        ("/parts/1/tokens", u64::MAX),
        ("/parts/0/fetched", u64::MAX),
        ("/parts/1/billed", u64::MAX),
        ("/parts/0/number", 0),
        ("/parts/0/number", 2),
        ("/parts/0/tries", u32::MAX.into()),
        ("/cached", u64::MAX),
        ("/unreadable", u64::MAX),
    ] {
        let mut absurd = state.clone();
        *absurd.pointer_mut(pointer).expect("the state has the member") = json!(number);
        std::fs::write(&path, absurd.to_string()).expect("the folder is writable");
        let refused =
            site.warm(&file, &[]).said(&format!("the state file {path} cannot be used: ")).said("restore the file");
        assert!(refused.status == Some(1) && !refused.err.contains("panicked"), "{pointer}: {}", refused.err);
    }
    std::fs::write(&path, written).expect("the folder is writable");
    site.warm(&file, &[]).well().said("2 were fetched");
    site.billed_once(&["one", "two"]);
    site.is_clean();
}

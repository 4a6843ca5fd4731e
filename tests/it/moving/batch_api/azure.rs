//! Azure's variant of the Batch API.

use serde_json::json;

use super::super::command::{TINY, at, bits, run_with};
use crate::harness::Vecho;
use crate::harness::batch_api::BatchStub;
use crate::harness::client::{Client, post};
use crate::harness::front::tiny;
use crate::harness::tls::Folder;

const PATH: &str = "/openai/deployments/live/embeddings?api-version=2024-10-21";

#[tokio::test]
async fn a_deployment_of_azure_is_filled_by_a_deployment_for_batches() {
    let stub = BatchStub::start();
    stub.service().is_azure = true;
    stub.service().live_model = Some(TINY);
    let settings = [("OPENAI_API_KEY", "k"), ("VECHO_UPSTREAM_API_KEY_HEADER", "api-key")];
    let (vecho, folder) = (Vecho::start_with(&stub.root_url(), &settings), Folder::new("batch-api-azure"));
    let (file, upstream, own) = (folder.write("texts.txt", "one\ntwo\n"), stub.root_url(), at(&vecho));
    let fixed = ["--upstream", &upstream, "warm", "--batch-api", "--yes", "--model", "live", "--poll", "5ms"];
    let azure = ["--path", PATH, "--batch-model", TINY, &file];
    let arguments: Vec<&str> = own.iter().map(String::as_str).chain(fixed).chain(azure).collect();
    run_with(&arguments, &settings, b"").well().said("2 were fetched, 0 failed");
    let body = json!({"model": "live", "input": ["two", "one"]});
    let mut request = post(&format!("http://{}{PATH}", vecho.public()), &body);
    request.headers_mut().insert("api-key", "k".parse().expect("it is legal"));
    let answer = Client::new().send(request).await.expect("the answer must arrive");
    assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&tiny(&["two", "one"]))));
    let service = stub.service();
    assert_eq!(service.batches[0].value["endpoint"], "/embeddings");
    drop(service);
    stub.is_content();
    let is_of_api = |line: &&String| line.contains(" /openai/files") || line.contains(" /openai/batches");
    let live: Vec<String> = stub.log().iter().filter(|line| !is_of_api(line)).cloned().collect();
    assert_eq!(live, ["POST /openai/deployments/live/embeddings"], "one live request names the model");
}

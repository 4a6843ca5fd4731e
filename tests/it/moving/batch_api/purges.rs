//! A purge or a forget while a job runs covers the vectors of the job.

use std::process::Child;

use http::Method;
use serde_json::json;

use super::super::command::{TINY, ask, bits};
use super::job::Site;
use crate::forgetting::forget;
use crate::harness::batch_api::StoredBatch;
use crate::harness::client::{Client, raw};
use crate::harness::front::tiny;

/// Starts a job for these texts, and waits until its batch runs.
async fn running(site: &Site, texts: &[&str]) -> (String, Child) {
    let file = site.file(texts);
    site.stub.service().polls = 1_000_000;
    let child = site.spawn(&file, &["--yes"]);
    crate::harness::eventually("a batch exists", async || site.stub.count("GET /v1/batches/") > 0).await;
    (file, child)
}

/// Lets the batch of a job end, and returns what the command says.
fn ended(site: &Site, child: Child) -> String {
    site.stub.service().polls = 0;
    site.stub.service().batches.iter_mut().for_each(StoredBatch::finish);
    let output = child.wait_with_output().expect("it must end");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// Returns the status of a live request. The stub has no embeddings, so a miss is a 404.
async fn status(site: &Site, text: &str) -> u16 {
    ask(&site.vecho, &json!({"model": TINY, "input": text}), None).await.status
}

#[tokio::test]
async fn an_input_forgotten_while_its_job_runs_is_not_imported_until_another_job_sends_it() {
    let site = Site::new("batch-api-forgotten");
    let (file, child) = running(&site, &["one", "two"]).await;
    let answer = forget(site.vecho.admin(), &[], &json!({"model": TINY, "input": "one"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = ended(&site, child);
    assert!(said.contains("the cache did not take 1 vector"), "{said}");
    assert_eq!([status(&site, "one").await, status(&site, "two").await], [404, 200]);
    site.warm(&file, &["--yes"]).well().said("1 was cached already, 1 was fetched");
    let again = ask(&site.vecho, &json!({"model": TINY, "input": ["one", "two"]}), None).await;
    assert_eq!((again.cache(), bits(&again.vectors())), ("hit", bits(&tiny(&["one", "two"]))));
}

#[tokio::test]
async fn a_model_purged_while_its_job_runs_is_not_imported() {
    for (query, taken) in [("?model=tiny", false), ("", false), ("?model=other", true)] {
        let site = Site::new("batch-api-purged");
        let (_, child) = running(&site, &["one"]).await;
        let url = site.vecho.ops_url(&format!("/api/performance/cache{query}"));
        let purged = Client::new().send(raw(Method::DELETE, &url, "")).await.expect("the ops port answers");
        assert_eq!(purged.status, 200, "{purged:?}");
        let said = ended(&site, child);
        assert_eq!(said.contains("the cache did not take 1 vector"), !taken, "{query:?}: {said}");
        assert_eq!(status(&site, "one").await, if taken { 200 } else { 404 }, "{query:?}");
    }
}

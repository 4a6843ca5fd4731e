//! A service with faults.

use std::time::Duration;

use super::job::Site;
use crate::harness::batch_api::Fault;

#[tokio::test]
async fn a_fault_of_any_request_is_passed_over_without_paying_twice() {
    let site = Site::new("batch-api-faults");
    let requests = ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/", "DELETE /v1/files/"];
    let faults = [
        Fault::Status(429, "rate_limit_exceeded"),
        Fault::Status(500, "server_error"),
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Delay(Duration::from_millis(50)),
    ];
    let mut texts = Vec::new();
    for request in requests {
        for fault in &faults {
            let text = format!("{request} {fault:?}");
            site.stub.fail(request, fault.clone());
            site.warm(&site.file(&[&text]), &["--yes"]).well().said("1 was fetched, 0 failed");
            texts.push(text);
        }
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    site.holds(&texts).await;
    site.billed_once(&texts);
    let service = site.stub.service();
    assert_eq!((service.uploads, service.batches.len()), (texts.len(), texts.len()), "all took effect once");
}

#[tokio::test]
async fn a_refused_key_stops_the_command_and_the_job_continues_later() {
    let site = Site::new("batch-api-key");
    let file = site.file(&["one"]);
    for request in ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/"] {
        site.stub.fail(request, Fault::Status(401, "invalid_api_key"));
        let ended = site.warm(&file, &["--yes"]).said("invalid_api_key").said("the same command continues from");
        assert_eq!(ended.status, Some(1), "{request}");
    }
    site.warm(&file, &[]).well().said("continuing the job").said("1 was fetched");
    site.billed_once(&["one"]);
    site.is_clean();
}

#[tokio::test]
async fn a_refused_upload_lists_its_inputs() {
    let site = Site::new("batch-api-upload");
    site.stub.fail("POST /v1/files", Fault::Status(400, "invalid_file"));
    let ended = site.warm(&site.file(&["one"]), &["--yes"]).said("line 1: invalid_file").said("1 failed");
    assert_eq!((ended.status, site.stub.service().batches.len()), (Some(1), 0));
}

#[tokio::test]
async fn an_exhausted_quota_stops_the_command_and_loses_nothing() {
    let site = Site::new("batch-api-quota");
    let file = site.file(&["one"]);
    site.stub.fail("POST /v1/batches", Fault::Status(429, "insufficient_quota"));
    assert_eq!(site.warm(&file, &["--yes"]).said("insufficient_quota").status, Some(1));
    site.warm(&file, &[]).well().said("1 was fetched");
    assert_eq!(site.stub.service().uploads, 1);
}

#[tokio::test]
async fn a_batch_that_runs_is_not_given_up_for_a_refused_status_or_download() {
    let site = Site::new("batch-api-late-refusal");
    let file = site.file(&["one"]);
    for request in ["GET /v1/batches/", "GET /v1/files/"] {
        site.stub.fail(request, Fault::Status(400, "bad_gateway_rule"));
        let ended = site.warm(&file, &["--yes"]).said("bad_gateway_rule").said("the same command continues from");
        assert_eq!((ended.status, site.stub.count("DELETE /v1/files/")), (Some(1), 0), "{request}");
    }
    site.warm(&file, &[]).well().said("continuing the job").said("1 was fetched, 0 failed");
    site.billed_once(&["one"]);
    site.is_clean();
}

#[tokio::test]
async fn answers_of_another_model_than_live_ones_are_not_imported() {
    let site = Site::new("batch-api-model");
    let file = site.file(&["one"]);
    let other = ["--yes", "--batch-model", "other"];
    let refused = site.warm(&file, &other).said("a live request of").said("nothing was sent");
    assert_eq!((refused.status, site.stub.service().uploads), (Some(1), 0));
    site.stub.service().live_model = Some(super::super::command::TINY);
    let refused = site.warm(&file, &other).said("the batch was answered by other").said("nothing was imported");
    assert_eq!(refused.status, Some(1));
    let live = site.stub.count("POST /v1/embeddings");
    let asked = super::super::command::ask(
        &site.vecho,
        &serde_json::json!({"model": super::super::command::TINY,
        "input": "one"}),
        None,
    )
    .await;
    assert_eq!((asked.status, site.stub.count("POST /v1/embeddings")), (200, live + 1), "it was not cached");
}

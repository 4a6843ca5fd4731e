//! Batches that end in other ways than completely.

use super::job::Site;
use crate::harness::batch_api::{Ending, Refusal};

fn refusal(text: &str) -> Refusal {
    let message = format!("This model's maximum context length is 8192 tokens. {}", "x".repeat(500));
    Refusal { text: text.to_owned(), status: 400, code: "context_length_exceeded", message }
}

#[tokio::test]
async fn a_half_failed_batch_gives_what_succeeded_and_lists_the_rest() {
    let site = Site::new("batch-api-half");
    let file = site.file(&["one", "secret long text", "three"]);
    site.stub.service().refusals.push(refusal("secret long text"));
    let failed = site.warm(&file, &["--yes"]);
    assert_eq!(failed.status, Some(1));
    let failed = failed
        .said("line 2: context_length_exceeded: This model's maximum context length")
        .said("(f1-2-")
        .said("2 were fetched, 1 failed")
        .said("1 input failed; --retry-failed sends them again");
    assert!(!failed.err.contains("secret") && !failed.err.contains(&"x".repeat(300)), "{}", failed.err);
    site.holds(&["one", "three"]).await;
    // Without the option a failed input is not paid for again.
    let again = site.warm(&file, &["--yes"]).said("1 input of an earlier job failed");
    assert_eq!((again.status, site.stub.service().batches.len()), (Some(1), 1));
    site.stub.service().refusals.clear();
    site.warm(&file, &["--yes", "--retry-failed"]).well().said("2 were cached already, 1 was fetched, 0 failed");
    site.holds(&["one", "secret long text", "three"]).await;
    site.billed_once(&["one", "secret long text", "three"]);
    site.is_clean();
}

#[tokio::test]
async fn a_failure_of_an_earlier_job_does_not_fail_a_job_without_that_input() {
    let site = Site::new("batch-api-earlier");
    site.stub.service().refusals.push(refusal("bad"));
    assert_eq!(site.warm(&site.file(&["one", "bad"]), &["--yes"]).said("1 failed").status, Some(1));
    site.warm(&site.file(&["one"]), &["--yes"]).well().said("1 was cached already, 0 were fetched, 0 failed");
    site.is_clean();
}

#[tokio::test]
async fn an_expired_batch_gives_what_was_completed_and_the_rest_can_be_sent_again() {
    for (name, ending, code) in [
        ("batch-api-expired", Ending::Expired(1), "batch_expired"),
        ("batch-api-cancelled", Ending::Cancelled(1), "batch_cancelled"),
    ] {
        let site = Site::new(name);
        let file = site.file(&["one", "two", "three"]);
        site.stub.service().endings.push(ending);
        let ended = site.warm(&file, &["--yes"]).said("1 was fetched, 2 failed");
        let ended = ended.said(&format!("line 2: {code}: ")).said(&format!("line 3: {code}: "));
        assert_eq!(ended.status, Some(1));
        site.holds(&["one"]).await;
        site.warm(&file, &["--yes", "--retry-failed"]).well().said("1 was cached already, 2 were fetched");
        site.billed_once(&["one", "two", "three"]);
        site.holds(&["one", "two", "three"]).await;
    }
}

#[tokio::test]
async fn a_refused_batch_lists_its_inputs_and_does_not_stop_the_others() {
    let site = Site::new("batch-api-refused");
    let file = site.file(&["one", "two", "three"]);
    site.stub.service().endings.push(Ending::Failed { code: "invalid_json_line", message: "This line is not JSON." });
    let ended = site.warm(&file, &["--yes", "--batch-requests", "2"]).said("batch 1 of 2: the service refuses it");
    let ended = ended.said("line 1: invalid_json_line: This line is not JSON.").said("1 was fetched, 2 failed");
    assert_eq!(ended.status, Some(1));
    site.holds(&["three"]).await;
    assert_eq!(site.stub.count("DELETE /v1/files/"), 2, "the refused file is deleted, too");
}

#[tokio::test]
async fn a_batch_over_the_limit_of_enqueued_tokens_is_created_again_later() {
    let site = Site::new("batch-api-enqueued");
    let file = site.file(&["one", "two"]);
    let message = "Enqueued token limit reached for tiny. Please try again once some in_progress batches have ended.";
    let refused = || Ending::Failed { code: "token_limit_exceeded", message };
    site.stub.service().endings.extend([refused(), refused()]);
    let ended = site.warm(&file, &["--yes"]).well().said("it is tried again in").said("Enqueued token limit reached");
    ended.said("2 were fetched, 0 failed");
    site.billed_once(&["one", "two"]);
    let service = site.stub.service();
    assert_eq!((service.uploads, service.batches.len()), (1, 3), "the file is uploaded once");
}

#[tokio::test]
async fn a_batch_that_exceeds_the_limit_of_enqueued_tokens_by_itself_is_divided() {
    let site = Site::new("batch-api-divided");
    let file = site.file(&["a b c d e f", "g h i j k l", "m n o p q r"]);
    let message =
        "Enqueued token limit reached for tiny in organization o. Limit: 9 enqueued tokens. Please try again.";
    site.stub.service().endings.push(Ending::Failed { code: "token_limit_exceeded", message });
    let ended = site.warm(&file, &["--yes"]).well();
    ended.said("limit of 9 enqueued tokens by itself, and is divided into 2 batches").said("3 were fetched, 0 failed");
    site.billed_once(&["a b c d e f", "g h i j k l", "m n o p q r"]);
    site.holds(&["a b c d e f", "g h i j k l", "m n o p q r"]).await;
    site.is_clean();
    assert_eq!(site.stub.service().uploads, 3);
    site.stub.is_content();
}

#[tokio::test]
async fn an_unusable_answer_is_listed_as_failed() {
    let site = Site::new("batch-api-unusable");
    let file = site.file(&["one"]);
    site.stub.service().answers_zeros = true;
    let ended = site.warm(&file, &["--yes"]).said("line 1: unusable: ");
    assert_eq!(ended.said("0 were fetched, 1 failed").status, Some(1));
}

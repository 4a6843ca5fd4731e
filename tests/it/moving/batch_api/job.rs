//! The parts that all tests share, and a job without faults.

use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::json;

use super::super::command::{Ended, NOWHERE, TINY, ask, at, bits, run_with};
use crate::harness::batch_api::BatchStub;
use crate::harness::front::tiny;
use crate::harness::tls::Folder;
use crate::harness::{Stub, Vecho};

/// The test's vecho, its upstream, and a folder for files.
pub(super) struct Site {
    pub(super) stub: BatchStub,
    pub(super) vecho: Vecho,
    pub(super) folder: Folder,
}

impl Site {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// Creates a site whose vecho has further settings.
    pub(super) fn with(name: &str, environment: &[(&str, &str)]) -> Self {
        let stub = BatchStub::start();
        let vecho = Vecho::start_with(&stub.base_url(), &[&[("OPENAI_API_KEY", "sk-own")], environment].concat());
        Self { stub, vecho, folder: Folder::new(name) }
    }

    /// Writes a file of inputs, one per line, and returns its path.
    pub(super) fn file(&self, texts: &[&str]) -> String {
        let lines: Vec<String> = texts.iter().map(|text| json!(text).to_string()).collect();
        self.folder.write("texts.jsonl", lines.join("\n"))
    }

    /// Returns the command line for a file, with the shortest useful interval of polls.
    pub(super) fn arguments(&self, file: &str, more: &[&str]) -> Vec<String> {
        let upstream = self.stub.base_url();
        let own = at(&self.vecho);
        let fixed = ["--upstream", &upstream, "warm", "--batch-api", "--model", TINY, "--poll", "5ms"];
        own.iter()
            .map(String::as_str)
            .chain(fixed)
            .chain(more.iter().copied())
            .chain([file])
            .map(str::to_owned)
            .collect()
    }

    /// Runs the command.
    pub(super) fn warm(&self, file: &str, more: &[&str]) -> Ended {
        let arguments = self.arguments(file, more);
        run_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[("OPENAI_API_KEY", "sk-own")], b"")
    }

    /// Starts the command.
    pub(super) fn spawn(&self, file: &str, more: &[&str]) -> Child {
        let mut command = Vecho::command(&[("OPENAI_API_KEY", "sk-own")]);
        command.args(self.arguments(file, more)).stderr(Stdio::piped());
        command.spawn().expect("the binary must start")
    }

    /// Checks that live requests for these texts are hits in both encodings, and that nothing went upstream for them.
    pub(super) async fn holds(&self, texts: &[&str]) {
        for encoding in ["float", "base64"] {
            let answer =
                ask(&self.vecho, &json!({"model": TINY, "input": texts, "encoding_format": encoding}), None).await;
            assert_eq!(answer.cache(), "hit", "{encoding}: {}", answer.sources());
            assert_eq!(bits(&answer.vectors()), bits(&tiny(texts)), "{encoding}");
        }
        assert_eq!(self.stub.count("POST /v1/embeddings"), 0);
    }

    /// Checks that each of these inputs was billed once, and no other.
    pub(super) fn billed_once(&self, texts: &[&str]) {
        let billed = self.stub.service().billed.clone();
        let mut expected: Vec<(String, usize)> = texts.iter().map(|text| ((*text).to_owned(), 1)).collect();
        expected.sort();
        assert_eq!(billed.into_iter().collect::<Vec<_>>(), expected);
    }

    /// Checks that only the input file is left in the folder, and no uploaded file at the service.
    pub(super) fn is_clean(&self) {
        let left: Vec<String> = names_in(&self.folder.path(""));
        assert_eq!(left, ["texts.jsonl"], "the state and the files of the parts are removed");
        let service = self.stub.service();
        let kept: Vec<&str> = service.files.iter().filter(|file| !file.is_deleted).map(|file| &*file.name).collect();
        assert!(kept.iter().all(|name| ["output", "errors"].contains(name)), "{kept:?}");
    }
}

pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is readable").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_not_cached_is_sent_once_through_the_batch_api_and_becomes_a_hit() {
    let site = Site::new("batch-api");
    let texts = ["one", "two", "three", "two"];
    let file = site.file(&texts);
    let warmed = site.warm(&file, &["--yes"]).well();
    let warmed = warmed.said("sending 3 requests in 1 batch, about ").said("at an unknown price");
    warmed.said("0 were cached already, 3 were fetched, 0 failed; 9 tokens were billed");
    site.holds(&texts).await;
    site.billed_once(&texts[..3]);
    site.is_clean();
    site.stub.is_content();
    site.warm(&file, &["--yes"]).well().said("3 were cached already, 0 were fetched, 0 failed; 0 tokens were billed");
    assert_eq!(site.stub.service().batches.len(), 1, "cached inputs are not sent again");
}

#[tokio::test]
async fn several_files_tokens_and_dimensions_are_sent_as_a_live_request_would_send_them() {
    let site = Site::new("batch-api-files");
    let first = site.folder.write("first.jsonl", "{\"text\":\"one\",\"id\":7}\n[5,6,7]\n");
    let second = site.folder.write("second.txt", "\"quoted\"\n[5,6,7]\n");
    site.warm(&second, &["--yes", "--dimensions", "4", &first]).well().said("4 were fetched");
    for (input, expected) in [
        (json!("one"), Stub::vector(TINY, Some(4), "one")),
        (json!("\"quoted\""), Stub::vector(TINY, Some(4), "\"quoted\"")),
        (json!("[5,6,7]"), Stub::vector(TINY, Some(4), "[5,6,7]")),
        (json!([5, 6, 7]), Stub::vector(TINY, Some(4), [5, 6, 7])),
    ] {
        let answer = ask(&site.vecho, &json!({"model": TINY, "input": input, "dimensions": 4}), None).await;
        assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&[expected])), "{input}");
    }
    let other = ask(&site.vecho, &json!({"model": TINY, "input": "one", "dimensions": 3}), None).await;
    assert_eq!(other.status, 404, "other dimensions are another entry, and the stub has no embeddings");
}

#[tokio::test]
async fn uploaded_files_are_kept_on_request() {
    let site = Site::new("batch-api-keep");
    site.warm(&site.file(&["one"]), &["--yes", "--keep-files"]).well();
    assert_eq!(site.stub.count("DELETE"), 0);
    let kept = site.stub.service().files[0].clone();
    assert!(kept.name.starts_with("vecho-") && !kept.is_deleted, "{kept:?}");
}

#[tokio::test]
async fn vectors_are_stored_in_the_folder_of_a_stopped_vecho() {
    let (stub, folder) = (BatchStub::start(), Folder::new("batch-api-stopped"));
    let (file, path) = (folder.write("texts.txt", "one\ntwo\n"), folder.path("disk"));
    let upstream = stub.base_url();
    let disk = format!("disk.path={}", path.display());
    let place = ["--admin-listen", NOWHERE, "--upstream", &upstream, "--set", &disk];
    let warm = ["warm", "--batch-api", "--yes", "--model", TINY, "--poll", "5ms", &file];
    let environment = [("VECHO_UPSTREAM_API_KEY", "sk-own")];
    run_with(&[&place[..], &warm].concat(), &environment, b"").well().said("2 were fetched");
    run_with(&[&place[..], &warm].concat(), &environment, b"").well().said("2 were cached already, 0 were fetched");
    let vecho = Vecho::start_with(
        &upstream,
        &[("VECHO_UPSTREAM_API_KEY", "sk-own"), ("VECHO_DISK_PATH", path.to_str().expect("the path is text"))],
    );
    let answer = ask(&vecho, &json!({"model": TINY, "input": ["two", "one"]}), None).await;
    assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&tiny(&["two", "one"]))));
    assert_eq!(stub.count("POST /v1/embeddings"), 0);
}

#[tokio::test]
async fn vectors_belong_to_the_key_and_the_namespace_of_the_job() {
    let stub = BatchStub::start();
    let (vecho, folder) = (Vecho::start_with(&stub.base_url(), &[]), Folder::new("batch-api-scope"));
    let file = folder.write("texts.txt", "one\n");
    let (upstream, own) = (stub.base_url(), at(&vecho));
    let fixed = ["--upstream", &upstream, "warm", "--batch-api", "--yes", "--model", TINY, "--poll", "5ms", &file];
    let arguments: Vec<&str> = own.iter().map(String::as_str).chain(fixed).collect();
    run_with(&arguments, &[], b"").said("set OPENAI_API_KEY as the application has it");
    assert!(stub.log().is_empty(), "nothing is sent");
    run_with(&arguments, &[("OPENAI_API_KEY", "sk-app")], b"").well();
    let body = json!({"model": TINY, "input": "one"});
    assert_eq!(ask(&vecho, &body, Some("sk-app")).await.cache(), "hit");
    // The stub has no embeddings, so a miss is answered with 404.
    assert_eq!(ask(&vecho, &body, Some("sk-other")).await.status, 404, "the job belongs to another key");
    let other = [&arguments[..], &["--namespace", "n"]].concat();
    run_with(&other, &[("OPENAI_API_KEY", "sk-app")], b"").well().said("0 were cached already, 1 was fetched");
}

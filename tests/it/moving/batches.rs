//! `vecho import-batch`: import of vectors that a batch job has computed.

use http::Method;
use serde_json::{Value, json};

use super::command::{Ended, NOWHERE, TINY, ask, bits, run_at_with, run_with};
use crate::harness::client::{Client, post, raw};
use crate::harness::tls::Folder;
use crate::harness::{Stub, Vecho};

fn request(custom_id: &str, body: &Value) -> String {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}).to_string()
}

fn answer(custom_id: &str, body: &Value) -> String {
    let response = json!({"status_code": 200, "request_id": "req_1", "body": body});
    json!({"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": null}).to_string()
}

/// Returns an embeddings answer with these vectors, in reverse order.
fn vectors(vectors: &[Vec<f32>]) -> Value {
    let item =
        |(index, vector): (usize, &Vec<f32>)| json!({"object": "embedding", "index": index, "embedding": vector});
    let data: Vec<Value> = vectors.iter().enumerate().rev().map(item).collect();
    let tokens = 3 * vectors.len();
    json!({"object": "list", "data": data, "model": TINY, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
}

/// Returns a vector that no upstream returns, which proves that it came from the file.
fn own(n: u8) -> Vec<f32> {
    (0..8_u8).map(|component| f32::from(component) * 0.1 + f32::from(n) + 0.25).collect()
}

/// Returns a job with two texts in one request, a token array in another, a text in a third, and unusable requests.
fn job(folder: &Folder) -> (String, String) {
    let requests = [
        request("pair", &json!({"model": TINY, "input": ["one", "two"], "encoding_format": "float"})),
        request("tokens", &json!({"model": TINY, "input": [7, 8]})),
        request("three", &json!({"input": "three", "model": TINY})),
        request("failed", &json!({"model": TINY, "input": "failed"})),
        request("short", &json!({"model": TINY, "input": ["short", "er"]})),
        request("twice", &json!({"model": TINY, "input": "first of two"})),
        request("twice", &json!({"model": TINY, "input": "second of two"})),
        request("chat", &json!({"model": TINY, "messages": []})),
    ];
    let refused = json!({"id": "b", "custom_id": "failed", "response": {"status_code": 429, "request_id": "r",
                         "body": {"error": {"message": "no"}}}, "error": null});
    let expired = json!({"id": "b", "custom_id": "late", "response": null, "error": {"code": "batch_expired"}});
    let answers = [
        answer("three", &vectors(&[own(3)])),
        refused.to_string(),
        answer("short", &vectors(&[own(9)])),
        answer("pair", &vectors(&[own(1), own(2)])),
        answer("twice", &vectors(&[own(9)])),
        answer("unknown", &vectors(&[own(9)])),
        answer("chat", &vectors(&[own(9)])),
        expired.to_string(),
        answer("tokens", &vectors(&[own(4)])),
        "{".to_owned(),
    ];
    (folder.write("requests.jsonl", requests.join("\n")), folder.write("output.jsonl", answers.join("\n")))
}

fn import(vecho: &Vecho, job: &(String, String), environment: &[(&str, &str)]) -> Ended {
    run_at_with(vecho, &["import-batch", &job.0, &job.1], environment, b"")
}

/// Checks that live requests are answered with the vectors of the job, without a call.
async fn holds_the_job(vecho: &Vecho, stub: &Stub, key: Option<&str>) {
    for (input, expected) in
        [(json!(["two", "one"]), vec![own(2), own(1)]), (json!("three"), vec![own(3)]), (json!([7, 8]), vec![own(4)])]
    {
        for encoding in ["float", "base64"] {
            let body = json!({"model": TINY, "input": input, "encoding_format": encoding});
            let answer = ask(vecho, &body, key).await;
            assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&expected)), "{input}");
        }
    }
    assert_eq!(stub.calls().len(), 0);
}

#[tokio::test]
async fn an_imported_batch_job_gives_hits_to_the_paying_key() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-credential"));
    let vecho = Vecho::start(&stub);
    let (job, upstream) = (job(&folder), stub.base_url());
    let environment = [("OPENAI_API_KEY", "sk-app"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    let imported = import(&vecho, &job, &environment);
    assert_eq!(imported.status, Some(1), "some lines cannot be used");
    let said = imported
        .said("imported 4 records, skipped 0")
        .said("the output held 4 vectors, 2 lines with errors, and 5 that cannot be used")
        .said("line 3 of the output: it holds another number of vectors than there were inputs")
        .said("line 5 of the output: several requests have its custom_id")
        .said("line 6 of the output: no request has its custom_id")
        .said("line 7 of the output: such a request is not cached (unknown_field; member=\"messages\")")
        .said("line 10 of the output: it is no answer of a batch");
    assert!(!said.err.contains("sk-app"));
    holds_the_job(&vecho, &stub, Some("sk-app")).await;
    for other in [None, Some("sk-other")] {
        let answer = ask(&vecho, &json!({"model": TINY, "input": "three"}), other).await;
        assert_eq!(answer.cache(), "miss", "the job belongs to another key");
    }
    import(&vecho, &job, &environment).said("imported 0 records, skipped 4 (4 already there");
}

#[tokio::test]
async fn of_two_answers_to_one_request_only_the_first_is_imported() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-twice"));
    let vecho = Vecho::start_with(&stub.base_url(), &[("OPENAI_API_KEY", "sk-own")]);
    let requests = [("one", "three"), ("other", "four")];
    let requests = requests.map(|(id, text)| request(id, &json!({"model": TINY, "input": text})));
    let answers = [
        answer("one", &vectors(&[own(3)])),
        answer("one", &vectors(&[own(8)])),
        answer("other", &vectors(&[own(4)])),
        answer("one", &vectors(&[own(3)])),
    ];
    let job = (folder.write("requests.jsonl", requests.join("\n")), folder.write("output.jsonl", answers.join("\n")));
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "sk-own"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    let imported = import(&vecho, &job, &environment);
    assert_eq!(imported.status, Some(1), "some lines cannot be used");
    imported
        .said("imported 2 records")
        .said("line 2 of the output: an earlier line has its custom_id")
        .said("line 4 of the output: an earlier line has its custom_id");
    let answer = ask(&vecho, &json!({"model": TINY, "input": ["three", "four"]}), None).await;
    assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&[own(3), own(4)])));
}

#[tokio::test]
async fn an_imported_batch_job_is_shared_if_vecho_has_its_own_key() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-proxy"));
    let vecho = Vecho::start_with(&stub.base_url(), &[("OPENAI_API_KEY", "sk-own")]);
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "sk-own"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    import(&vecho, &job(&folder), &environment).said("imported 4 records");
    holds_the_job(&vecho, &stub, None).await;
}

#[tokio::test]
async fn a_batch_job_is_refused_if_its_keys_could_not_be_found() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-elsewhere"));
    let vecho = Vecho::start(&stub);
    let environment = [("OPENAI_API_KEY", "sk-app"), ("VECHO_UPSTREAM_URL", "http://elsewhere.example/v1")];
    let refused = import(&vecho, &job(&folder), &environment).said("would look for these vectors under other keys");
    assert_eq!(refused.status, Some(1));
    let upstream = stub.base_url();
    let without = import(&vecho, &job(&folder), &[("VECHO_UPSTREAM_URL", upstream.as_str())]);
    assert_eq!(without.status, Some(1));
    without.said("set OPENAI_API_KEY as the application has it");
}

#[tokio::test]
async fn a_batch_job_is_imported_into_the_folder_of_a_stopped_vecho() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-folder"));
    let (job, upstream) = (job(&folder), stub.base_url());
    let path = format!("disk.path={}", folder.path("disk").display());
    let place = ["--admin-listen", NOWHERE, "--upstream", &upstream, "--set", &path];
    // The scope of the import depends on the holder of the key. An application holds it under its usual name.
    for (name, whose, holder, caller) in [
        ("OPENAI_API_KEY", "applications that send this OPENAI_API_KEY themselves", None, Some("sk-own")),
        ("VECHO_UPSTREAM_API_KEY", "a vecho that holds the key", Some("VECHO_UPSTREAM_API_KEY"), None),
    ] {
        let environment = [(name, "sk-own")];
        let imported = run_with(&[&place[..], &["import-batch", &job.0, &job.1]].concat(), &environment, b"");
        imported.said("imported 4 records").said(whose);
        let file = run_with(&[&place[..], &["export", "-"]].concat(), &environment, b"").well().out;
        let vecho = Vecho::start_with(&upstream, &holder.map(|name| (name, "sk-own")).into_iter().collect::<Vec<_>>());
        run_at_with(&vecho, &["import", "-"], &[], &file).well();
        holds_the_job(&vecho, &stub, caller).await;
        std::fs::remove_dir_all(folder.path("disk")).expect("it is there");
    }
    let said = [("OPENAI_API_KEY", "sk-own"), ("VECHO_CACHE_SCOPE", "proxy")];
    let imported = run_with(&[&place[..], &["import-batch", &job.0, &job.1]].concat(), &said, b"");
    imported.said("imported 4 records").said("a vecho that holds the key");
}

/// Deletes entries of a vecho, and stops it.
async fn purged_and_stopped(vecho: Vecho, query: &str) {
    let url = vecho.ops_url(&format!("/api/performance/cache{query}"));
    let purged = Client::new().send(raw(Method::DELETE, &url, "")).await.expect("the ops port answers");
    assert_eq!(purged.status, 200, "{purged:?}");
    assert!(vecho.stop().status.success());
}

#[tokio::test]
async fn a_purge_since_the_requests_of_a_job_were_written_covers_its_vectors_after_restarts() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-purged"));
    let (job, upstream, path) = (job(&folder), stub.base_url(), folder.path("disk"));
    let path = path.to_str().expect("the path is text");
    let environment = [("OPENAI_API_KEY", "sk-own"), ("VECHO_CACHE_SCOPE", "proxy"), ("VECHO_DISK_PATH", path)];
    let offline = ["--admin-listen", NOWHERE, "--upstream", &upstream, "import-batch", &job.0, &job.1];
    let import = |more: &[&str]| run_with(&[&offline[..], more].concat(), &environment, b"");
    let now = || std::time::UNIX_EPOCH.elapsed().expect("it is later").as_secs();
    purged_and_stopped(Vecho::start_with(&upstream, &environment), "?model=other").await;
    let before = now() - 3_600;
    import(&["--created-at", &before.to_string()]).said("imported 4 records");
    purged_and_stopped(Vecho::start_with(&upstream, &environment), "?model=tiny").await;
    import(&[]).said("imported 0 records, skipped 4").said("4 purged").said("--created-at names the time of its batch");
    import(&["--created-at", &before.to_string()]).said("imported 0 records, skipped 4");
    // A job that was created after the purge has vectors of its own, whenever its requests were written.
    import(&["--created-at", &(now() + 1).to_string()]).said("imported 4 records");
    // Forgets are remembered for as long as entries live, by default 37 days.
    import(&["--created-at", &(now() - 38 * 86_400).to_string()]).said("skipped 4 (0 already there, 4 expired");
}

#[tokio::test]
async fn the_start_of_a_job_is_a_time() {
    let vecho = Vecho::start(&Stub::start());
    let url = vecho.ops_url("/api/performance/cache/import?job_began_ms=yesterday");
    let refused = Client::new().send(raw(Method::POST, &url, "")).await.expect("the ops port answers");
    assert_eq!((refused.status, refused.error().1), (400, json!("invalid_parameter")), "{refused:?}");
}

#[tokio::test]
async fn the_ops_token_and_the_callers_key_are_sent_together() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-token"));
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_ADMIN_TOKEN", "t0ken")]);
    let (job, upstream) = (job(&folder), stub.base_url());
    let explain = async |headers: &[(&'static str, &str)]| {
        let url = vecho.ops_url("/api/performance/cache/explain");
        let mut request = post(&url, &json!({"model": TINY, "input": "one"}));
        request.headers_mut().insert("host", "vecho.example".parse().expect("it is legal"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("it is legal"));
        }
        let answer = Client::new().send(request).await.expect("it is answered");
        (answer.status, answer.json()["inputs"][0]["key"].clone())
    };
    let token = ("x-vecho-admin-token", "t0ken");
    assert_eq!(explain(&[("authorization", "Bearer sk-app")]).await.0, 403);
    assert_eq!(explain(&[("x-vecho-admin-token", "wrong")]).await.0, 403);
    let (allowed, key) = explain(&[token, ("authorization", "Bearer sk-app")]).await;
    assert_eq!(allowed, 200);
    assert_ne!(key, explain(&[token]).await.1, "the key is that of the caller's credential");
    let environment =
        [("OPENAI_API_KEY", "sk-app"), ("VECHO_UPSTREAM_URL", upstream.as_str()), ("VECHO_ADMIN_TOKEN", "t0ken")];
    import(&vecho, &job, &environment).said("imported 4 records");
    holds_the_job(&vecho, &stub, Some("sk-app")).await;
}

#[tokio::test]
async fn swapped_files_of_a_batch_job_are_detected() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-swapped"));
    let vecho = Vecho::start(&stub);
    let (requests, output) = job(&folder);
    let expired = json!({"id": "b", "custom_id": "late", "response": null, "error": {"code": "batch_expired"}});
    let errors = folder.write("errors.jsonl", expired.to_string());
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "sk-app"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    for answers in [output, errors] {
        let swapped = import(&vecho, &(answers, requests.clone()), &environment);
        assert_eq!(swapped.status, Some(1));
        let swapped = swapped.said("are the two files swapped?");
        assert!(!swapped.err.contains("imported"), "{}", swapped.err);
    }
}

#[tokio::test]
async fn base64_of_a_batch_job_is_accepted_only_if_its_dimension_is_proven() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-base64"));
    let vecho = Vecho::start(&stub);
    let bytes: Vec<u8> = own(1).iter().flat_map(|component| component.to_le_bytes()).collect();
    let item = json!({"object": "embedding", "index": 0, "embedding": base64_simd::STANDARD.encode_to_string(bytes)});
    let body = json!({"object": "list", "data": [item], "model": TINY, "usage": {"prompt_tokens": 1}});
    let requests = [
        request("bare", &json!({"model": TINY, "input": "bare", "encoding_format": "base64"})),
        request("wrong", &json!({"model": TINY, "input": "wrong", "encoding_format": "base64", "dimensions": 4})),
        request("right", &json!({"model": TINY, "input": "right", "encoding_format": "base64", "dimensions": 8})),
    ];
    let answers = ["bare", "wrong", "right"].map(|name| answer(name, &body));
    let job = (folder.write("requests.jsonl", requests.join("\n")), folder.write("output.jsonl", answers.join("\n")));
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "k"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    import(&vecho, &job, &environment).said("imported 1 record").said("the output held 1 vector").said("2 that cannot");
    let asked = json!({"model": TINY, "input": "right", "dimensions": 8});
    assert_eq!(bits(&ask(&vecho, &asked, Some("k")).await.vectors()), bits(&[own(1)]));
}

/// Returns a job with one text in each request. The answers have vectors of these lengths, in this order.
fn job_of_lengths(folder: &Folder, lengths: &[usize]) -> (String, String) {
    let number = |place: usize| u8::try_from(place).expect("must be a small job");
    let requests = (0..lengths.len())
        .map(|place| request(&format!("{place}"), &json!({"model": TINY, "input": format!("text {place}")})));
    let answers = lengths.iter().enumerate().map(|(place, length)| {
        let vector = own(number(place)).into_iter().cycle().take(*length).collect();
        answer(&format!("{place}"), &vectors(&[vector]))
    });
    let joined = |lines: Vec<String>| lines.join("\n");
    (
        folder.write("requests.jsonl", joined(requests.collect())),
        folder.write("output.jsonl", joined(answers.collect())),
    )
}

#[tokio::test]
async fn the_most_frequent_length_decides_which_answers_of_a_batch_job_are_imported() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-lengths"));
    let vecho = Vecho::start(&stub);
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "k"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    let job = job_of_lengths(&folder, &[5, 8, 8]);
    import(&vecho, &job, &environment).said("imported 2 records").said("line 1 of the output").said("1 that cannot");
    for place in [1, 2] {
        let answer = ask(&vecho, &json!({"model": TINY, "input": format!("text {place}")}), Some("k")).await;
        assert_eq!((answer.cache(), bits(&answer.vectors())), ("hit", bits(&[own(place)])));
    }
}

#[tokio::test]
async fn no_answer_of_a_batch_job_is_imported_if_two_lengths_are_equally_frequent() {
    let (stub, folder) = (Stub::start(), Folder::new("batch-tie"));
    let vecho = Vecho::start(&stub);
    let upstream = stub.base_url();
    let environment = [("OPENAI_API_KEY", "k"), ("VECHO_UPSTREAM_URL", upstream.as_str())];
    let ended = import(&vecho, &job_of_lengths(&folder, &[5, 8]), &environment);
    assert_eq!(ended.status, Some(1));
    ended.said("the output held 0 vectors").said("2 that cannot").said("as many vectors of 5 components as of 8");
}

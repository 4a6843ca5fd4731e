//! A command that is killed at any point continues, and uploads, creates and pays everything exactly once.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Child;

use super::super::command::run_with;
use super::job::Site;
use crate::harness::batch_api::Moment;

const MORE: &[&str] = &["--yes", "--batch-requests", "2"];

/// Returns three texts that no other run uses.
fn texts(run: &str) -> [String; 3] {
    ["one", "two", "three"].map(|text| format!("{text} {run}"))
}

/// Checks that a job of three texts in two parts had its effects once.
async fn took_effect_once(site: &Site, texts: &[String; 3], run: &str) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    site.holds(&texts).await;
    site.billed_once(&texts);
    site.is_clean();
    site.stub.is_content();
    let mut service = site.stub.service();
    assert_eq!((service.uploads, service.batches.len()), (2, 2), "{run}");
    (service.uploads, service.batches, service.files, service.billed) = Default::default();
}

fn state_of(file: &str) -> PathBuf {
    format!("{file}.batch-state").into()
}

#[tokio::test]
async fn a_kill_before_or_after_any_request_loses_and_repeats_nothing() {
    let site = Site::new("batch-api-kill");
    let mut kills = 0;
    for moment in [Moment::Before, Moment::After] {
        for number in 1.. {
            let run = format!("{moment:?} {number}");
            let texts = texts(&run);
            let file = site.file(&texts.each_ref().map(String::as_str));
            site.stub.kill_at(number, moment);
            let child = site.spawn(&file, MORE);
            site.stub.watch(child.id());
            let ended = child.wait_with_output().expect("it must end");
            let was_killed = site.stub.has_killed();
            assert_eq!(ended.status.success(), !was_killed, "{run}: {}", String::from_utf8_lossy(&ended.stderr));
            if was_killed {
                kills += 1;
                assert!(state_of(&file).exists(), "{run}: the state is there");
                site.warm(&file, MORE).well().said("continuing the job").said("3 were fetched, 0 failed");
            }
            took_effect_once(&site, &texts, &run).await;
            if !was_killed {
                break;
            }
        }
    }
    assert!(kills >= 20, "each request was a moment of a kill: {kills}");
}

#[tokio::test]
async fn a_kill_after_any_write_of_the_state_loses_and_repeats_nothing() {
    let site = Site::new("batch-api-kill-state");
    let mut kills = 0;
    for number in 1.. {
        let run = format!("write {number}");
        let texts = texts(&run);
        let file = site.file(&texts.each_ref().map(String::as_str));
        let mut child = site.spawn(&file, MORE);
        let was_killed = kill_after_write(&mut child, &state_of(&file), number);
        child.wait().expect("it must end");
        if was_killed {
            kills += 1;
            // A draft that a crash has left does not matter.
            std::fs::write(format!("{}.part", state_of(&file).display()), "{").expect("the folder is writable");
            site.warm(&file, MORE).well();
        }
        took_effect_once(&site, &texts, &run).await;
        if !was_killed {
            break;
        }
    }
    assert!(kills >= 10, "each write was a moment of a kill: {kills}");
}

/// Kills a process once its state file was written this often. Returns false if it ended before.
fn kill_after_write(child: &mut Child, state: &PathBuf, number: usize) -> bool {
    let (mut writes, mut last) = (0, None);
    loop {
        let now = std::fs::metadata(state).ok().map(|data| (data.ino(), data.mtime_nsec()));
        if now.is_some() && now != last {
            (writes, last) = (writes + 1, now);
        }
        if writes == number {
            child.kill().expect("it can be killed");
            return true;
        }
        if child.try_wait().expect("a child can be waited for").is_some() {
            return false;
        }
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn two_commands_never_work_on_one_job() {
    let site = Site::new("batch-api-lock");
    let file = site.file(&["one"]);
    site.stub.service().polls = 1_000_000;
    let mut first = site.spawn(&file, &["--yes"]);
    crate::harness::eventually("a batch exists", async || site.stub.count("GET /v1/batches/") > 0).await;
    let second = site.warm(&file, &["--yes"]).said("another process works on the job of");
    assert_eq!(second.status, Some(1));
    let interrupted = std::process::Command::new("kill").args(["-INT", &first.id().to_string()]).status();
    assert!(interrupted.expect("kill must run").success());
    assert_eq!(first.wait().expect("it must end").code(), Some(1));
    site.stub.service().polls = 0;
    site.stub.service().batches.iter_mut().for_each(crate::harness::batch_api::StoredBatch::finish);
    site.warm(&file, &["--yes"]).well().said("continuing the job").said("1 was fetched");
    site.billed_once(&["one"]);
}

#[tokio::test]
async fn an_interrupted_command_names_the_state_from_which_it_continues() {
    let site = Site::new("batch-api-interrupt");
    let file = site.file(&["one"]);
    site.stub.service().polls = 1_000_000;
    let first = site.spawn(&file, &["--yes"]);
    crate::harness::eventually("a batch exists", async || site.stub.count("GET /v1/batches/") > 0).await;
    let interrupted = std::process::Command::new("kill").args(["-INT", &first.id().to_string()]).status();
    assert!(interrupted.expect("kill must run").success());
    let ended = first.wait_with_output().expect("it must end");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("stopped by a signal") && said.contains("texts.jsonl.batch-state"), "{said}");
    assert_eq!(ended.status.code(), Some(1));
}

#[tokio::test]
async fn an_unfinished_job_is_not_mixed_with_another_one() {
    let site = Site::new("batch-api-other");
    let file = site.file(&["one"]);
    site.stub.fail("POST /v1/batches", crate::harness::batch_api::Fault::Status(401, "invalid_api_key"));
    assert_eq!(site.warm(&file, &["--yes"]).said("invalid_api_key").said("the same command continues").status, Some(1));
    for other in [["--dimensions", "4"], ["--namespace", "n"], ["--batch-model", "other"]] {
        let refused = site.warm(&file, &[&["--yes"][..], &other].concat()).said("holds an unfinished job with another");
        assert_eq!(refused.status, Some(1));
    }
    let other_file = site.folder.path("other.jsonl");
    std::fs::write(&other_file, "\"two\"\n").expect("the folder is writable");
    let named_state = state_of(&file).to_str().expect("it is text").to_owned();
    let both = ["--yes", "--state", &named_state, other_file.to_str().expect("it is text")];
    assert_eq!(site.warm(&file, &both).said("holds an unfinished job of other files").status, Some(1));
    std::fs::remove_file(&other_file).expect("it is there");
    // Requests that are missing from the job's own file are never taken for done.
    let requests = format!("{}.1.requests", state_of(&file).display());
    let whole = std::fs::read(&requests).expect("the file of the part is there");
    std::fs::write(&requests, "").expect("the folder is writable");
    assert_eq!(site.warm(&file, &[]).said("holds 0 of its 1 requests").status, Some(1));
    std::fs::write(&requests, whole).expect("the folder is writable");
    site.warm(&file, &[]).well().said("1 was fetched");
    let state = state_of(&file);
    std::fs::write(&state, "{\"format\":").expect("the folder is writable");
    let refused = run_with(&site.arguments(&file, &["--yes"]).iter().map(String::as_str).collect::<Vec<_>>(), &[], b"");
    assert_eq!(refused.said("cannot be used").status, Some(1));
}

//! Fetched entries are still on disk after a restart.

use serde_json::json;

use super::ground::{Ground, SMALL, TINY, assert_right, texts, written};
use crate::harness::client::post;
use crate::harness::{Behaviour, Client, Vecho};

#[tokio::test]
async fn a_restarted_process_serves_both_encodings_from_disk_bit_for_bit() {
    let (ground, texts) = (Ground::new(), texts("kept", 40));
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, SMALL, &texts).await, 0);
    assert!(vecho.stop().status.success());
    ground.stub.down().await;
    for encoding in ["base64", "float"] {
        let vecho = ground.start().await;
        let body = json!({"model": SMALL, "input": texts, "encoding_format": encoding});
        let answer = ground.embed(&vecho, &body).await;
        assert_eq!((answer.cache(), answer.sources()), ("hit", "disk=40"));
        assert_right(&answer, SMALL, &texts);
        let saved = answer.tokens().split("saved=").nth(1).expect("it is told");
        assert_eq!(answer.usage().to_string(), saved);
        let again = ground.embed(&vecho, &body).await;
        assert_eq!(again.sources(), "memory=40", "what was found moved up");
        assert!(vecho.stop().status.success());
    }
    assert_eq!(ground.stub.inputs_sent(), 40);
}

#[tokio::test]
async fn vectors_of_an_older_model_are_not_served_after_a_restart() {
    let (ground, texts, newer) = (Ground::new(), texts("old", 2), texts("new", 1));
    let vecho = ground.start().await;
    ground.stub.always(Behaviour::ModelName("tiny-v1".to_owned()));
    ground.ask(&vecho, TINY, &texts).await;
    ground.stub.always(Behaviour::ModelName("tiny-v2".to_owned()));
    ground.ask(&vecho, TINY, &newer).await;
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &newer).await, 1, "the newer model's is served");
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0, "the older one's are fetched again");
}

#[tokio::test]
async fn a_model_change_seen_by_an_earlier_process_is_remembered() {
    let (ground, old, newer) = (Ground::new(), texts("old", 2), texts("new", 1));
    for (model, texts) in [("tiny-v1", &old), ("tiny-v2", &newer)] {
        let vecho = ground.start().await;
        ground.stub.always(Behaviour::ModelName(model.to_owned()));
        ground.ask(&vecho, TINY, texts).await;
        assert!(vecho.stop().status.success());
    }
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &old).await, 0, "the older model's are fetched again");
    assert_eq!(ground.ask(&vecho, TINY, &newer).await, 1);
}

#[tokio::test]
async fn only_if_cached_never_serves_vectors_of_an_older_model_from_disk() {
    let (ground, old, newer) = (Ground::new(), texts("old", 1), texts("new", 1));
    let vecho = ground.start().await;
    for (model, texts) in [("tiny-v1", &old), ("tiny-v2", &newer)] {
        ground.stub.always(Behaviour::ModelName(model.to_owned()));
        ground.ask(&vecho, TINY, texts).await;
    }
    assert!(vecho.stop().status.success());
    let (vecho, client) = (ground.start().await, Client::new());
    for _ in 0..3 {
        let mut ask = post(&format!("{}/embeddings", vecho.base_url()), &json!({"model": TINY, "input": old}));
        ask.headers_mut().insert("cache-control", "only-if-cached".parse().expect("it is a value"));
        assert_eq!(client.send(ask).await.expect("it must be answered").status, 504);
    }
    assert_eq!(ground.ask(&vecho, TINY, &old).await, 0, "they are fetched again");
}

#[tokio::test]
async fn shutdown_writes_queued_entries() {
    let (ground, texts) = (Ground::new(), texts("late", 500));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    let ended = vecho.stop();
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 500);
}

#[tokio::test]
async fn stats_and_explain_report_the_disk_tier() {
    let (ground, texts) = (Ground::new(), texts("named", 3));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, 3).await;
    drop(vecho);
    let vecho = ground.start().await;
    let stats = ground.stats(&vecho).await;
    assert_eq!((&stats["up"], &stats["entries"], &stats["hits"]), (&json!(true), &json!(3), &json!(0)));
    assert_eq!(stats["capacity_bytes"], 2_u64 << 30);
    let body = json!({"model": TINY, "input": [texts[0], "unknown"]});
    let url = vecho.ops_url("/api/performance/cache/explain");
    let told = crate::harness::Client::new().post(&url, &body).await.json();
    let inputs = &told["inputs"];
    assert_eq!((&inputs[0]["tier"], &inputs[0]["state"]), (&json!("disk"), &json!("fresh")), "{told}");
    assert_eq!(inputs[1]["state"], "missing");
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 3, "to explain moves nothing");
    let lookups =
        crate::harness::ops::metric(vecho.admin(), "vecho_cache_lookup_duration_seconds_count{tier=\"disk\"}");
    assert!(lookups.await >= 1.0);
}

#[tokio::test]
async fn nothing_is_stored_without_the_disk_tier_or_a_folder() {
    let (ground, texts) = (Ground::new(), texts("gone", 3));
    let vecho = ground.start_with(&[("VECHO_DISK_ENABLED", "false")]);
    ground.ask(&vecho, TINY, &texts).await;
    assert!(ground.stats(&vecho).await.is_null());
    assert!(vecho.stop().status.success());
    assert!(!ground.folder.path().exists());
    let homeless = Vecho::start_with(&ground.stub.base_url(), &[("HOME", "")]);
    assert!(!homeless.log().contains("disk tier"), "{}", homeless.log());
}

#[tokio::test]
async fn a_second_process_runs_without_the_folder_until_it_takes_over() {
    let (ground, texts) = (Ground::new(), texts("shared", 8));
    let first = ground.start().await;
    let second = ground.start_with(&[("VECHO_DISK_OFF_FOR", "100ms")]);
    second.logged("another process uses").await;
    assert_eq!(ground.stats(&second).await["up"], json!(false));
    assert_eq!(ground.ask(&second, TINY, &texts).await, 0, "it serves all the same");
    assert_eq!(ground.ask(&first, TINY, &texts).await, 0);
    assert!(first.stop().status.success());
    second.logged("the disk tier is back").await;
    ground.purge(&second, "?tier=memory").await;
    assert_eq!(ground.ask(&second, TINY, &texts).await, 8);
    let log = second.log();
    assert_eq!(log.matches("the disk tier is off").count(), 1, "{log}");
}

#[tokio::test]
async fn the_folder_and_its_files_are_accessible_only_to_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;

    let (ground, texts) = (Ground::new(), texts("private", 10));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    assert!(vecho.stop().status.success());
    let files =
        std::fs::read_dir(ground.folder.path()).expect("it is there").map(|file| file.expect("it is there").path());
    let mut names = Vec::new();
    for path in files.chain([ground.folder.path().to_owned()]) {
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        names.push(path.file_name().expect("it has a name").to_owned());
    }
    assert!(names.len() >= 4, "the folder, its lock, a segment and the purges: {names:?}");
    assert!(!names.iter().any(|name| name == "probe" || name == "purges.new"), "nothing else is left: {names:?}");
}

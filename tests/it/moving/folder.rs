//! Export and import with an instance that does not run: the command opens its folder.

use http::Method;
use vecho::cache::disk::DiskStore;

use super::command::{NOWHERE, embed, is_hit, run, run_at, run_at_with, run_with};
use crate::harness::client::{Client, raw};
use crate::harness::tls::Folder;
use crate::harness::{Stub, Vecho};

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// Runs a command for an instance that does not run, with its folder.
fn stopped(folder: &Folder, arguments: &[&str], input: &[u8]) -> super::command::Ended {
    let path = format!("disk.path={}", folder.path("disk").display());
    run_with(&[&["--admin-listen", NOWHERE, "--set", &path], arguments].concat(), &[], input)
}

#[tokio::test]
async fn a_cache_is_imported_and_exported_offline() {
    let stub = Stub::start();
    let (from, to) = (Vecho::start(&stub), Vecho::start(&stub));
    embed(&from, &TEXTS, "float").await;
    let file = run_at(&from, &["export", "-"]).well().out;
    let folder = Folder::new("stopped");
    stopped(&folder, &["import", "-"], &file).well().said("imported 3 records, skipped 0");
    stopped(&folder, &["import", "-"], &file).well().said("imported 0 records, skipped 3 (3 already there");
    let again = stopped(&folder, &["export", "-"], b"").well().said("exported 3 records").out;
    run_at_with(&to, &["import", "-"], &[], &again).well().said("imported 3 records");
    is_hit(&to, &stub, &TEXTS).await;
}

#[tokio::test]
async fn a_folder_in_use_by_another_process_is_reported() {
    let folder = Folder::new("locked");
    let _held = DiskStore::open(&folder.path("disk"), 64 << 20).expect("the folder is free");
    for command in ["export", "import"] {
        let refused = stopped(&folder, &[command, "-"], b"").said("another process uses").said("no vecho runs");
        assert_eq!(refused.status, Some(1));
    }
}

#[tokio::test]
async fn an_export_without_an_instance_or_folder_fails() {
    let refused = run(&["--admin-listen", NOWHERE, "--set", "disk.enabled=false", "export", "-"]);
    let refused = refused.said("no vecho runs at admin_listen").said("has no disk tier");
    assert_eq!((refused.status, refused.out.len()), (Some(1), 0));
}

#[tokio::test]
async fn an_export_from_a_missing_folder_fails_and_creates_nothing() {
    let folder = Folder::new("no-tier");
    let (path, file) = (folder.path("disk"), folder.path("cache.vecho"));
    let refused = stopped(&folder, &["export", file.to_str().expect("the path is text")], b"");
    assert_eq!(refused.status, Some(1));
    refused.said(&format!("there is no disk tier at {}", path.display()));
    assert!(!path.exists() && !file.exists());
}

#[tokio::test]
async fn an_export_contains_records_of_memory_and_disk_once() {
    let (stub, folder) = (Stub::start(), Folder::new("both-tiers"));
    let path = folder.path("disk");
    let environment = [("CACHE_MAX_SIZE", "10"), ("VECHO_DISK_PATH", path.to_str().expect("the path is text"))];
    let (from, to) = (Vecho::start_with(&stub.base_url(), &environment), Vecho::start(&stub));
    let texts: Vec<String> = (0..100).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    embed(&from, &texts, "float").await;
    let file = run_at(&from, &["export", "-"]).well().said("exported 100 records").out;
    run_at_with(&to, &["import", "-"], &[], &file).well().said("imported 100 records");
    is_hit(&to, &stub, &texts).await;
}

#[tokio::test]
async fn imported_records_survive_a_restart_even_after_a_purge() {
    let (stub, folder) = (Stub::start(), Folder::new("outlives"));
    let path = folder.path("disk");
    let environment = [("VECHO_DISK_PATH", path.to_str().expect("the path is text"))];
    let from = Vecho::start(&stub);
    embed(&from, &TEXTS, "float").await;
    let file = run_at(&from, &["export", "-"]).well().out;
    let to = Vecho::start_with(&stub.base_url(), &environment);
    for _ in 0..2 {
        embed(&to, &TEXTS, "float").await;
        let purge = raw(Method::DELETE, &to.ops_url("/api/performance/cache?model=tiny"), "");
        assert_eq!(Client::new().send(purge).await.expect("it answers").status, 200);
    }
    run_at_with(&to, &["import", "-"], &[], &file).well().said("imported 3 records");
    assert!(to.stop().status.success());
    let again = Vecho::start_with(&stub.base_url(), &environment);
    is_hit(&again, &stub, &TEXTS).await;
    run_at_with(&again, &["import", "-"], &[], &file).well().said("imported 0 records, skipped 3 (3 already there");
}

#[tokio::test]
async fn an_offline_import_keeps_the_purges_of_its_folder() {
    let (stub, folder) = (Stub::start(), Folder::new("purged-folder"));
    let path = folder.path("disk");
    let environment = [("VECHO_DISK_PATH", path.to_str().expect("the path is text"))];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    embed(&vecho, &TEXTS, "float").await;
    let file = run_at(&vecho, &["export", "-"]).well().out;
    let purge = raw(Method::DELETE, &vecho.ops_url("/api/performance/cache"), "");
    assert_eq!(Client::new().send(purge).await.expect("it answers").status, 200);
    assert!(vecho.stop().status.success());
    stopped(&folder, &["export", "-"], b"").well().said("exported 0 records");
    stopped(&folder, &["import", "-"], &file).well().said("imported 3 records");
    let again = Vecho::start_with(&stub.base_url(), &environment);
    is_hit(&again, &stub, &TEXTS).await;
}

#[tokio::test]
async fn purged_records_still_on_disk_are_not_exported() {
    let (stub, folder) = (Stub::start(), Folder::new("purged-model"));
    let path = folder.path("disk");
    let environment = [("VECHO_DISK_PATH", path.to_str().expect("the path is text"))];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    embed(&vecho, &TEXTS, "float").await;
    run_at(&vecho, &["export", "-"]).well().said("exported 3 records");
    let purge = raw(Method::DELETE, &vecho.ops_url("/api/performance/cache?model=tiny"), "");
    assert_eq!(Client::new().send(purge).await.expect("it answers").status, 200);
    let entries = crate::harness::ops::metric(vecho.admin(), r#"vecho_cache_entries{tier="disk"}"#).await;
    assert!(entries >= 3.0, "{entries} are there, with the count from before the purge");
    run_at(&vecho, &["export", "-"]).well().said("exported 0 records");
    assert!(vecho.stop().status.success());
    stopped(&folder, &["export", "-"], b"").well().said("exported 0 records");
}

//! A failing disk fails no request: the tier turns itself off, logs this once, and turns on again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;
use vecho::cache::{AtRest, LowerTier as _};
use vecho::key::{KeyBuilder, Tag};

use super::ground::{Folder, Ground, SMALL, TINY, texts, written};
use crate::harness::Client;

const OFF: &str = "the disk tier is off";
const BACK: &str = "the disk tier is back";
const SOON: (&str, &str) = ("VECHO_DISK_OFF_FOR", "200ms");

/// A small file system of its own.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path) -> Self {
        std::fs::create_dir_all(path).expect("it can be made");
        run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs"], path);
        Self(path)
    }

    fn grow(&self) {
        run("mount", &["-o", "remount,size=64m"], self.0);
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // A lazy unmount succeeds even while processes have open files on it.
        Command::new("umount").arg("-l").arg(self.0).status().expect("umount must run");
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let ran = Command::new(program).args(arguments).arg(path).status();
    let ran = ran.unwrap_or_else(|error| panic!("{program} must run: {error}"));
    assert!(ran.success(), "this test mounts a small tmpfs: run it as root, in a container with CAP_SYS_ADMIN");
}

#[tokio::test]
async fn a_full_disk_fails_no_request_and_the_tier_recovers_when_space_is_free() {
    let (ground, texts) = (Ground::new(), texts("full", 2_000));
    let small = Small::mount(ground.folder.path());
    let vecho = ground.start_with(&[SOON]);
    ground.ask(&vecho, SMALL, &texts).await;
    vecho.logged(OFF).await;
    assert!(vecho.log().contains("No space left on device"), "{}", vecho.log());
    let stats = ground.stats(&vecho).await;
    assert!(stats["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{stats}");
    small.grow();
    vecho.logged(BACK).await;
    assert!(!ground.folder.path().join("probe").exists(), "the file that tries whether there is room is removed");
    let more = super::ground::texts("more", 100);
    let before = super::ground::entries(&ground, &vecho).await;
    assert!(before > 100, "what was there is there again: {before}");
    ground.ask(&vecho, SMALL, &more).await;
    written(&vecho, before + 100).await;
    let [off, back] = [OFF, BACK].map(|said| vecho.log().matches(said).count());
    assert_eq!((off, back), (1, 1), "{}", vecho.log());
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, SMALL, &more).await, 100);
    drop(vecho);
}

#[tokio::test]
async fn a_purge_on_a_full_disk_is_kept_after_a_kill() {
    let (ground, texts) = (Ground::new(), texts("full", 2_000));
    let _small = Small::mount(ground.folder.path());
    let vecho = ground.start_with(&[("VECHO_DISK_OFF_FOR", "10m")]);
    ground.ask(&vecho, SMALL, &texts).await;
    vecho.logged(OFF).await;
    // Fills the disk completely, so the note of the purge cannot be written.
    let rest =
        Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}/rest", ground.folder.text())).output();
    assert!(!rest.expect("dd must run; it is part of coreutils").status.success(), "dd must run out of room");
    ground.purge(&vecho, "?model=text-embedding-3-small").await;
    vecho.signal("KILL");
    vecho.ended();
    std::fs::remove_file(ground.folder.path().join("rest")).expect("it is there");
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, SMALL, &texts).await, 0);
    drop(vecho);
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_logged_once_until_it_is_replaced() {
    let (ground, texts) = (Ground::new(), texts("file", 20));
    std::fs::write(ground.folder.path(), "in the way").expect("it can be written");
    let vecho = ground.start_with(&[SOON]);
    vecho.logged(OFF).await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    assert_eq!(ground.stats(&vecho).await["up"], json!(false));
    assert_eq!(ground.stats(&vecho).await["dropped"], 20);
    let health = Client::new().get(&vecho.ops_url("/api/performance/health")).await.json();
    let cause = ground.stats(&vecho).await["cause"].as_str().expect("it is known").to_owned();
    assert!(cause.contains(ground.folder.text()), "{cause}");
    assert_eq!(health["warnings"], json!([format!("the disk tier is down: {cause}")]));
    ground.purge(&vecho, "").await;
    std::fs::remove_file(ground.folder.path()).expect("it is there");
    vecho.logged(BACK).await;
    assert_eq!(ground.stats(&vecho).await["cause"], json!(null), "nothing is wrong any more");
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    written(&vecho, 20).await;
    assert_eq!(vecho.log().matches(OFF).count(), 1, "{}", vecho.log());
}

#[tokio::test]
async fn a_folder_that_cannot_be_created_fails_no_request() {
    let (ground, texts) = (Ground::new(), texts("nowhere", 20));
    let vecho = ground.start_with(&[("VECHO_DISK_PATH", "/proc/vecho"), SOON]);
    vecho.logged(OFF).await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    assert!(vecho.stop().status.success());
}

#[tokio::test]
async fn an_unreadable_folder_fails_no_request_and_is_used_once_readable() {
    let (ground, texts) = (Ground::new(), texts("unreadable", 20));
    // Root can read any file, but cannot read a folder as a file.
    let unreadable = ground.folder.path().join("purges");
    std::fs::create_dir_all(&unreadable).expect("it can be made");
    let vecho = ground.start_with(&[SOON]);
    vecho.logged(OFF).await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    std::fs::remove_dir(&unreadable).expect("it is there");
    vecho.logged(BACK).await;
    ground.ask(&vecho, TINY, &super::ground::texts("readable", 20)).await;
    written(&vecho, 20).await;
    assert!(vecho.stop().status.success());
}

#[tokio::test]
async fn a_folder_that_disappears_is_created_again() {
    let (ground, texts) = (Ground::new(), texts("vanishes", 20));
    let vecho = ground.start_with(&[SOON, ("VECHO_DISK_MAX_MB", "16")]);
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, 20).await;
    std::fs::remove_dir_all(ground.folder.path()).expect("it is there");
    // Files that are already open still exist, but the next one cannot be created.
    ground.ask(&vecho, SMALL, &super::ground::texts("much", 1_000)).await;
    vecho.logged(OFF).await;
    vecho.logged(BACK).await;
    ground.ask(&vecho, TINY, &super::ground::texts("after", 30)).await;
    written(&vecho, 30).await;
}

#[tokio::test]
async fn a_purge_on_a_read_only_disk_is_applied_once_it_is_writable() {
    let (ground, texts) = (Ground::new(), texts("kept", 20));
    let small = Small::mount(ground.folder.path());
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, 20).await;
    assert!(vecho.stop().status.success());
    run("mount", &["-o", "remount,ro"], small.0);
    let vecho = ground.start_with(&[SOON]);
    vecho.logged(OFF).await;
    assert_eq!(ground.purge(&vecho, "").await["pending"], json!(["disk"]));
    run("mount", &["-o", "remount,rw"], small.0);
    vecho.logged(BACK).await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    drop(vecho);
}

#[tokio::test]
async fn a_read_only_disk_turns_the_tier_off() {
    let (ground, texts) = (Ground::new(), texts("read-only", 20));
    let small = Small::mount(ground.folder.path());
    run("mount", &["-o", "remount,ro"], small.0);
    let vecho = ground.start_with(&[SOON]);
    vecho.logged(OFF).await;
    assert!(vecho.log().contains("Read-only file system"), "{}", vecho.log());
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    let purged = ground.purge(&vecho, "").await;
    assert_eq!(purged["pending"], json!(["disk"]), "no medium takes it, and nobody is told otherwise");
    assert_eq!(ground.purge(&vecho, "?tier=disk").await["pending"], json!(["disk"]), "the tier alone likewise");
    run("mount", &["-o", "remount,rw"], small.0);
    vecho.logged(BACK).await;
    drop(vecho);
}

/// The runtime has one blocking thread. The test occupies it, so no read can finish.
#[test]
fn a_hanging_read_times_out_and_turns_the_tier_off() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().expect("it can be built");
    let hang = async {
        let folder = Folder::new();
        let tier = super::bounds::tier(&folder).await;
        let key = KeyBuilder::new(None).part(Tag::Text, b"held").finish();
        let entry = AtRest { bytes: Bytes::from_static(b"value"), until_ms: u64::MAX };
        tier.put(key, entry.clone());
        tier.drained().await;
        assert_eq!(tier.get(&[key]).await, [Some(entry.bytes)]);
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let hanging = tokio::task::spawn_blocking(move || held.recv());
        let begun = Instant::now();
        assert_eq!(tier.get(&[key]).await, [None], "what cannot be read is a miss");
        assert!((2..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(tier.get(&[key]).await, [None]);
        assert!(begun.elapsed() < Duration::from_secs(1), "nothing asks it any more: {:?}", begun.elapsed());
        let stats = tier.stats();
        assert_eq!((stats.up, stats.cause.as_deref()), (false, Some("reading takes too long")));
        drop(let_go);
        hanging.await.expect("it does not panic").expect_err("the other end is gone");
    };
    runtime.block_on(async { timeout(Duration::from_secs(30), hang).await }).expect("a read must be bounded in time");
}

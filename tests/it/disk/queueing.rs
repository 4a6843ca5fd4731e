//! The write queue of the disk tier: queued entries are served, and entries that do not fit are dropped and counted.

use std::process::Command;

use serde_json::json;

use super::ground::{Ground, SMALL, TINY, texts, written};
use crate::harness::Vecho;

/// A disk tier whose opening blocks on its purge note until the test releases it.
struct Held<'a> {
    ground: &'a Ground,
}

impl<'a> Held<'a> {
    fn new(ground: &'a Ground) -> Self {
        std::fs::create_dir_all(ground.folder.path()).expect("it can be made");
        let note = ground.folder.path().join("purges");
        std::fs::remove_file(&note).ok();
        let made = Command::new("mkfifo").arg(note).status();
        assert!(made.expect("mkfifo must run; it is part of coreutils").success());
        Self { ground }
    }

    /// Releases the tier. The reader of the note gets an end of file at once, and the invalid note is replaced.
    async fn let_go(self) {
        let note = self.ground.folder.path().join("purges");
        let opened = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(note));
        drop(opened.await.expect("it does not panic").expect("it opens once somebody reads"));
    }
}

fn start(ground: &Ground, environment: &[(&str, &str)]) -> Vecho {
    let vecho = ground.start_with(environment);
    assert!(!vecho.log().contains("the disk tier is open"), "a start does not wait for it");
    vecho
}

#[tokio::test]
async fn queued_entries_are_found_before_they_are_on_disk() {
    let (ground, texts) = (Ground::new(), texts("waiting", 20));
    let held = Held::new(&ground);
    let vecho = start(&ground, &[]);
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    ground.purge(&vecho, "?tier=memory").await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 20);
    assert_eq!(ground.stub.inputs_sent(), 20);
    assert_eq!(ground.stats(&vecho).await["up"], json!(false), "nothing can be written yet");
    held.let_go().await;
    written(&vecho, 20).await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 20);
}

#[tokio::test]
async fn a_hanging_disk_does_not_delay_shutdown() {
    let (ground, texts) = (Ground::new(), texts("hanging", 20));
    let _held = Held::new(&ground);
    let vecho = start(&ground, &[("VECHO_SHUTDOWN_GRACE", "300ms")]);
    ground.ask(&vecho, TINY, &texts).await;
    let ended = vecho.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("unwritten=20"), "{}", ended.log);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_entries() {
    let (ground, texts) = (Ground::new(), texts("too many", 800));
    let held = Held::new(&ground);
    let vecho = start(&ground, &[("VECHO_DISK_QUEUE_MB", "1")]);
    ground.ask(&vecho, SMALL, &texts).await;
    let dropped = ground.stats(&vecho).await["dropped"].as_u64().expect("it is a number");
    assert!((400..800).contains(&dropped), "{dropped}");
    held.let_go().await;
    let left = 800 - usize::try_from(dropped).expect("it is small");
    written(&vecho, left).await;
    ground.purge(&vecho, "?tier=memory").await;
    assert_eq!(ground.ask(&vecho, SMALL, &texts).await, left);
}

#[tokio::test]
async fn a_purge_before_the_store_is_open_is_applied() {
    let (ground, texts) = (Ground::new(), texts("early", 10));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    assert!(vecho.stop().status.success());
    let held = Held::new(&ground);
    let vecho = start(&ground, &[]);
    let mut purge = Box::pin(ground.purge(&vecho, "?model=tiny"));
    let other_questions = async {
        for _ in 0..20 {
            ground.stats(&vecho).await;
        }
    };
    tokio::select! {
        told = &mut purge => panic!("it cannot be noted yet: {told}"),
        () = other_questions => {}
    }
    held.let_go().await;
    let purged = purge.await;
    assert_eq!(purged["model"], "tiny");
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
}

#[tokio::test]
async fn a_purge_on_a_hanging_disk_is_reported_as_pending_and_applied_later() {
    let (ground, texts) = (Ground::new(), texts("hung", 10));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    assert!(vecho.stop().status.success());
    let held = Held::new(&ground);
    let vecho = start(&ground, &[]);
    let purged = ground.purge(&vecho, "").await;
    assert_eq!(purged["pending"], json!(["disk"]));
    assert!(purged["warning"].as_str().is_some_and(|said| said.contains("may be served again")), "{purged}");
    held.let_go().await;
    vecho.logged("the disk tier is open").await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
}

//! Purged entries do not come back, regardless of how the process ends.

use bytes::Bytes;
use serde_json::json;
use vecho::cache::{AtRest, LowerTier as _};
use vecho::key::{KeyBuilder, Tag};

use super::ground::{Folder, Ground, TINY, texts, written};
use crate::harness::Vecho;

async fn filled(ground: &Ground, texts: &[String]) -> Vecho {
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, texts).await;
    written(&vecho, texts.len()).await;
    vecho
}

#[tokio::test]
async fn purged_entries_do_not_return_after_a_restart() {
    let (ground, texts) = (Ground::new(), texts("purged", 50));
    let vecho = filled(&ground, &texts).await;
    ground.purge(&vecho, "").await;
    assert_eq!(ground.stats(&vecho).await["entries"], 0, "the room is free at once");
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 50, "what was fetched since is kept");
}

#[tokio::test]
async fn purged_entries_do_not_return_after_a_kill() {
    for (round, query) in ["", "?model=tiny", "?tier=disk"].into_iter().enumerate() {
        let (ground, texts) = (Ground::new(), texts(&format!("killed {round}"), 50));
        let vecho = filled(&ground, &texts).await;
        ground.purge(&vecho, query).await;
        vecho.signal("KILL");
        vecho.ended();
        let vecho = ground.start().await;
        assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0, "{query:?}");
    }
}

#[tokio::test]
async fn queued_entries_are_purged_like_stored_ones() {
    for query in ["", "?model=tiny", "?tier=disk"] {
        let (ground, texts) = (Ground::new(), texts("queued", 200));
        let vecho = ground.start().await;
        ground.ask(&vecho, TINY, &texts).await;
        ground.purge(&vecho, query).await;
        assert!(vecho.stop().status.success());
        let vecho = ground.start().await;
        assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0, "{query:?}");
    }
}

#[tokio::test]
async fn a_purge_of_one_model_keeps_the_entries_of_others_on_disk() {
    let (ground, texts) = (Ground::new(), texts("models", 20));
    let vecho = filled(&ground, &texts).await;
    ground.ask(&vecho, "other", &texts).await;
    written(&vecho, 40).await;
    ground.purge(&vecho, "?model=other").await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, "other", &texts).await, 0);
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 20);
}

#[tokio::test]
async fn purge_counts_add_up_over_many_restarts() {
    let (ground, texts) = (Ground::new(), texts("again", 10));
    for round in 0..3 {
        let vecho = ground.start().await;
        assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0, "round {round}");
        written(&vecho, 10).await;
        ground.purge(&vecho, if round == 1 { "" } else { "?model=tiny" }).await;
        vecho.signal("KILL");
        vecho.ended();
    }
}

#[tokio::test]
async fn the_disk_tier_can_be_cleared_alone() {
    let (ground, texts) = (Ground::new(), texts("alone", 30));
    let vecho = filled(&ground, &texts).await;
    let told = ground.purge(&vecho, "?tier=disk").await;
    assert_eq!(told, json!({"purged_entries": 30, "model": null, "tier": "disk", "pending": []}));
    assert!(ground.folder.segments().is_empty());
    let answer = ground.embed(&vecho, &json!({"model": TINY, "input": texts})).await;
    assert_eq!(answer.sources(), "memory=30", "memory keeps what it has");
}

/// Starts two processes on one folder. The second one waits for the first one to end.
async fn two(ground: &Ground, texts: &[String]) -> (Vecho, Vecho) {
    let first = filled(ground, texts).await;
    let second = ground.start_with(&[("VECHO_DISK_OFF_FOR", "100ms")]);
    second.logged("another process uses").await;
    (first, second)
}

async fn assert_gone_for_the_second(ground: &Ground, (first, second): (Vecho, Vecho), texts: &[String]) {
    assert!(first.stop().status.success());
    second.logged("the disk tier is back").await;
    assert_eq!(ground.ask(&second, TINY, texts).await, 0);
}

#[tokio::test]
async fn a_process_that_takes_over_a_folder_applies_the_purges_of_the_previous_one() {
    let (ground, texts) = (Ground::new(), texts("known", 20));
    let both = two(&ground, &texts).await;
    ground.purge(&both.0, "?model=tiny").await;
    assert_gone_for_the_second(&ground, both, &texts).await;
}

#[tokio::test]
async fn a_purge_made_while_waiting_for_the_folder_applies_after_the_takeover() {
    let (ground, texts) = (Ground::new(), texts("waits", 20));
    let both = two(&ground, &texts).await;
    // The first process has counted as many purges as the second one will have, and its entries are newer.
    ground.purge(&both.0, "?model=tiny").await;
    ground.ask(&both.0, TINY, &super::ground::texts("younger", 20)).await;
    written(&both.0, 40).await;
    ground.purge(&both.1, "?model=tiny").await;
    assert_eq!(ground.stats(&both.0).await["entries"], 40, "the folder is the other one's");
    assert_gone_for_the_second(&ground, both, &super::ground::texts("younger", 20)).await;
}

#[tokio::test]
async fn damage_to_the_file_of_purges_purges_everything() {
    let (ground, texts) = (Ground::new(), texts("note", 10));
    let vecho = ground.start().await;
    ground.purge(&vecho, "").await;
    ground.ask(&vecho, TINY, &texts).await;
    assert!(vecho.stop().status.success());
    let note = ground.folder.path().join("purges");
    let mut bytes = std::fs::read(&note).expect("purges are noted");
    bytes[16] ^= 1;
    std::fs::write(&note, bytes).expect("it can be written");
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
}

#[tokio::test]
async fn a_missing_file_of_purges_drops_all_entries() {
    let (ground, texts) = (Ground::new(), texts("lost note", 200));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    ground.purge(&vecho, "?model=tiny").await;
    assert!(vecho.stop().status.success());
    let note = ground.folder.path().join("purges");
    std::fs::remove_file(&note).expect("purges are noted");
    let vecho = ground.start().await;
    vecho.logged("its file of purges is missing").await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0, "purged entries do not return");
    // Entries that are written after the purge are kept.
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 200);
}

#[tokio::test]
async fn the_file_of_purges_is_created_before_the_first_entry() {
    let (ground, texts) = (Ground::new(), texts("first", 20));
    let vecho = ground.start().await;
    assert!(ground.folder.path().join("purges").is_file() && ground.folder.segments().is_empty());
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, 20).await;
    vecho.signal("KILL");
    vecho.ended();
    assert_eq!(ground.ask(&ground.start().await, TINY, &texts).await, 20);
}

/// A runtime with one thread for work that blocks: what is written goes there after the store was emptied.
#[test]
fn queued_entries_are_not_written_after_the_tier_was_cleared() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().expect("it can be built");
    runtime.block_on(async {
        let folder = Folder::new();
        let tier = super::bounds::tier(&folder).await;
        let key = KeyBuilder::new(None).part(Tag::Text, b"waits").finish();
        tier.put(key, AtRest { bytes: Bytes::from_static(b"value"), until_ms: u64::MAX });
        tier.clear().await;
        tier.drained().await;
        assert_eq!(tier.get(&[key]).await, [None]);
        assert_eq!(tier.stats().entries, 0);
    });
}

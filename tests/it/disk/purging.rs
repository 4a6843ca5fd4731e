//! What was purged does not come back, however the process ends.

use serde_json::json;

use super::ground::{Ground, TINY, texts, written};

async fn filled(ground: &Ground, texts: &[String]) -> crate::harness::Vecho {
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, texts).await;
    written(&vecho, texts.len()).await;
    vecho
}

#[tokio::test]
async fn nothing_comes_back_after_a_purge_and_a_restart() {
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
async fn nothing_comes_back_after_a_purge_and_a_kill() {
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
async fn what_waits_to_be_written_is_purged_like_the_rest() {
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
async fn a_purge_of_one_model_leaves_the_others() {
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
async fn purges_add_up_over_many_restarts() {
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
async fn the_tier_alone_can_be_emptied() {
    let (ground, texts) = (Ground::new(), texts("alone", 30));
    let vecho = filled(&ground, &texts).await;
    let told = ground.purge(&vecho, "?tier=disk").await;
    assert_eq!(told, json!({"purged_entries": 30, "model": null, "tier": "disk"}));
    assert!(ground.folder.segments().is_empty());
    let answer = ground.embed(&vecho, &json!({"model": TINY, "input": texts})).await;
    assert_eq!(answer.sources(), "memory=30", "memory keeps what it has");
}

#[tokio::test]
async fn damage_to_the_note_of_purges_purges_everything() {
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

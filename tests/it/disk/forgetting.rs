//! Forgotten inputs do not come back from the disk, however the process ends, and their vectors leave the files.

use serde_json::{Value, json};

use super::ground::{Ground, TINY, texts, written};
use crate::forgetting::forget;
use crate::harness::{Stub, Vecho};

async fn filled(ground: &Ground, texts: &[String]) -> Vecho {
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, texts).await;
    written(&vecho, texts.len()).await;
    vecho
}

/// Forgets texts, and returns the number of entries that left the disk.
async fn forgets(vecho: &Vecho, texts: &[String]) -> Value {
    let answer = forget(vecho.admin(), &[], &json!({"model": TINY, "input": texts})).await;
    assert_eq!((answer.status, &answer.json()["pending"]), (200, &json!([])), "{answer:?}");
    answer.json()["removed_entries"]["disk"].clone()
}

#[tokio::test]
async fn forgotten_inputs_do_not_return_after_a_stop_or_a_kill() {
    for signal in ["TERM", "KILL"] {
        let (ground, texts) = (Ground::new(), texts(&format!("forgotten {signal}"), 50));
        let vecho = filled(&ground, &texts).await;
        assert_eq!(forgets(&vecho, &texts[..10]).await, 10);
        vecho.signal(signal);
        vecho.ended();
        let vecho = ground.start().await;
        assert_eq!(ground.ask(&vecho, TINY, &texts).await, 40, "{signal}: the others stay");
        vecho.signal(signal);
        vecho.ended();
        let vecho = ground.start().await;
        assert!(ground.ask(&vecho, TINY, &texts).await >= 40, "{signal}");
    }
}

#[tokio::test]
async fn entries_that_were_fetched_after_a_forget_survive_a_restart() {
    let (ground, texts) = (Ground::new(), texts("fetched again", 20));
    let vecho = filled(&ground, &texts).await;
    assert_eq!(forgets(&vecho, &texts).await, 20);
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 20);
    assert_eq!(forgets(&vecho, &texts[..5]).await, 5, "they can be forgotten again");
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 15);
}

#[tokio::test]
async fn queued_entries_are_forgotten_like_stored_ones() {
    let (ground, texts) = (Ground::new(), texts("queued", 200));
    let vecho = ground.start().await;
    ground.ask(&vecho, TINY, &texts).await;
    forgets(&vecho, &texts).await;
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
}

#[tokio::test]
async fn the_vectors_of_forgotten_inputs_are_overwritten_on_disk() {
    let (ground, texts) = (Ground::new(), texts("erased", 3));
    let vecho = ground.start_with(&[("VECHO_CACHE_CODEC", "f32")]);
    vecho.logged("the disk tier is open").await;
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, texts.len()).await;
    let held = |text: &String| {
        let vector: Vec<u8> = Stub::vector(TINY, None, text).iter().flat_map(|number| number.to_le_bytes()).collect();
        let in_file = |bytes: Vec<u8>| bytes.windows(vector.len()).any(|part| part == vector);
        ground.folder.segments().iter().any(|path| in_file(std::fs::read(path).expect("it can be read")))
    };
    assert_eq!(texts.iter().map(held).collect::<Vec<_>>(), [true; 3]);
    forgets(&vecho, &texts[..2]).await;
    assert_eq!(texts.iter().map(held).collect::<Vec<_>>(), [false, false, true]);
}

//! Forgotten inputs do not come back from the disk, however the process ends, and their vectors leave the files.

use serde_json::{Value, json};

use super::ground::{Ground, TINY, texts, written};
use crate::forgetting::forget;
use crate::harness::{Stub, Vecho, eventually};

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

#[tokio::test]
async fn a_forget_that_the_disk_cannot_record_is_never_acknowledged_and_names_the_disk() {
    let (ground, texts) = (Ground::new(), texts("unrecorded", 20));
    let vecho = ground.start_with(&[("VECHO_DISK_OFF_FOR", "200ms")]);
    ground.ask(&vecho, TINY, &texts).await;
    written(&vecho, 20).await;
    // The name of the new file of purges is taken, so none can be written.
    let taken = ground.folder.path().join("purges.new");
    std::fs::create_dir(&taken).expect("the folder is writable");
    let body = json!({"model": TINY, "input": texts[..5]});
    for round in 0..3 {
        let answer = forget(vecho.admin(), &[], &body).await;
        let said = answer.json();
        assert_eq!((answer.status, &said["pending"]), (202, &json!(["disk"])), "{round}: {answer:?}");
        let warning = said["warning"].as_str().unwrap_or_default();
        assert!(warning.contains("The disk tier cannot record the purge yet."), "{round}: {warning}");
        assert!(warning.contains("may be served again"), "{round}: {warning}");
        // The next forget finds the tier off, or on its way back.
        vecho.logged("the disk tier is off").await;
    }
    assert_eq!(ground.ask(&vecho, TINY, &texts[..5]).await, 0, "this process serves none of them");
    std::fs::remove_dir(&taken).expect("it is empty");
    eventually("the disk records a forget", async || forget(vecho.admin(), &[], &body).await.status == 200).await;
    vecho.signal("KILL");
    vecho.ended();
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts[..5]).await, 0);
}

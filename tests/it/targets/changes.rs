//! A change of the model at all targets.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Group, is_canary, other_weights};
use crate::harness::client::Answer;
use crate::harness::{Stub, eventually};

#[tokio::test]
async fn after_a_change_at_all_targets_each_is_compared_with_the_new_vectors() {
    let group = Group::with(2, |_| json!({}), &[("drift.every", "100ms")]).await;
    let count = AtomicUsize::new(0);
    let fresh = async || -> (Answer, String) {
        let text = format!("text {}", count.fetch_add(1, Ordering::Relaxed));
        (group.embed(&[&text]).await, text)
    };
    fresh().await;
    for stub in &group.stubs {
        stub.always(other_weights());
    }
    let canaries = || group.stubs[0].embedding_calls().iter().filter(|call| is_canary(call)).count();
    let before = canaries();
    eventually("the first target is asked twice more, and disagrees", async || {
        fresh().await;
        canaries() >= before + 2
    })
    .await;
    eventually("the first target serves again", async || {
        let (answer, text) = fresh().await;
        assert_eq!(answer.vectors(), [Stub::vector("retrained", None, &*text)]);
        answer.header("x-vecho-target") == Some("a")
    })
    .await;
}

//! Each input of a batch is cached separately: only unknown inputs go upstream, and each vector is returned at its
//! index.

use crate::harness::front::{texts_of, tiny};
use crate::harness::stub::Limits;
use crate::harness::{Behaviour, Front};

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("text {number}")).collect()
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Returns all texts, the known ones and the new ones. New texts are spread among the known ones, and the known ones
/// were requested in a different order.
fn thirty_two_of_which_twenty_are_known() -> (Vec<String>, Vec<String>, Vec<String>) {
    let all = numbered(0..32);
    let is_new = |place: &usize| place % 8 < 3;
    let known = (0..32).rev().filter(|place| !is_new(place)).map(|place| all[place].clone()).collect();
    let new = (0..32).filter(is_new).map(|place| all[place].clone()).collect();
    (all, known, new)
}

#[tokio::test]
async fn a_batch_of_32_with_20_known_inputs_sends_exactly_the_12_others() {
    let (all, known, new) = thirty_two_of_which_twenty_are_known();
    assert_eq!((known.len(), new.len()), (20, 12));
    let front = Front::start().await;
    front.embed(&refs(&known)).await;
    let mixed = front.embed(&refs(&all)).await;
    assert_eq!(mixed.vectors(), tiny(&refs(&all)));
    assert_eq!(mixed.indices(), (0..32).map(Some).collect::<Vec<_>>());
    assert_eq!((mixed.cache(), mixed.sources()), ("partial", "memory=20, upstream=12"));
    assert_eq!(front.texts_sent(), [known, new]);
}

#[tokio::test]
async fn a_partial_hit_becomes_a_full_hit_in_any_order() {
    let (mut all, known, _) = thirty_two_of_which_twenty_are_known();
    let front = Front::start().await;
    front.embed(&refs(&known)).await;
    front.embed(&refs(&all)).await;
    all.reverse();
    let hit = front.embed(&refs(&all)).await;
    assert_eq!(hit.vectors(), tiny(&refs(&all)));
    assert_eq!((hit.cache(), hit.sources(), front.calls()), ("hit", "memory=32", 2));
}

#[tokio::test]
async fn an_answer_in_another_order_is_matched_by_index_and_not_by_position() {
    let front = Front::start().await;
    front.embed(&["b", "d"]).await;
    front.stub.next(Behaviour::Reorder);
    let texts = ["a", "b", "c", "d", "e"];
    let mixed = front.embed(&texts).await;
    assert_eq!(mixed.vectors(), tiny(&texts));
    assert_eq!(mixed.indices(), [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    let hits = front.embed(&["e", "c", "a"]).await;
    assert_eq!(hits.vectors(), tiny(&["e", "c", "a"]), "each was stored under its own text");
    assert_eq!((hits.cache(), front.calls()), ("hit", 2));
}

#[tokio::test]
async fn a_repeated_input_is_sent_once_and_answered_at_each_position() {
    let front = Front::start().await;
    let texts = ["x", "y", "x", "x", "z", "y"];
    let answer = front.embed(&texts).await;
    assert_eq!(answer.vectors(), tiny(&texts));
    assert_eq!(answer.indices(), (0..6).map(Some).collect::<Vec<_>>());
    assert_eq!(front.texts_sent(), [["x", "y", "z"]]);
}

#[tokio::test]
async fn a_batch_with_a_repeated_text_becomes_a_full_hit() {
    let front = Front::start().await;
    let texts = ["x", "y", "x"];
    front.embed(&texts).await;
    let hit = front.embed(&texts).await;
    assert_eq!(hit.vectors(), tiny(&texts));
    assert_eq!((hit.cache(), hit.sources(), front.calls()), ("hit", "memory=3", 1));
}

#[tokio::test]
async fn repeated_cached_and_new_inputs_keep_their_positions() {
    let front = Front::start().await;
    front.embed(&["known"]).await;
    let texts = ["new", "known", "new", "known", "other"];
    let mixed = front.embed(&texts).await;
    assert_eq!(mixed.vectors(), tiny(&texts));
    assert_eq!(mixed.sources(), "memory=2, upstream=3");
    assert_eq!(front.texts_sent()[1], ["new", "other"]);
}

#[tokio::test]
async fn a_batch_of_the_maximum_size_is_sent_in_one_call() {
    let front = Front::start().await;
    let all = numbered(0..2048);
    let answer = front.embed(&refs(&all)).await;
    assert_eq!(answer.vectors(), tiny(&refs(&all)));
    assert_eq!((front.calls(), front.stub.inputs_sent()), (1, 2048));
}

#[tokio::test]
async fn a_batch_larger_than_one_call_is_split_and_joined_again() {
    let front = Front::with(&[("batch.max_inputs", "10")]).await;
    let all = numbered(0..25);
    let answer = front.embed(&refs(&all)).await;
    assert_eq!(answer.vectors(), tiny(&refs(&all)));
    let mut sizes: Vec<usize> = front.texts_sent().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 10, 10]);
}

#[tokio::test]
async fn a_batch_is_split_for_an_upstream_with_a_lower_input_limit() {
    let front = Front::start().await;
    front.stub.set_limits(Limits { inputs: 10, ..Limits::default() });
    let all = numbered(0..25);
    let answer = front.embed(&refs(&all)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.vectors(), tiny(&refs(&all)));
    let calls = front.calls();
    front.embed(&refs(&numbered(100..130))).await;
    let later = front.texts_sent().split_off(calls);
    assert!(later.iter().all(|texts| texts.len() <= 10), "the limit is remembered");
}

#[tokio::test]
async fn a_batch_is_split_for_an_upstream_with_a_lower_token_limit() {
    let front = Front::start().await;
    front.stub.set_limits(Limits { tokens: 20, ..Limits::default() });
    let all = numbered(0..25);
    let answer = front.embed(&refs(&all)).await;
    assert_eq!(answer.vectors(), tiny(&refs(&all)));
}

#[tokio::test]
async fn results_of_one_call_are_served_while_another_call_still_runs() {
    let front = Front::with(&[("batch.max_inputs", "2")]).await;
    front.stub.when(|call| call.texts().contains(&"d".to_owned()), Behaviour::Gate);
    let job = front.post(texts_of(&["a", "b", "c", "d"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    let part = front.embed(&["b", "a"]).await;
    assert_eq!(part.vectors(), tiny(&["b", "a"]));
    assert_eq!(front.calls(), 2, "only the two calls of the job");
    front.stub.release(1);
    assert_eq!(job.await.expect("the job must end").vectors(), tiny(&["a", "b", "c", "d"]));
}

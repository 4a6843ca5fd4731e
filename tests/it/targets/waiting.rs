//! Calls that wait because the limits of all targets are used up.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Group, other_weights, status};
use crate::harness::Behaviour;
use crate::harness::front::tiny;
use crate::harness::stub::{Call, Counted, Quota, Reported};

const INTERACTIVE: &str = r#"vecho_pace_waiting{priority="interactive"}"#;
const BULK: &str = r#"vecho_pace_waiting{priority="bulk"}"#;

fn of_priority(priority: &str) -> [(&str, &str); 1] {
    [("x-vecho-priority", priority)]
}

#[tokio::test]
async fn interactive_calls_go_before_bulk_ones_that_wait_for_a_target() {
    // One call a second, and ten at once.
    let group = Group::with(1, |_| json!({"requests_per_minute": 60}), &[]).await;
    let embed = async |priority: &str, text: &str| {
        let body = json!({"model": "tiny", "input": text});
        assert_eq!(group.inside.embed_with(&of_priority(priority), body).await.status, 200, "{text}");
    };
    // Bulk calls leave a tenth.
    for number in 0..8 {
        embed("interactive", &format!("first {number}")).await;
    }
    let bulk = async {
        tokio::join!(
            embed("bulk", "bulk 1"),
            embed("bulk", "bulk 2"),
            embed("bulk", "bulk 3"),
            embed("bulk", "bulk 4")
        );
    };
    let queries = async {
        group.reaches(BULK, 2.0).await;
        tokio::join!(embed("interactive", "query 1"), embed("interactive", "query 2"));
    };
    tokio::join!(bulk, queries);
    let sent: Vec<String> = group.calls(0).iter().flat_map(Call::texts).collect();
    let place = |text: &str| sent.iter().position(|sent| sent == text).expect("it is sent");
    let last_query = place("query 1").max(place("query 2"));
    let bulk_after = (1..=4).filter(|number| place(&format!("bulk {number}")) > last_query).count();
    assert!(bulk_after >= 2, "{sent:?}");
    let waiting = group.inside.metric(BULK).await + group.inside.metric(INTERACTIVE).await;
    assert!(waiting < 0.5, "{waiting}");
}

#[tokio::test]
async fn calls_that_wait_use_every_target_up_to_its_limit() {
    let group = Group::with(2, |_| json!({"requests_per_minute": 60}), &[]).await;
    group.embed(&["x"]).await;
    let begun = Instant::now();
    let texts: Vec<String> = (0..24).map(|number| format!("text {number}")).collect();
    // Each one alone, so that they do not share calls.
    let send = async |text: &String| {
        let body = json!({"model": "tiny", "input": text, "user": text});
        group.inside.embed(body).await.status
    };
    let requests = texts.iter().map(&send);
    let statuses = futures_util::future::join_all(requests).await;
    let took = begun.elapsed();
    assert_eq!(statuses, [200; 24]);
    let [one, other] = [0, 1].map(|place| group.calls(place).len());
    assert_eq!(one + other, 25);
    assert!(one.abs_diff(other) <= 3, "{one} and {other}");
    // Of the 20 calls at once, three are used before: two comparisons and one call.
    assert!(took >= Duration::from_millis(2_500), "{took:?} for 7 further calls at two a second");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn a_call_waits_for_the_target_that_is_free_first() {
    // The first one admits two calls at once, one of them the comparison, and then one in five seconds.
    let limits = |place| if place == 0 { json!({"requests_per_minute": 12}) } else { json!({}) };
    let group = Group::with(2, limits, &[]).await;
    assert_eq!(group.embed(&["x"]).await.header("x-vecho-target"), Some("b"));
    group.stubs[1].next(status(503, "{}"));
    assert_eq!(group.embed(&["y"]).await.header("x-vecho-target"), Some("a"));
    // The second one gets no calls for a second, and the first one for five.
    let answer = group.embed(&["z"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
}

#[tokio::test]
async fn a_target_that_limits_the_rate_of_its_first_comparison_is_waited_for() {
    let group = Group::start(1).await;
    group.stubs[0].next(Behaviour::RateLimit { retry_after_ms: 300 });
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("a")), "{answer:?}");
}

#[tokio::test]
async fn a_target_that_dies_while_a_call_waits_for_it_is_left() {
    let group = Group::with(2, |_| json!({}), &[("retry.max_attempts", "1")]).await;
    for text in ["x", "y"] {
        group.embed(&[text]).await;
        group.stubs[0].down().await;
    }
    group.stubs[0].up().await;
    // Both refuse one call, and then only the second one works.
    for stub in &group.stubs {
        stub.next(Behaviour::RateLimit { retry_after_ms: 400 });
    }
    let waiting = async { group.embed(&["waits"]).await };
    let death = async {
        group.reaches(INTERACTIVE, 1.0).await;
        group.stubs[0].down().await;
    };
    let (answer, ()) = tokio::join!(waiting, death);
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
}

#[tokio::test]
async fn a_turn_at_every_target_that_would_come_too_late_is_refused() {
    let settings = [("limits.request_timeout", "2s")];
    let group = Group::with(2, |_| json!({"requests_per_minute": 1}), &settings).await;
    // The comparisons use up both limits.
    let begun = Instant::now();
    let answer = group.embed(&["x"]).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.error().1, json!("rate_limit_exceeded"));
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
    assert!((30..=60).contains(&wait), "{answer:?}");
}

#[tokio::test]
async fn the_first_target_that_works_gives_the_reference_whatever_its_weight() {
    let group = Group::with(2, |place| json!({"weight": 1 + place}), &[]).await;
    group.stubs[1].always(other_weights());
    for text in ["x", "y"] {
        assert_eq!(group.embed(&[text]).await.header("x-vecho-target"), Some("a"), "{text}");
    }
    assert!(group.calls(1).is_empty());
}

#[tokio::test]
async fn a_target_that_turns_out_to_disagree_is_waited_for_no_more() {
    // The first one admits two calls at once, one of them the comparison, and then one in five seconds.
    let limits = |place| if place == 0 { json!({"requests_per_minute": 12}) } else { json!({}) };
    let group = Group::with(2, limits, &[]).await;
    group.stubs[1].always(other_weights());
    for _ in 0..2 {
        group.stubs[1].next(Behaviour::RateLimit { retry_after_ms: 50 });
    }
    for text in ["x", "y"] {
        assert_eq!(group.embed(&[text]).await.header("x-vecho-target"), Some("a"), "{text}");
    }
    assert!(group.calls(1).is_empty());
    let waits = group.inside.metric(r#"vecho_pace_wait_seconds_count{priority="interactive"}"#).await;
    assert!(waits <= 5.0, "{waits} waits for one call");
}

#[tokio::test]
async fn a_target_that_failed_a_moment_ago_is_asked_before_a_request_is_refused() {
    let group = Group::with(2, |_| json!({}), &[("limits.request_timeout", "20s")]).await;
    for text in ["x", "y"] {
        group.embed(&[text]).await;
        group.stubs[0].down().await;
    }
    group.stubs[0].up().await;
    group.stubs[0].always(Behaviour::RateLimit { retry_after_ms: 3_600_000 });
    group.stubs[1].always(status(503, "{}"));
    assert_ne!(group.embed(&["fails at both"]).await.status, 200);
    group.stubs[1].always(Behaviour::Normal);
    let answer = group.embed(&["z"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
}

#[tokio::test]
async fn an_answer_to_a_comparison_never_reaches_a_caller() {
    let group = Group::start(1).await;
    let refusal = r#"{"error":{"message":"three texts are too many","type":"x","param":null,"code":null}}"#;
    for answer in [status(200, r#"{"data":[{"index":0,"embedding":[1.0]}],"model":"tiny"}"#), status(400, refusal)] {
        group.stubs[0].next(answer);
        let seen = group.embed(&["x"]).await;
        let text = String::from_utf8_lossy(&seen.body);
        assert!(!text.contains("three texts"), "{seen:?}");
        assert!(seen.status >= 500 || seen.vectors() == tiny(&["x"]), "{seen:?}");
    }
}

/// Limits of one call a minute that is used up.
async fn use_up(group: &Group) {
    let counted = Counted::Bucket { capacity: 1.001 };
    for stub in &group.stubs {
        stub.limit_rate(Quota { requests: 1.0, tokens: 1e9, counted, reported: Reported::Nothing });
    }
    for number in 0.. {
        if group.embed(&[&format!("uses up {number}")]).await.status == 429 {
            break;
        }
        assert!(number < 5);
    }
}

fn refused(group: &Group) -> usize {
    group.stubs.iter().map(|stub| stub.quota_record().refused().len()).sum()
}

#[tokio::test]
async fn targets_that_refuse_every_call_are_not_asked_without_a_pause() {
    let group = Group::with(2, |_| json!({}), &[("limits.request_timeout", "4s")]).await;
    group.embed(&["x"]).await;
    use_up(&group).await;
    let before = refused(&group);
    assert_eq!(group.embed(&["refused"]).await.status, 429);
    let calls = refused(&group) - before;
    assert!(calls <= 20, "{calls} calls in four seconds");
}

#[tokio::test]
async fn targets_that_refuse_every_comparison_are_not_asked_without_a_pause() {
    let group = Group::with(1, |_| json!({}), &[("limits.request_timeout", "4s")]).await;
    group.stubs[0].always(Behaviour::RateLimit { retry_after_ms: 0 });
    assert_eq!(group.embed(&["refused"]).await.status, 429);
    let asked = group.stubs[0].embedding_calls().len();
    assert!((2..=20).contains(&asked), "{asked} calls in four seconds");
}

#[tokio::test]
async fn a_target_that_names_an_endless_time_is_left_like_any_other() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    let headers = vec![("retry-after", "10000000000000000000".to_owned())];
    group.stubs[0].next(Behaviour::Status { code: 429, headers, body: "{}".to_owned() });
    for text in ["y", "z"] {
        let answer = group.embed(&[text]).await;
        assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
    }
}

#[tokio::test]
async fn the_concurrent_calls_of_a_target_count_for_all_models_together() {
    let settings = [("limits.request_timeout", "2s"), ("retry.max_attempts", "1")];
    let group = Group::with(1, |_| json!({"concurrent": 1}), &settings).await;
    let embed = async |model: &str, text: &str| group.inside.embed(json!({"model": model, "input": text})).await.status;
    for model in ["tiny", "other"] {
        assert_eq!(embed(model, "first").await, 200);
    }
    group.stubs[0].next(Behaviour::Gate);
    let other = async {
        group.stubs[0].held(1).await;
        let status = embed("other", "second").await;
        assert_eq!(group.calls(0).len(), 3, "it is not called while another call is in flight");
        group.stubs[0].release_all();
        status
    };
    let (_, status) = tokio::join!(embed("tiny", "second"), other);
    assert_ne!(status, 200);
    assert_eq!(embed("other", "third").await, 200);
}

#[tokio::test]
async fn a_request_is_cut_to_the_tokens_that_a_target_permits_at_once() {
    // A sixth of the limit, of which bulk calls leave a fifth: 800 tokens.
    let group = Group::with(2, |_| json!({"tokens_per_minute": 6_000}), &[]).await;
    let texts: Vec<String> = (0..40).map(|number| format!("{number} {}", "word ".repeat(24))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answer = group.embed(&texts).await;
    assert_eq!(answer.vectors(), tiny(&texts));
    let sizes: Vec<usize> = (0..2).flat_map(|place| group.calls(place)).map(|call| call.texts().len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 40);
    assert!(sizes.iter().all(|size| *size <= 30), "a text has about thirty tokens: {sizes:?}");
}

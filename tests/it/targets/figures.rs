//! Figures of several targets on the ops port.

use serde_json::{Value, json};

use super::{Group, other_weights};
use crate::harness::Inside;

#[tokio::test]
async fn the_figures_of_the_ops_port_show_each_target() {
    let group = Group::with(
        3,
        |_| json!({}),
        &[("breaker.failures", "1"), ("breaker.open_for", "1h"), ("breaker.max_open", "1h")],
    )
    .await;
    let url = format!("http://{}/api/performance/stats", group.inside.admin());
    let targets = async || group.inside.client.get(&url).await.json()["targets"].clone();
    let all = |targets: &Value, member: &str| -> Vec<Value> {
        targets.as_array().expect("a list").iter().map(|target| target[member].clone()).collect()
    };
    assert_eq!(all(&targets().await, "state"), ["not yet compared"; 3]);
    group.embed(&["x"]).await;
    group.stubs[0].down().await;
    group.stubs[1].always(other_weights());
    for text in ["y", "z", "w"] {
        assert_eq!(group.embed(&[text]).await.header("x-vecho-target"), Some("c"));
    }
    let shown = targets().await;
    assert_eq!(all(&shown, "name"), ["a", "b", "c"]);
    assert_eq!(all(&shown, "state"), ["breaker open", "gives other vectors", "serves"], "{shown}");
    assert_eq!(
        (all(&shown, "breaker"), &shown[1]["disagrees_for"]),
        (vec!["open".into(), "closed".into(), "closed".into()], &json!(["tiny"]))
    );
    assert_eq!((&shown[2]["failures"], &shown[0]["moves"]), (&json!(0), &json!(1)), "{shown}");
    assert!(shown[0]["failures"].as_u64() >= Some(1), "{shown}");
    let (calls, shares) = (all(&shown, "calls"), all(&shown, "share"));
    let sum: f64 = calls.iter().filter_map(Value::as_f64).sum();
    for (calls, share) in calls.iter().zip(&shares) {
        let expected = calls.as_f64().expect("a number") / sum;
        assert!((share.as_f64().expect("a number") - expected).abs() < 0.001, "{shown}");
    }
    let dashboard = format!("http://{}/api/dashboard", group.inside.admin());
    let dashboard = group.inside.client.get(&dashboard).await.json();
    assert_eq!(all(&dashboard["now"]["stats"]["targets"], "state"), all(&shown, "state"));
}

#[tokio::test]
async fn rate_limits_are_shown_for_each_target() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    let url = format!("http://{}/api/performance/stats", group.inside.admin());
    let shown = group.inside.client.get(&url).await.json()["rate_limits"].clone();
    let places: Vec<_> = shown.as_array().expect("a list").iter().map(|row| (&row["target"], &row["model"])).collect();
    assert!(places.contains(&(&json!("a"), &json!("tiny"))), "{shown}");
    assert!(places.iter().all(|(target, _)| !target.is_null()), "{shown}");
}

#[tokio::test]
async fn without_targets_there_are_no_figures_of_targets() {
    let inside = Inside::start("mock:", &[]).await;
    let url = format!("http://{}/api/performance/stats", inside.admin());
    assert_eq!(inside.client.get(&url).await.json()["targets"], Value::Null);
}

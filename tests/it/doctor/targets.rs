//! `vecho doctor` with several targets.

use serde_json::json;

use super::{Healthy, KEY, closed};
use crate::harness::{Behaviour, Stub};

#[tokio::test]
async fn each_target_is_checked_and_called_under_its_own_name_of_the_model() {
    let (healthy, second) = (Healthy::new("targets"), Stub::start());
    second.accept_keys(["sk-s3cr3t-second"]);
    second.always(Behaviour::OtherModel("tiny".to_owned()));
    let targets = json!([
        {"name": "a", "url": healthy.stub.base_url(), "api_key": KEY},
        {"name": "b", "url": second.base_url(), "api_key": "sk-s3cr3t-second", "models": ["tiny=other"]},
        {"name": "c", "url": format!("http://{}/v1", closed()), "api_key": KEY},
    ]);
    let report = healthy.run(&["--call", "--model", "tiny"], &[("VECHO_TARGETS", &targets.to_string())]);
    for line in ["target a: tiny: key accepted, status 200", "target b: other: key accepted, status 200"] {
        assert!(report.text.contains(line), "{line} in\n{}", report.text);
    }
    report.says("fault", "upstream", &["target c: ", "TCP fails", "correct the port in its url"]);
    report.says("fault", "call", &["target c: "]);
    assert_eq!(report.status, Some(1));
    assert_eq!(second.embedding_calls()[0].json()["model"], "other");
}

#[tokio::test]
async fn a_target_with_other_vectors_is_found_before_it_is_used() {
    let (healthy, same, odd) = (Healthy::new("targets that differ"), Stub::start(), Stub::start());
    odd.always(Behaviour::OtherModel("retrained".to_owned()));
    let target = |name: &str, stub: &Stub| json!({"name": name, "url": stub.base_url(), "api_key": KEY});
    let targets = json!([target("a", &healthy.stub), target("same", &same), target("odd", &odd)]);
    let report = healthy.run(&["--call", "--model", "tiny"], &[("VECHO_TARGETS", &targets.to_string())]);
    report.says("fault", "call", &["target odd: ", "not that of target a", "correct its models"]);
    assert!(!report.text.contains("target same: its vector"), "{}", report.text);
    assert_eq!(report.status, Some(1));
}

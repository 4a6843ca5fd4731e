//! Several targets: the choice among them, failover, and the proof that their vectors agree.

mod changes;
mod figures;
mod refused;
mod returning;
mod waiting;

use std::time::Duration;

use serde_json::{Value, json};
use vecho::config::Config;

use crate::disk::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::front::{texts_of, tiny};
use crate::harness::stub::{Call, Stub};
use crate::harness::{Behaviour, Inside, eventually};

/// Stubs with the names `a`, `b` and so on, and vecho in front of them.
struct Group {
    stubs: Vec<Stub>,
    inside: Inside,
}

impl Group {
    async fn start(count: usize) -> Self {
        Self::with(count, |_| json!({}), &[]).await
    }

    /// Starts a group whose targets have further members.
    async fn with(count: usize, member: impl Fn(usize) -> Value, settings: &[(&str, &str)]) -> Self {
        let stubs: Vec<Stub> = (0..count).map(|_| Stub::start()).collect();
        let inside = Self::front(&stubs, member, settings).await;
        Self { stubs, inside }
    }

    async fn front(stubs: &[Stub], member: impl Fn(usize) -> Value, settings: &[(&str, &str)]) -> Inside {
        let targets: Vec<Value> =
            stubs.iter().enumerate().map(|(place, stub)| target(place, stub, &member(place))).collect();
        let targets = Value::from(targets).to_string();
        let own = [
            ("targets", targets.as_str()),
            ("fallback.mode", "error"),
            ("retry.base_wait", "1ms"),
            ("retry.max_wait", "1ms"),
        ];
        Inside::start(&stubs[0].base_url(), &[&own[..], settings].concat()).await
    }

    async fn embed(&self, texts: &[&str]) -> Answer {
        self.inside.embed(texts_of(texts)).await
    }

    /// Waits until a series of its metrics is at `value` or above.
    async fn reaches(&self, series: &str, value: f64) {
        eventually(series, async || self.inside.metric(series).await >= value).await;
    }

    /// Returns the calls of a target that carry texts of callers.
    fn calls(&self, place: usize) -> Vec<Call> {
        calls(&self.stubs[place])
    }
}

fn calls(stub: &Stub) -> Vec<Call> {
    stub.embedding_calls().into_iter().filter(|call| !is_canary(call)).collect()
}

fn is_canary(call: &Call) -> bool {
    call.texts().first().is_some_and(|text| text.starts_with("The quick brown fox"))
}

fn target(place: usize, stub: &Stub, more: &Value) -> Value {
    let mut target = json!({"name": name(place), "url": stub.base_url(), "api_key": format!("sk-{}", name(place))});
    for (member, value) in more.as_object().expect("members are an object") {
        target[member] = value.clone();
    }
    target
}

fn name(place: usize) -> String {
    ["a", "b", "c"][place].to_owned()
}

/// Returns the behaviour of a server that keeps the model's name and has other weights.
fn other_weights() -> Behaviour {
    Behaviour::All(vec![Behaviour::OtherModel("retrained".to_owned()), Behaviour::ModelName("tiny".to_owned())])
}

fn status(code: u16, body: &str) -> Behaviour {
    Behaviour::Status { code, headers: Vec::new(), body: body.to_owned() }
}

#[tokio::test]
async fn calls_carry_the_key_of_their_target_and_answers_its_name() {
    let group = Group::start(2).await;
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.vectors(), answer.header("x-vecho-target")), (tiny(&["x"]), Some("a")));
    assert_eq!(group.calls(0)[0].header("authorization"), Some("Bearer sk-a"));
    let hit = group.embed(&["x"]).await;
    assert_eq!((hit.cache(), hit.header("x-vecho-target")), ("hit", None));
}

#[tokio::test]
async fn secrets_of_callers_reach_no_other_target_than_the_first() {
    let group = Group::start(2).await;
    let secrets = [("authorization", "Bearer sk-caller"), ("x-goog-api-key", "g"), ("cookie", "c=1"), ("x-plain", "p")];
    group.inside.embed_with(&secrets, texts_of(&["x"])).await;
    group.stubs[0].down().await;
    assert_eq!(group.inside.embed_with(&secrets, texts_of(&["y"])).await.status, 200);
    let [first, second] = [0, 1].map(|place| group.calls(place).remove(0));
    assert_eq!((first.header("authorization"), first.header("cookie")), (Some("Bearer sk-a"), Some("c=1")));
    assert_eq!((second.header("authorization"), second.header("x-plain")), (Some("Bearer sk-b"), Some("p")));
    assert!(second.header("cookie").is_none() && second.header("x-goog-api-key").is_none());
}

#[tokio::test]
async fn a_dead_target_is_left_at_once_and_its_entries_stay() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    group.stubs[0].down().await;
    for text in ["y", "z"] {
        let answer = group.embed(&[text, "x"]).await;
        assert_eq!((answer.vectors(), answer.header("x-vecho-target")), (tiny(&[text, "x"]), Some("b")));
        assert_eq!(answer.cache(), "partial");
    }
    let metric = group.inside.metric(r#"vecho_target_calls_total{outcome="ok",target="b"}"#).await;
    assert!(metric >= 2.0, "{metric}");
}

#[tokio::test]
async fn a_target_that_limits_the_rate_is_left_before_any_wait() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    group.stubs[0].always(Behaviour::RateLimit { retry_after_ms: 30_000 });
    for text in ["y", "z"] {
        assert_eq!(group.embed(&[text]).await.header("x-vecho-target"), Some("b"));
    }
    assert_eq!(group.calls(0).len(), 2, "the second call did not try it again");
    assert!(group.inside.metric(r#"vecho_target_moves_total{target="a"}"#).await >= 1.0);
}

#[tokio::test]
async fn without_pacing_the_refusal_of_the_last_target_reaches_the_caller_although_it_has_a_limit() {
    let limited = |_| json!({"requests_per_minute": 6_000});
    let group = Group::with(1, limited, &[("pace.mode", "off"), ("retry.max_attempts", "2")]).await;
    group.embed(&["x"]).await;
    group.stubs[0].always(Behaviour::RateLimit { retry_after_ms: 0 });
    let before = group.calls(0).len();
    assert_eq!(group.embed(&["y"]).await.status, 429);
    assert!(group.calls(0).len() - before <= 3, "{} calls", group.calls(0).len() - before);
}

#[tokio::test]
async fn a_target_with_other_weights_never_serves_and_is_reported() {
    let group = Group::start(3).await;
    group.stubs[1].always(other_weights());
    group.embed(&["x"]).await;
    group.stubs[0].down().await;
    for text in ["y", "z"] {
        let answer = group.embed(&[text]).await;
        assert_eq!((answer.vectors(), answer.header("x-vecho-target")), (tiny(&[text]), Some("c")));
    }
    assert!(group.calls(1).is_empty(), "it gets no text of a caller");
    let series = r#"vecho_target_disagrees{model="tiny",target="b"}"#;
    assert_eq!(group.inside.metric(series).await.to_bits(), 1.0_f64.to_bits());
    let health = group.inside.health().await.to_string();
    assert!(health.contains("the target b gives other vectors for `tiny`"), "{health}");
    group.stubs[2].down().await;
    assert!(group.embed(&["w"]).await.status >= 500, "an error, and no wrong vector");
}

#[tokio::test]
async fn an_answer_without_vectors_is_replaced_by_that_of_another_target() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    group.stubs[0].always(status(200, "<html>log in</html>"));
    let answer = group.embed(&["y"]).await;
    assert_eq!((answer.vectors(), answer.header("x-vecho-target")), (tiny(&["y"]), Some("b")));
    group.stubs[0].down().await;
    group.stubs[1].always(status(200, "<html>log in</html>"));
    let failed = group.embed(&["z"]).await;
    assert!(failed.status >= 500, "a caller gets such an answer only from the first target: {failed:?}");
}

#[tokio::test]
async fn a_target_with_another_base64_is_asked_for_numbers() {
    let group = Group::start(2).await;
    let ask = async |text: &str| {
        let body = json!({"model": "tiny", "input": text, "encoding_format": "base64"});
        let answer = group.inside.embed(body).await;
        (answer.status, answer.header("x-vecho-target").map(str::to_owned), answer.vectors())
    };
    for text in ["u", "v", "w"] {
        assert_eq!(ask(text).await, (200, Some("a".to_owned()), tiny(&[text])));
    }
    group.stubs[0].down().await;
    group.stubs[1].always(Behaviour::Float64Base64);
    for text in ["x", "y"] {
        assert_eq!(ask(text).await, (200, Some("b".to_owned()), tiny(&[text])));
    }
    let asked: Vec<Value> = group.calls(1).iter().map(|call| call.json()["encoding_format"].clone()).collect();
    assert_eq!(asked, ["base64", "float", "float"]);
}

#[tokio::test]
async fn a_refusal_of_the_request_is_the_callers_answer_and_one_of_the_key_is_not() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    let error = r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#;
    group.stubs[0].always(status(400, error));
    assert_eq!(group.embed(&["y"]).await.status, 400);
    assert!(group.calls(1).is_empty());
    for code in [401, 403, 404] {
        group.stubs[0].always(status(code, error));
        let answer = group.embed(&[&format!("after {code}")]).await;
        assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{code}");
    }
    for stub in &group.stubs {
        stub.always(status(401, error));
    }
    assert_eq!(group.embed(&["z"]).await.status, 401, "no target is left");
}

#[tokio::test]
async fn a_model_has_its_own_name_at_a_target_and_one_name_in_answers() {
    let models = |place| if place == 1 { json!({"models": ["tiny=my-deployment"]}) } else { json!({}) };
    let group = Group::with(2, models, &[]).await;
    group.stubs[1].always(Behaviour::All(vec![
        Behaviour::OtherModel("tiny".to_owned()),
        Behaviour::ModelName("my-deployment".to_owned()),
    ]));
    group.embed(&["x"]).await;
    group.stubs[0].down().await;
    let answer = group.embed(&["y", "x"]).await;
    assert_eq!((answer.vectors(), answer.json()["model"].as_str()), (tiny(&["y", "x"]), Some("tiny")));
    assert_eq!(answer.sources(), "memory=1, upstream=1", "the entry of the other target stays");
    assert_eq!(group.calls(1)[0].json()["model"], "my-deployment");
    let other = json!({"model": "another", "input": "x"});
    assert!(group.inside.embed(other).await.status >= 500, "the living target does not serve it");
}

#[tokio::test]
async fn calls_beyond_the_budget_of_a_target_go_to_another_one() {
    let limits = |place| if place == 0 { json!({"requests_per_minute": 12}) } else { json!({"weight": 1}) };
    let group = Group::with(2, limits, &[]).await;
    for call in 0..12 {
        assert_eq!(group.embed(&[&format!("text {call}")]).await.status, 200);
    }
    let (limited, other) = (group.calls(0).len(), group.calls(1).len());
    assert!(limited <= 3 && limited + other == 12, "{limited} and {other}");
}

#[tokio::test]
async fn entries_of_a_single_upstream_are_those_of_its_targets() {
    let (stubs, folder) = ([Stub::start(), Stub::start()], Folder::new());
    let key = [("disk.path", folder.text()), ("upstream.api_key", "sk-own")];
    let former = stubs[0].base_url();
    let single = Inside::start(&stubs[0].base_url(), &key).await;
    single.embed(texts_of(&["x"])).await;
    single.stop().await;
    let several = Group::front(&stubs, |_| json!({}), &key[..1]).await;
    eventually("the disk tier is open", async || several.embed(texts_of(&["x"])).await.cache() == "hit").await;
    several.stop().await;
    let other = [stubs.into_iter().next_back().expect("there are two")];
    let former = [key[0], ("upstream.identity", former.as_str())];
    let moved = Group::front(&other, |_| json!({}), &former).await;
    eventually("the disk tier is open", async || moved.embed(texts_of(&["x"])).await.cache() == "hit").await;
    assert_eq!(moved.embed(texts_of(&["y"])).await.vectors(), tiny(&["y"]));
    moved.stop().await;
    let single = Inside::start(&other[0].base_url(), &[former[0], former[1], key[1]]).await;
    eventually("the disk tier is open", async || single.embed(texts_of(&["x"])).await.cache() == "hit").await;
    assert_eq!(single.embed(texts_of(&["z"])).await.vectors(), tiny(&["z"]));
    single.stop().await;
}

#[tokio::test]
async fn after_a_restart_targets_are_compared_with_the_vectors_that_are_stored() {
    let (stubs, folder) = ([Stub::start(), Stub::start()], Folder::new());
    let settings = [("disk.path", folder.text())];
    let first = Group::front(&stubs, |_| json!({}), &settings).await;
    first.embed(texts_of(&["x"])).await;
    first.stop().await;
    stubs[0].down().await;
    stubs[1].always(other_weights());
    let second = Group::front(&stubs, |_| json!({}), &settings).await;
    assert!(second.embed(texts_of(&["y"])).await.status >= 500, "an error, and no wrong vector");
    assert!(calls(&stubs[1]).is_empty());
    second.stop().await;
}

#[tokio::test]
async fn explain_shows_the_state_of_each_target() {
    let models = |place| if place == 2 { json!({"models": ["other"]}) } else { json!({}) };
    let group = Group::with(3, models, &[]).await;
    group.embed(&["x"]).await;
    let url = format!("http://{}/api/performance/cache/explain", group.inside.admin());
    let explained = group.inside.client.post(&url, &texts_of(&["x"])).await.json();
    let states = json!([
        {"name": "a", "state": "serves"},
        {"name": "b", "state": "not yet compared"},
        {"name": "c", "state": "does not serve the model"},
    ]);
    assert_eq!(explained["targets"], states);
}

#[test]
fn faults_of_targets_are_all_reported_and_never_show_a_key() {
    let fault = |targets: &str, more: &[(&str, &str)]| {
        let pairs = [&[("targets", targets)][..], more].concat();
        Config::from_pairs(&pairs).expect_err(targets).to_string()
    };
    let a = r#"{"name":"a","url":"http://h/v1","api_key":"sk-hidden"}"#;
    for (targets, word) in [
        (format!("[{a},{a}]"), "two targets have the name \"a\""),
        (r#"[{"name":"a","url":"http://h/v1"}]"#.to_owned(), "target \"a\": has no key"),
        (r#"[{"url":"http://h/v1","api_key":"sk-hidden"}]"#.to_owned(), "target 1: name is missing"),
        (r#"[{"name":"a b","url":"http://h","api_key":"sk-hidden"}]"#.to_owned(), "name: \"a b\" is not"),
        (r#"[{"name":"a","url":"mock:","api_key":"sk-hidden"}]"#.to_owned(), "url: must be http"),
        (a.replace('}', r#","wieght":2}"#), "wieght: unknown; did you mean weight?"),
        (a.replace('}', r#","weight":0}"#), "weight: 0 is not between 1 and 1000"),
        (a.replace('}', r#","models":["x="]}"#), "models: \"x=\" is not like"),
        (a.replace('}', r#","api_key_file":"/f"}"#), "both api_key and api_key_file are set"),
        ("[{".to_owned(), "must be [[targets]] tables"),
        ("[1]".to_owned(), "must be [[targets]] tables"),
    ]
    .map(|(targets, word)| (format!("[{}]", targets.trim_start_matches('[').trim_end_matches(']')), word))
    {
        let text = fault(&targets, &[]);
        assert!(text.contains(word), "{word}:\n{text}");
        assert!(!text.contains("sk-hidden"), "{text}");
    }
    let text = fault(&format!("[{a}]"), &[("upstream.url", "http://elsewhere/v1")]);
    assert!(text.contains("contradicts targets"), "{text}");
}

#[test]
fn targets_are_shown_without_their_keys() {
    let targets = r#"[{"name":"a","url":"http://h/v1","api_key":"sk-hidden"}]"#;
    let config = Config::from_pairs(&[("targets", targets)]).expect("it is free of faults");
    let shown = config.effective.to_text() + &config.effective.to_json().to_string() + &format!("{config:?}");
    assert!(shown.contains("[secret]") && !shown.contains("sk-hidden"), "{shown}");
    assert_eq!(config.upstream.api_key.as_ref().map(vecho::config::Secret::reveal), Some("sk-hidden"));
}

/// Sends requests while one target dies and returns, one limits the rate, and one has other weights.
#[tokio::test]
async fn under_changing_faults_no_request_fails_and_no_odd_vector_is_served() {
    let group = Group::start(3).await;
    group.embed(&["first"]).await;
    group.stubs[2].always(other_weights());
    let mut state = 0x9e37_79b9_u64;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut is_up = true;
    for round in 0..120 {
        match dice(6) {
            0 if is_up => {
                group.stubs[0].down().await;
                // One of the two agreeing targets has to work.
                group.stubs[1].always(Behaviour::Normal);
                is_up = false;
            }
            1 if !is_up => {
                group.stubs[0].up().await;
                is_up = true;
            }
            2 if is_up => group.stubs[1].always(Behaviour::RateLimit { retry_after_ms: 5 }),
            3 => group.stubs[1].always(Behaviour::Normal),
            _ => {}
        }
        let texts = [format!("r{round}"), format!("r{}", dice(round + 1)), format!("s{round}")];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer = group.embed(&texts).await;
        assert_eq!(answer.status, 200, "round {round}: {answer:?}");
        assert_eq!(answer.vectors(), tiny(&texts), "round {round}");
    }
    assert!(group.calls(2).is_empty());
    assert!(group.calls(0).len() > 10 && group.calls(1).len() > 10, "both agreeing targets had work");
    tokio::time::timeout(Duration::from_secs(5), group.inside.stop()).await.expect("it stops");
}

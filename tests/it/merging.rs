//! Misses of several requests share one call only if the requests differ in nothing but their inputs. A request never
//! fails because of another one in the same call.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::client::Answer;
use crate::harness::front::{Ask, TINY, texts_of, tiny};
use crate::harness::stub::Limits;
use crate::harness::{Behaviour, Front};

const QUEUED: &str = "vecho_upstream_queued_inputs";

/// Starts a front with one permit. Misses queue while a call is held.
async fn one_call_at_a_time(settings: &[(&str, &str)]) -> Front {
    let mut all = vec![("upstream.max_concurrent", "1")];
    all.extend(settings);
    Front::with(&all).await
}

/// Like [`one_call_at_a_time`]. The upstream has already answered a request of eight texts, so calls of up to sixteen
/// texts may be merged.
async fn merging(settings: &[(&str, &str)]) -> Front {
    let front = one_call_at_a_time(settings).await;
    front.embed(&["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    front
}

/// Takes the only permit and holds it until the stub releases the call.
async fn occupy(front: &Front) -> JoinHandle<Answer> {
    occupy_beside(front, 1).await
}

/// Takes the last permit. The stub then holds `held` calls.
async fn occupy_beside(front: &Front, held: usize) -> JoinHandle<Answer> {
    front.stub.next(Behaviour::Gate);
    let blocker = json!({"model": "blocker", "input": "b"});
    let blocker = front.post(blocker.to_string()).key("sk-blocker").send_meanwhile();
    front.stub.held(held).await;
    blocker
}

/// Sends all requests in order while the only permit is taken, and releases the call after the last one has queued.
async fn send_together(front: &Front, asks: Vec<Ask>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let blocker = occupy(front).await;
    for ask in begin_together(front, asks, blocker).await {
        answers.push(ask.await.expect("a request must end"));
    }
    answers
}

async fn begin_together(front: &Front, asks: Vec<Ask>, blocker: JoinHandle<Answer>) -> Vec<JoinHandle<Answer>> {
    let (mut sent, mut queued) = (Vec::new(), 0.0);
    for ask in asks {
        sent.push(ask.send_meanwhile());
        queued += 1.0;
        front.reaches(QUEUED, queued).await;
    }
    front.stub.release_all();
    blocker.await.expect("the blocker must end");
    sent
}

/// Returns the texts of the calls after the blocker's call.
fn sent(front: &Front) -> Vec<Vec<String>> {
    let mut all = front.texts_sent();
    let blocker = all.iter().position(|texts| *texts == ["b"]).expect("the blocker came first");
    all.split_off(blocker + 1)
}

fn ask(front: &Front, text: &str) -> Ask {
    front.post(texts_of(&[text]).to_string())
}

fn long_text() -> String {
    "word ".repeat(30)
}

#[tokio::test]
async fn misses_of_several_requests_are_merged_into_one_call() {
    let front = merging(&[]).await;
    let asks = vec![ask(&front, "a"), ask(&front, "b"), ask(&front, "c")];
    let answers = send_together(&front, asks).await;
    for (answer, text) in answers.iter().zip(["a", "b", "c"]) {
        assert_eq!(answer.vectors(), tiny(&[text]));
        assert_eq!((answer.cache(), answer.usage()), ("miss", 1));
    }
    assert_eq!(sent(&front), [["a", "b", "c"]]);
}

#[tokio::test]
async fn only_the_request_that_caused_a_refusal_gets_it_verbatim() {
    let front = merging(&[]).await;
    front.stub.set_limits(Limits { tokens_per_input: 15, ..Limits::default() });
    let long = long_text();
    let asks = vec![ask(&front, "a"), ask(&front, &long), ask(&front, "c")];
    let answers = send_together(&front, asks).await;
    assert_eq!(answers[0].vectors(), tiny(&["a"]));
    assert_eq!(answers[2].vectors(), tiny(&["c"]));
    let alone = front.ask(&texts_of(&[&long])).await;
    assert_eq!((answers[1].status, &answers[1].body), (400, &alone.body));
    assert!(answers[1].json()["error"]["message"].as_str().expect("text").starts_with("This model's maximum context"));
    assert_eq!(sent(&front)[0], ["a", &long, "c"], "they did travel together first");
    assert_eq!(front.embed(&["a"]).await.cache(), "hit", "the neighbours' vectors are kept");
}

#[tokio::test]
async fn a_text_that_a_gateway_forbids_is_refused_alone() {
    let front = merging(&[]).await;
    let forbidden = Behaviour::Status { code: 403, headers: Vec::new(), body: "blocked".to_owned() };
    front.stub.when(|call| call.texts().contains(&"b".to_owned()) && call.json()["model"] == TINY, forbidden);
    let answers = send_together(&front, vec![ask(&front, "a"), ask(&front, "b"), ask(&front, "c")]).await;
    assert_eq!((answers[0].vectors(), answers[2].vectors()), (tiny(&["a"]), tiny(&["c"])));
    assert_eq!((answers[1].status, &*answers[1].body), (403, b"blocked".as_slice()));
}

#[tokio::test]
async fn a_text_that_is_never_answered_delays_only_its_own_request() {
    let front = merging(&[("batch.target_time", "100ms"), ("upstream.max_concurrent", "2")]).await;
    front.stub.when(|call| call.texts().contains(&"endless".to_owned()), Behaviour::Gate);
    front.stub.next(Behaviour::Gate);
    let other = json!({"model": "other", "input": "other"});
    let other = front.post(other.to_string()).key("sk-other").send_meanwhile();
    front.stub.held(1).await;
    let blocker = occupy_beside(&front, 2).await;
    let asks: Vec<Ask> = ["a", "b", "endless"].map(|text| ask(&front, text)).into();
    let mut begun = begin_together(&front, asks, blocker).await;
    assert_eq!(other.await.expect("it must end").status, 200);
    let endless = begun.pop().expect("three requests");
    for (ask, text) in begun.into_iter().zip(["a", "b"]) {
        assert_eq!(ask.await.expect("it must end").vectors(), tiny(&[text]));
    }
    assert_eq!(sent(&front)[0], ["a", "b", "endless"], "they did travel together first");
    assert!(!endless.is_finished(), "it waits for its own answer");
    // Its own call may not have reached the gate yet.
    front.stub.release(8);
    assert_eq!(endless.await.expect("it must end").vectors(), tiny(&["endless"]));
}

#[tokio::test]
async fn a_merged_call_beyond_a_rate_limit_is_split() {
    let message = "Request too large for tiny on tokens per min (TPM): Limit 40000, Requested 80000.";
    for message in [message, "Model is overloaded"] {
        let front = merging(&[("retry.base_wait", "1ms"), ("retry.max_wait", "1ms")]).await;
        let body =
            json!({"error": {"message": message, "type": "tokens", "param": null, "code": "rate_limit_exceeded"}});
        let refusal = Behaviour::Status { code: 429, headers: Vec::new(), body: body.to_string() };
        front.stub.when(|call| call.inputs().len() > 4 && call.json()["model"] == TINY, refusal);
        let texts: Vec<String> = (0..8).map(|number| format!("text {number}")).collect();
        let answers = send_together(&front, texts.iter().map(|text| ask(&front, text)).collect()).await;
        for (answer, text) in answers.iter().zip(&texts) {
            assert_eq!((answer.status, answer.vectors()), (200, tiny(&[text])), "{message}");
        }
        assert_eq!(sent(&front)[0].len(), 8, "they did travel together first");
    }
}

#[tokio::test]
async fn a_waiter_of_a_refused_batch_does_not_fail() {
    let front = Front::start().await;
    front.stub.set_limits(Limits { tokens_per_input: 15, ..Limits::default() });
    front.stub.always(Behaviour::Gate);
    let refused = front.post(texts_of(&["good", &long_text()]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    let joiner = front.post(texts_of(&["good", "own"]).to_string()).send_meanwhile();
    front.stub.held(2).await;
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    assert_eq!(refused.await.expect("it must end").status, 400);
    let joiner = joiner.await.expect("it must end");
    assert_eq!(joiner.vectors(), tiny(&["good", "own"]));
    assert_eq!(front.texts_sent()[2], ["good"], "its text is asked again alone");
}

#[tokio::test]
async fn an_unreadable_merged_call_is_repeated_for_each_request() {
    let front = merging(&[]).await;
    front.stub.when(|call| call.inputs().len() > 1, Behaviour::MissingItem);
    let asks = vec![ask(&front, "a"), ask(&front, "b")];
    let answers = send_together(&front, asks).await;
    for (answer, text) in answers.iter().zip(["a", "b"]) {
        assert_eq!((answer.vectors(), answer.cache()), (tiny(&[text]), "miss"));
    }
    assert_eq!(sent(&front), [vec!["a", "b"], vec!["a"], vec!["b"]]);
}

#[tokio::test]
async fn requests_that_differ_only_in_irrelevant_headers_are_merged() {
    let front = merging(&[]).await;
    let asks = vec![
        ask(&front, "a").header("x-request-id", "one").header("user-agent", "OpenAI/Python 2"),
        ask(&front, "b").header("x-stainless-lang", "js").header("traceparent", "00-1-2-01"),
    ];
    for (answer, text) in send_together(&front, asks).await.iter().zip(["a", "b"]) {
        assert_eq!(answer.vectors(), tiny(&[text]));
    }
    assert_eq!(sent(&front), [["a", "b"]]);
}

/// Sends two misses together and checks that they went upstream in two calls.
async fn assert_not_merged(front: &Front, one: Ask, other: Ask) {
    let answers = send_together(front, vec![one, other]).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let sizes: Vec<usize> = sent(front).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1]);
}

#[tokio::test]
async fn calls_are_never_merged_across_credentials() {
    let front = one_call_at_a_time(&[]).await;
    let (one, other) = (ask(&front, "a").key("sk-one"), ask(&front, "b").key("sk-two"));
    assert_not_merged(&front, one, other).await;
}

#[tokio::test]
async fn calls_are_never_merged_across_credentials_that_share_their_entries() {
    let front = one_call_at_a_time(&[("cache.scope", "shared")]).await;
    for key in ["sk-one", "sk-two"] {
        ask(&front, "warm").key(key).send().await;
    }
    let (one, other) = (ask(&front, "a").key("sk-one"), ask(&front, "b").key("sk-two"));
    let answers = send_together(&front, vec![one, other]).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let calls = front.stub.embedding_calls().split_off(3);
    let seen: Vec<_> = calls.iter().map(|call| (call.header("authorization"), call.texts())).collect();
    let expected = |key, text: &str| (Some(key), vec![text.to_owned()]);
    assert_eq!(seen, [expected("Bearer sk-one", "a"), expected("Bearer sk-two", "b")]);
}

fn with(field: &str, value: &Value, text: &str) -> String {
    json!({"model": TINY, "input": [text], field: value}).to_string()
}

#[tokio::test]
async fn calls_are_merged_across_callers_if_vecho_has_its_own_key() {
    let front = merging(&[("upstream.api_key", "sk-real")]).await;
    let asks = vec![ask(&front, "a").key("any"), ask(&front, "b").key("other")];
    let answers = send_together(&front, asks).await;
    assert_eq!((answers[0].vectors(), answers[1].vectors()), (tiny(&["a"]), tiny(&["b"])));
    assert_eq!(sent(&front), [["a", "b"]]);
}

#[tokio::test]
async fn calls_are_never_merged_across_users() {
    let front = one_call_at_a_time(&[]).await;
    let (one, other) = (with("user", &json!("one"), "a"), with("user", &json!("two"), "b"));
    assert_not_merged(&front, front.post(one), front.post(other)).await;
    let users: Vec<Value> = front.stub.embedding_calls()[1..].iter().map(|call| call.json()["user"].clone()).collect();
    assert_eq!(users, ["one", "two"]);
}

#[tokio::test]
async fn a_call_with_a_user_is_never_merged_with_one_without() {
    let front = one_call_at_a_time(&[]).await;
    let with_user = with("user", &json!("one"), "a");
    assert_not_merged(&front, front.post(with_user), ask(&front, "b")).await;
}

#[tokio::test]
async fn calls_are_never_merged_across_encodings() {
    let front = one_call_at_a_time(&[]).await;
    // vecho requests base64 only if the dimension is known.
    front.embed(&["warm"]).await;
    let (one, other) = (with("encoding_format", &json!("float"), "a"), with("encoding_format", &json!("base64"), "b"));
    let answers = send_together(&front, vec![front.post(one), front.post(other)]).await;
    for (answer, text) in answers.iter().zip(["a", "b"]) {
        assert_eq!(answer.vectors(), tiny(&[text]));
    }
    let calls = front.stub.embedding_calls().split_off(2);
    let asked: Vec<Value> = calls.iter().map(|call| call.json()["encoding_format"].clone()).collect();
    assert_eq!(asked, ["float", "base64"]);
}

#[tokio::test]
async fn calls_are_never_merged_across_different_custom_headers() {
    let front = one_call_at_a_time(&[]).await;
    let (one, other) = (ask(&front, "a").header("x-tenant", "one"), ask(&front, "b").header("x-tenant", "two"));
    assert_not_merged(&front, one, other).await;
    let tenants: Vec<_> =
        front.stub.embedding_calls()[1..].iter().map(|call| call.header("x-tenant").map(str::to_owned)).collect();
    assert_eq!(tenants, [Some("one".to_owned()), Some("two".to_owned())]);
}

#[tokio::test]
async fn calls_are_never_merged_across_content_types() {
    let front = one_call_at_a_time(&[]).await;
    let other = "application/json; charset=utf-8";
    assert_not_merged(&front, ask(&front, "a"), ask(&front, "b").header("content-type", other)).await;
    let sent: Vec<_> =
        front.stub.embedding_calls()[1..].iter().map(|call| call.header("content-type").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("application/json".to_owned()), Some(other.to_owned())]);
}

#[tokio::test]
async fn calls_are_never_merged_across_spaces_or_kinds_of_input() {
    for (one, other) in [
        (json!({"model": TINY, "input": "a"}), json!({"model": "other", "input": "b"})),
        (json!({"model": TINY, "input": "a"}), json!({"model": TINY, "input": "b", "dimensions": 4})),
        (json!({"model": TINY, "input": "a"}), json!({"model": TINY, "input": "b", "task": "query"})),
        (json!({"model": TINY, "input": "a"}), json!({"model": TINY, "input": [1, 2]})),
    ] {
        let front = one_call_at_a_time(&[]).await;
        let asks = vec![front.post(one.to_string()), front.post(other.to_string())];
        let answers = send_together(&front, asks).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(front.calls(), 3, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_requests_with_a_refused_text_are_refused_under_concurrency() {
    let front = Front::with(&[("upstream.max_concurrent", "2")]).await;
    front.stub.set_limits(Limits { tokens_per_input: 15, ..Limits::default() });
    let mut asks = Vec::new();
    for number in 0..60_usize {
        let mut texts: Vec<String> =
            (0..5).map(|step| format!("text {}", (number * 7 + step * step * 3) % 40)).collect();
        if number % 6 == 0 {
            texts.insert(number % 5, long_text());
        }
        let body = json!({"model": TINY, "input": texts}).to_string();
        asks.push((texts, front.post(body).send_meanwhile()));
    }
    for (number, (texts, ask)) in asks.into_iter().enumerate() {
        let answer = ask.await.expect("it must end");
        if number % 6 == 0 {
            assert_eq!(answer.status, 400, "{texts:?}");
        } else {
            let expected: Vec<_> = texts.iter().flat_map(|text| tiny(&[text])).collect();
            assert_eq!((answer.status, answer.vectors()), (200, expected), "{texts:?}");
        }
    }
}

#[tokio::test]
async fn a_failed_merged_call_is_retried_for_each_request_within_its_attempts() {
    let front = merging(&[("retry.max_attempts", "2")]).await;
    let blocker = occupy(&front).await;
    front.stub.always(Behaviour::Status { code: 500, headers: Vec::new(), body: "broken".to_owned() });
    let asks = vec![ask(&front, "a"), ask(&front, "b")];
    for ask in begin_together(&front, asks, blocker).await {
        assert_eq!(ask.await.expect("a request must end").status, 500);
    }
    let mut calls = sent(&front);
    calls.sort_by_key(Vec::len);
    assert_eq!(calls, [vec!["a"], vec!["b"], vec!["a", "b"]]);
}

#[tokio::test]
async fn a_truncated_merged_answer_does_not_count_as_an_upstream_failure() {
    let front = merging(&[("breaker.failures", "2")]).await;
    let blocker = occupy(&front).await;
    front.stub.next(Behaviour::CutBody);
    let asks = vec![ask(&front, "a"), ask(&front, "b")];
    for (ask, text) in begin_together(&front, asks, blocker).await.into_iter().zip(["a", "b"]) {
        let answer = ask.await.expect("a request must end");
        assert_eq!((answer.status, answer.vectors()), (200, tiny(&[text])));
    }
    assert_eq!(sent(&front).len(), 3, "both are asked for again, each alone");
    assert!(front.metric("vecho_upstream_breaker_opened_total").await < 0.5);
}

#[tokio::test]
async fn merged_calls_have_no_more_tokens_than_a_call_may_have() {
    let front = merging(&[("batch.max_tokens", "40")]).await;
    let texts = ["a", "b", "c"].map(|name| format!("{name} {}", "word ".repeat(20)));
    let asks = texts.iter().map(|text| ask(&front, text)).collect();
    for answer in send_together(&front, asks).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(sent(&front).len(), 3, "two of them would be too much");
}

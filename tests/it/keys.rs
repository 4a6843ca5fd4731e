//! Cache keys: two inputs share a stored vector only if no part of the request can make their vectors differ.

use serde_json::{Value, json};

use crate::harness::front::{Ask, TINY, texts_of, tiny};
use crate::harness::{Front, Inside, Stub};

fn body(input: &Value) -> Value {
    json!({"model": TINY, "input": input})
}

/// Sends each body twice. The first request is a miss that goes upstream, the second one a hit, and both return the
/// right vectors.
async fn assert_kept_apart(cases: &[(Value, Vec<Vec<f32>>)]) {
    let front = Front::start().await;
    for (known, (body, expected)) in cases.iter().enumerate() {
        let fetched = front.ask(body).await;
        assert_eq!((&fetched.vectors(), fetched.cache()), (expected, "miss"), "{body}");
        assert_eq!(front.calls(), known + 1, "{body}");
    }
    for (body, expected) in cases {
        let stored = front.ask(body).await;
        assert_eq!((&stored.vectors(), stored.cache()), (expected, "hit"), "{body}");
    }
    assert_eq!(front.calls(), cases.len());
}

/// Sends all requests in order. Only the first one goes upstream; the others return its vector.
async fn assert_shared(front: &Front, asks: Vec<Ask>, expected: &[Vec<f32>]) {
    for (place, ask) in asks.into_iter().enumerate() {
        let answer = ask.send().await;
        assert_eq!(answer.vectors(), expected, "number {place}");
        assert_eq!(answer.cache(), if place == 0 { "miss" } else { "hit" }, "number {place}");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn tokens_and_texts_that_look_like_them_have_different_keys() {
    let tokens = vec![Stub::vector(TINY, None, [1, 2])];
    assert_kept_apart(&[
        (body(&json!([1, 2])), tokens),
        (body(&json!("[1, 2]")), tiny(&["[1, 2]"])),
        (body(&json!("[1,2]")), tiny(&["[1,2]"])),
        (body(&json!(["1", "2"])), tiny(&["1", "2"])),
        (body(&json!([[1], [2]])), vec![Stub::vector(TINY, None, [1]), Stub::vector(TINY, None, [2])]),
        (body(&json!([12])), vec![Stub::vector(TINY, None, [12])]),
    ])
    .await;
}

#[tokio::test]
async fn one_token_array_is_the_same_input_alone_and_in_a_list() {
    let front = Front::start().await;
    let asks = [json!([1, 2]), json!([[1, 2]])].map(|input| front.post(body(&input).to_string())).into();
    assert_shared(&front, asks, &[Stub::vector(TINY, None, [1, 2])]).await;
}

#[tokio::test]
async fn one_text_is_the_same_input_alone_and_in_a_list() {
    let front = Front::start().await;
    let asks = [json!("one"), json!(["one"])].map(|input| front.post(body(&input).to_string())).into();
    assert_shared(&front, asks, &tiny(&["one"])).await;
}

#[tokio::test]
async fn a_text_that_looks_like_a_field_does_not_set_it() {
    assert_kept_apart(&[
        (json!({"model": TINY, "input": "x", "dimensions": 256}), vec![Stub::vector(TINY, Some(256), "x")]),
        (body(&json!("xdimensions: 256")), tiny(&["xdimensions: 256"])),
        (body(&json!("x")), tiny(&["x"])),
        (json!({"model": "tinyx", "input": "y"}), vec![Stub::vector("tinyx", None, "y")]),
        (body(&json!("xy")), tiny(&["xy"])),
    ])
    .await;
}

#[tokio::test]
async fn different_dimensions_have_different_keys() {
    let asked = |dimensions: Value| json!({"model": TINY, "input": "x", "dimensions": dimensions});
    assert_kept_apart(&[
        (asked(json!(4)), vec![Stub::vector(TINY, Some(4), "x")]),
        (asked(json!(16)), vec![Stub::vector(TINY, Some(16), "x")]),
        (asked(Value::Null), tiny(&["x"])),
    ])
    .await;
}

#[tokio::test]
async fn dimensions_4_and_4_0_are_equal() {
    let front = Front::start().await;
    let ask = |dimensions: &str| front.post(format!(r#"{{"model":"tiny","input":"x","dimensions":{dimensions}}}"#));
    assert_shared(&front, vec![ask("4"), ask("4.0")], &[Stub::vector(TINY, Some(4), "x")]).await;
}

#[tokio::test]
async fn different_models_have_different_keys() {
    let asked = |model: &str| (json!({"model": model, "input": "x"}), vec![Stub::vector(model, None, "x")]);
    assert_kept_apart(&[asked("tiny"), asked("Tiny"), asked("tiny-2")]).await;
}

#[tokio::test]
async fn additional_fields_are_part_of_the_key() {
    let asked = |name: &str, value: &str| {
        let expected = vec![Stub::vector_with(TINY, (name, value), "x")];
        (json!({"model": TINY, "input": "x", name: value}), expected)
    };
    assert_kept_apart(&[
        (body(&json!("x")), tiny(&["x"])),
        asked("task", "query"),
        asked("task", "passage"),
        asked("input_type", "query"),
        asked("input_type", "passage"),
    ])
    .await;
}

#[tokio::test]
async fn case_and_whitespace_are_part_of_a_text() {
    let texts = ["Paris", "paris", "PARIS", " paris", "paris ", "paris\n", "pa ris", "   ", "\u{e9}", "e\u{301}"];
    let cases: Vec<_> = texts.iter().map(|text| (body(&json!(text)), tiny(&[*text]))).collect();
    assert_kept_apart(&cases).await;
}

#[tokio::test]
async fn json_spelling_does_not_change_the_key_of_a_text() {
    let front = Front::start().await;
    let written = [
        r#"{"model":"tiny","input":"<é> 😀/"}"#,
        r#"{"model":"tiny","input":"\u003c\u00e9\u003e \ud83d\ude00\/"}"#,
        r#" { "input" : [ "\u003cé> 😀/" ] , "model" : "tin\u0079" } "#,
        "{\n\t\"input\": \"<\\u00E9> 😀/\",\n\t\"model\": \"tiny\"\n}",
    ];
    let asks = written.map(|json| front.post(json)).into();
    assert_shared(&front, asks, &tiny(&["<é> 😀/"])).await;
}

#[tokio::test]
async fn the_order_of_a_requests_fields_does_not_matter() {
    let front = Front::start().await;
    let written = [
        r#"{"model":"tiny","input":"x","dimensions":4,"task":"query","input_type":"q"}"#,
        r#"{"input_type":"q","task":"query","dimensions":4,"input":"x","model":"tiny"}"#,
    ];
    let expected = front.post(written[0]).send().await.vectors();
    let hit = front.post(written[1]).send().await;
    assert_eq!((hit.vectors(), hit.cache(), front.calls()), (expected, "hit", 1));
}

#[tokio::test]
async fn texts_with_control_characters_are_kept_unchanged() {
    let texts = ["nul \0 inside", "line \u{2028} separator", "tab\t", "quote\" and \\"];
    let cases: Vec<_> = texts.iter().map(|text| (body(&json!(text)), tiny(&[*text]))).collect();
    assert_kept_apart(&cases).await;
}

#[tokio::test]
async fn fields_that_do_not_shape_a_vector_are_not_in_its_key() {
    let front = Front::start().await;
    let ask = |more: Value| {
        let mut body = texts_of(&["x"]);
        let fields = more.as_object().expect("further fields").clone();
        body.as_object_mut().expect("a body is an object").extend(fields);
        front.post(body.to_string())
    };
    let asks = vec![
        ask(json!({})),
        ask(json!({"encoding_format": "base64"})),
        ask(json!({"encoding_format": "float"})),
        ask(json!({"encoding_format": null})),
        ask(json!({"user": "somebody"})),
        ask(json!({"user": "somebody else"})),
        ask(json!({})).header("x-stainless-retry-count", "2"),
        ask(json!({})).header("user-agent", "OpenAI/Python 1.2.3"),
        ask(json!({})).header("x-request-id", "mine"),
        ask(json!({})).header("content-type", "application/json; charset=utf-8"),
    ];
    assert_shared(&front, asks, &tiny(&["x"])).await;
}

#[tokio::test]
async fn keys_depend_on_the_secret() {
    let mut seen = Vec::new();
    for secret in [&[][..], &[("cache.key_secret", "one")], &[("cache.key_secret", "two")]] {
        let key = key_under(secret).await;
        assert_eq!(key, key_under(secret).await, "another process with the same secret finds it");
        assert!(key.is_string() && !seen.contains(&key), "{secret:?}: {key}");
        seen.push(key);
    }
}

/// Returns the key of a text in a vecho with these settings.
async fn key_under(settings: &[(&str, &str)]) -> Value {
    let vecho = Inside::start("mock:", settings).await;
    let explain = format!("http://{}/api/performance/cache/explain", vecho.admin());
    vecho.client.post(&explain, &body(&json!("x"))).await.json()["inputs"][0]["key"].take()
}

#[tokio::test]
async fn different_namespaces_share_no_entries() {
    let front = Front::start().await;
    for (place, namespace) in [None, Some("a"), Some("b"), Some("A")].into_iter().enumerate() {
        for cache in ["miss", "hit"] {
            let plain = front.post(texts_of(&["x"]).to_string());
            let ask = match namespace {
                Some(name) => plain.header("x-vecho-namespace", name),
                None => plain,
            };
            assert_eq!(ask.send().await.cache(), cache, "{namespace:?}");
        }
        assert_eq!(front.calls(), place + 1);
    }
}

#[tokio::test]
async fn different_deployments_and_api_versions_share_no_entries() {
    let front = Front::start().await;
    let paths = [
        ("/openai/deployments/one/embeddings?api-version=2024-10-21", "one"),
        ("/openai/deployments/two/embeddings?api-version=2024-10-21", "two"),
        ("/openai/deployments/one/embeddings?api-version=2025-01-01", "one"),
        ("/openai/deployments/one/embeddings", "one"),
    ];
    for (path, model) in paths {
        for cache in ["miss", "hit"] {
            let answer = front.post_to(path, r#"{"input":"x"}"#).header("api-key", "k").send().await;
            assert_eq!((answer.vectors(), answer.cache()), (vec![Stub::vector(model, None, "x")], cache), "{path}");
        }
    }
    let sent: Vec<String> = front.stub.embedding_calls().into_iter().map(|call| call.path).collect();
    assert_eq!(sent, paths.map(|(path, _)| path));
}

#[tokio::test]
async fn both_embeddings_paths_share_their_entries() {
    let front = Front::start().await;
    let asks = ["/v1/embeddings", "/embeddings"].map(|path| front.post_to(path, texts_of(&["x"]).to_string()));
    assert_shared(&front, asks.into(), &tiny(&["x"])).await;
}

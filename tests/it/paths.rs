//! Embeddings paths under every base URL: the upstream path equals that of a direct request, and equivalent paths
//! share one key.

use serde_json::json;

use crate::harness::Front;
use crate::harness::front::tiny;

const BODY: &str = r#"{"model":"tiny","input":"a"}"#;

/// Sends a request to each path and checks its cache status. A miss must reach the upstream at the path beside it.
async fn assert_paths(base: &str, paths: &[(&str, &str, &str)]) {
    let front = Front::behind(base, &[]).await;
    for (path, cache, upstream) in paths {
        let before = front.calls();
        let answer = front.post_to(path, BODY).send().await;
        assert_eq!((answer.status, answer.cache()), (200, *cache), "{base} {path}");
        if *cache == "miss" {
            assert_eq!(front.calls(), before + 1, "{base} {path}");
            assert_eq!(front.stub.embedding_calls().pop().expect("a call").path, *upstream, "{base} {path}");
        } else {
            assert_eq!(front.calls(), before, "{base} {path}");
        }
    }
}

#[tokio::test]
async fn a_base_url_that_includes_the_service_path_is_cached_under_one_key() {
    for base in
        ["/v1beta/openai", "/api/v1", "/serving-endpoints", "/engines/v1", "/openai/v1", "/models", "/api/openai"]
    {
        let whole = format!("{base}/embeddings");
        assert_paths(
            base,
            &[(&whole, "miss", &whole), (&whole, "hit", ""), ("/embeddings", "hit", ""), ("/v1/embeddings", "hit", "")],
        )
        .await;
    }
}

#[tokio::test]
async fn double_and_trailing_slashes_are_forwarded_and_share_a_key() {
    for written in ["/v1//embeddings", "/v1/embeddings/", "//v1/embeddings"] {
        assert_paths("/v1", &[(written, "miss", written), (written, "hit", ""), ("/v1/embeddings", "hit", "")]).await;
    }
    assert_paths("/v1", &[("//embeddings", "miss", "/v1//embeddings"), ("/embeddings", "hit", "")]).await;
    assert_paths("", &[("//embeddings", "miss", "//embeddings"), ("/embeddings", "hit", "")]).await;
}

#[tokio::test]
async fn a_prefix_before_azure_paths_is_sent_only_once() {
    let (short, whole) =
        ("/openai/deployments/d/embeddings?api-version=1", "/my-api/openai/deployments/d/embeddings?api-version=1");
    assert_paths("/my-api", &[(short, "miss", whole), (short, "hit", ""), (whole, "hit", "")]).await;
    assert_paths("/my-api/openai", &[(short, "miss", whole), (whole, "hit", "")]).await;
    assert_paths("/my-api/openai/deployments/d", &[("/embeddings?api-version=1", "miss", whole), (whole, "hit", "")])
        .await;
    assert_paths("", &[(whole, "miss", whole), (whole, "hit", "")]).await;
    let other = "/openai/deployments/d/embeddings?api-version=2";
    assert_paths("/openai/v1", &[(short, "miss", short), (other, "miss", other), (other, "hit", "")]).await;
}

#[tokio::test]
async fn a_deployment_path_sets_the_model_with_any_base_url() {
    for (base, path) in [
        ("/my-api", "/openai/deployments/tiny/embeddings"),
        ("/openai/deployments/tiny", "/embeddings"),
        ("", "/x/deployments/tiny/embeddings/"),
    ] {
        let front = Front::behind(base, &[]).await;
        for cache in ["miss", "hit"] {
            let answer = front.post_to(path, r#"{"input":"a"}"#).send().await;
            assert_eq!((answer.cache(), answer.vectors()), (cache, tiny(&["a"])), "{base} {path}");
        }
    }
}

#[tokio::test]
async fn a_base_url_that_is_the_embeddings_path_itself_is_cached() {
    let front = Front::behind("/v1/embeddings", &[]).await;
    for cache in ["miss", "hit"] {
        let answer = front.post_to("/v1/embeddings", BODY).send().await;
        assert_eq!((answer.cache(), answer.vectors()), (cache, tiny(&["a"])));
    }
}

#[tokio::test]
async fn a_path_that_resembles_embeddings_reports_a_bypass() {
    let front = Front::behind("", &[]).await;
    let paths = ["/api/embed", "/embed", "/v1/embeddings/x", "/v1/embedding"];
    for path in paths {
        let answer = front.post_to(path, BODY).send().await;
        assert_eq!((answer.status, answer.cache()), (404, "bypass"), "{path}");
        assert_eq!(answer.header("x-vecho-bypass-reason"), Some(&*format!("other_path; path=\"{path}\"")));
    }
    assert!((front.metric(r#"vecho_bypass_total{reason="other_path"}"#).await - 4.0).abs() < f64::EPSILON);
    let chat = front.post_to("/v1/chat/completions", r#"{"messages":[]}"#).send().await;
    assert_eq!((chat.status, chat.header("x-vecho-cache"), chat.header("x-vecho-bypass-reason")), (200, None, None));
}

#[tokio::test]
async fn an_ollama_request_with_a_prompt_names_the_member() {
    let front = Front::behind("", &[]).await;
    let answer = front.post_to("/api/embeddings", json!({"model": "tiny", "prompt": "a"}).to_string()).send().await;
    let reason = r#"unknown_field; member="prompt""#;
    assert_eq!((answer.cache(), answer.header("x-vecho-bypass-reason")), ("bypass", Some(reason)));
}

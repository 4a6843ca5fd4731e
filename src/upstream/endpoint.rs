//! Which path is an embeddings path, and which address of the upstream stands behind a path of ours.

use http::Uri;
use http::uri::PathAndQuery;

/// What a path of the public port asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Embeddings; the body names the model.
    Embeddings,
    /// Embeddings of an Azure deployment; the path names the model.
    Deployment,
    /// Anything else.
    Other,
}

/// Tells an embeddings path from others.
pub fn classify_path(path: &str) -> RouteKind {
    match path {
        "/v1/embeddings" | "/embeddings" | "/openai/v1/embeddings" => RouteKind::Embeddings,
        _ => path
            .strip_prefix("/openai/deployments/")
            .and_then(|rest| rest.strip_suffix("/embeddings"))
            .filter(|deployment| !deployment.is_empty() && !deployment.contains('/'))
            .map_or(RouteKind::Other, |_| RouteKind::Deployment),
    }
}

/// The upstream's address for a path and query of ours. `base` is what an application would have called its base URL.
///
/// A base with a path (`https://api.openai.com/v1`) stands for our `/v1` and for our root alike, since clients are
/// given either. A base without one takes every path as it is, and so do Azure's paths, which begin at the root.
pub fn upstream_uri(base: &Uri, ours: &PathAndQuery) -> Uri {
    let base_path = base.path().trim_end_matches('/');
    let rest = if base_path.is_empty() || is_under(ours.as_str(), "/openai") || is_under(ours.as_str(), base_path) {
        ours.as_str().to_owned()
    } else if is_under(ours.as_str(), "/v1") {
        format!("{base_path}{}", &ours.as_str()["/v1".len()..])
    } else {
        format!("{base_path}{}", ours.as_str())
    };
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(rest.parse().expect("a valid path behind a valid base must be a valid path"));
    Uri::from_parts(parts).expect("a base with scheme and authority must stay a valid address")
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(base: &str, ours: &str) -> String {
        upstream_uri(&base.parse().expect("a base"), &ours.parse().expect("a path")).to_string()
    }

    #[test]
    fn both_base_urls_of_a_client_reach_the_same_place() {
        for ours in ["/v1/embeddings", "/embeddings"] {
            assert_eq!(mapped("https://api.openai.com/v1", ours), "https://api.openai.com/v1/embeddings");
        }
        assert_eq!(mapped("http://h:1/v1/", "/v1/chat/completions?x=1"), "http://h:1/v1/chat/completions?x=1");
        assert_eq!(mapped("http://h/api/openai", "/v1/models"), "http://h/api/openai/models");
        assert_eq!(mapped("http://h/v1", "/v1?x"), "http://h/v1?x");
        assert_eq!(mapped("http://h/v1", "/v10/x"), "http://h/v1/v10/x");
    }

    #[test]
    fn a_base_without_a_path_takes_every_path_as_it_is() {
        assert_eq!(mapped("http://h:1", "/v1/embeddings"), "http://h:1/v1/embeddings");
        assert_eq!(mapped("http://h:1", "/"), "http://h:1/");
    }

    #[test]
    fn azure_paths_begin_at_the_root() {
        let path = "/openai/deployments/d/embeddings?api-version=2024-10-21";
        assert_eq!(mapped("https://x.openai.azure.com", path), format!("https://x.openai.azure.com{path}"));
        assert_eq!(mapped("https://h/openai/v1", "/openai/v1/embeddings"), "https://h/openai/v1/embeddings");
        assert_eq!(mapped("https://h/openai/v1", "/v1/embeddings"), "https://h/openai/v1/embeddings");
    }

    #[test]
    fn embeddings_paths_are_told_from_others() {
        assert_eq!(classify_path("/embeddings"), RouteKind::Embeddings);
        assert_eq!(classify_path("/openai/deployments/my-d/embeddings"), RouteKind::Deployment);
        for other in
            ["/v1/embeddings/", "/v1/models", "/openai/deployments//embeddings", "/openai/deployments/a/b/embeddings"]
        {
            assert_eq!(classify_path(other), RouteKind::Other, "{other}");
        }
    }
}

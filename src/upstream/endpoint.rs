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
        _ => deployment(path).map_or(RouteKind::Other, |_| RouteKind::Deployment),
    }
}

/// The name of the Azure deployment whose embeddings a path asks for.
pub fn deployment(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/openai/deployments/")?.strip_suffix("/embeddings")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The path of a request, put behind the base, is longer than an address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's address for this path would be too long")]
pub struct TooLong;

/// The upstream's address for a path and query of ours. `base` is what an application would have called its base URL.
///
/// A base with a path (`https://api.openai.com/v1`) stands for our `/v1` and for our root alike, since clients are
/// given either. A base without one takes every path as it is, and so do Azure's paths, which begin at the root.
pub fn upstream_uri(base: &Uri, ours: &PathAndQuery) -> Result<Uri, TooLong> {
    let base_path = base.path().trim_end_matches('/');
    if base_path.is_empty() || is_under(ours.as_str(), "/openai") || is_under(ours.as_str(), base_path) {
        return joined(base, ours.clone());
    }
    let rest = if is_under(ours.as_str(), "/v1") {
        format!("{base_path}{}", &ours.as_str()["/v1".len()..])
    } else {
        format!("{base_path}{}", ours.as_str())
    };
    // Two valid paths one after the other are a valid path, but for the length that an address may have.
    joined(base, rest.parse().map_err(|_| TooLong)?)
}

/// The base's scheme and host with another path.
fn joined(base: &Uri, path: PathAndQuery) -> Result<Uri, TooLong> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| TooLong)
}

/// The port behind an address, said or implied.
pub fn port_of(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

/// True if a path is a prefix or lies below it.
pub(super) fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(base: &str, ours: &str) -> String {
        upstream_uri(&base.parse().expect("a base"), &ours.parse().expect("a path")).expect("it is short").to_string()
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
    fn a_path_that_becomes_too_long_behind_the_base_is_an_error() {
        let ours: PathAndQuery = format!("/{}", "x".repeat(usize::from(u16::MAX) - 10)).parse().expect("a path");
        let uri = |base: &'static str| upstream_uri(&Uri::from_static(base), &ours);
        assert!(uri("http://h").is_ok());
        assert_eq!(uri("http://h/a/long/base/v1"), Err(TooLong));
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

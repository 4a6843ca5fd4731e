//! Embeddings paths, and the upstream's address for a path of the public port.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// Kind of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Embeddings; the body names the model.
    Embeddings,
    /// Embeddings of an Azure deployment; the path names the model.
    Deployment,
    /// Anything else.
    Other,
}

/// Classifies a path. Double slashes, trailing slashes and a prefix make no difference.
pub fn classify_path(path: &str) -> RouteKind {
    let path = normal_path(path);
    if !path.ends_with("/embeddings") {
        RouteKind::Other
    } else if name_in(&path).is_some() {
        RouteKind::Deployment
    } else {
        RouteKind::Embeddings
    }
}

/// Returns true if a path that is not an embeddings path resembles one, such as Ollama's `/api/embed`.
pub fn resembles_embeddings(path: &str) -> bool {
    path.as_bytes().windows("embed".len()).any(|part| part.eq_ignore_ascii_case(b"embed"))
}

/// Returns the name of the deployment in an embeddings path, percent-encoded as in the path.
pub fn deployment(path: &str) -> Option<String> {
    name_in(&normal_path(path)).map(str::to_owned)
}

/// Returns the name in a normalised `.../deployments/{name}/embeddings`.
fn name_in(path: &str) -> Option<&str> {
    let (rest, name) = path.strip_suffix("/embeddings")?.rsplit_once('/')?;
    rest.ends_with("/deployments").then_some(name)
}

/// Returns a path with single slashes and no trailing slash. Servers that accept the other spellings treat them as
/// equal, so keys are made from this one.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    // Most paths are normal already, and a borrowed one costs no allocation.
    if !path.contains("//") && (path.len() <= 1 || !path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        normal.push('/');
        normal.push_str(segment);
    }
    Cow::Owned(if normal.is_empty() { "/".to_owned() } else { normal })
}

/// Error for a path that, appended to the base, is longer than an address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's address for this path would be too long")]
pub struct UriTooLong;

/// Returns the upstream's address for a path and query of the public port. `base` is the base URL that an
/// application would use.
///
/// A base with a path (`https://api.openai.com/v1`) stands for our `/v1` and for our root alike, since clients
/// are given either. A path that already contains the base's path is kept. Azure's paths (`/openai/...`) are
/// appended to the prefix of the base: `/my-api` of `/my-api`, and nothing of `/openai/v1`. The spelling of the
/// path is never changed.
pub fn upstream_uri(base: &Uri, ours: &PathAndQuery) -> Result<Uri, UriTooLong> {
    let base_path = base.path().trim_end_matches('/');
    let text = ours.as_str();
    // If the path begins with several slashes, the text from the last of them on decides.
    let from_root = &text[text.len() - text.trim_start_matches('/').len() - usize::from(text.starts_with('/'))..];
    let prefix = if base_path.is_empty() || is_under(from_root, base_path) {
        ""
    } else if is_under(from_root, "/openai") {
        azure_prefix(base_path)
    } else {
        base_path
    };
    // The base's path replaces our `/v1`, so a base that ends in `/v1` does not double it.
    let rest = if prefix == base_path && is_under(from_root, "/v1") { &from_root["/v1".len()..] } else { text };
    if prefix.is_empty() {
        return joined(base, ours.clone());
    }
    // Two concatenated valid paths are a valid path, unless they exceed the maximum length of an address.
    joined(base, format!("{prefix}{rest}").parse().map_err(|_| UriTooLong)?)
}

/// Returns the part of a base's path that precedes Azure's paths.
fn azure_prefix(base_path: &str) -> &str {
    // Only a whole segment counts: `/openai-proxy` is not Azure's.
    let is_azure = |(place, _): &(usize, &str)| is_under(&base_path[*place..], "/openai");
    let place = base_path.match_indices("/openai").find(is_azure).map(|(place, _)| place);
    place.map_or_else(|| base_path.strip_suffix("/v1").unwrap_or(base_path), |place| &base_path[..place])
}

/// Returns the base's scheme and host with another path.
fn joined(base: &Uri, path: PathAndQuery) -> Result<Uri, UriTooLong> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| UriTooLong)
}

/// Returns the port of an address, explicit or implied by the scheme.
pub fn port_of(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

/// Returns true for the addresses of OpenAI and Azure, whose answers have f32 in base64.
pub fn is_known_service(uri: &Uri) -> bool {
    const DOMAINS: [&str; 3] = [".api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com"];
    let host = uri.host().unwrap_or_default();
    host == "api.openai.com" || DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// Returns true if a path equals a prefix or lies below it.
pub(super) fn is_under(path: &str, prefix: &str) -> bool {
    // The next character must end the segment, or `/v1` would match `/v10`.
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(base: &str, ours: &str) -> String {
        upstream_uri(&base.parse().expect("a base"), &ours.parse().expect("a path")).expect("it is short").to_string()
    }

    /// Base, path of the public port, and path of the upstream; the host is the same.
    const MAPPED: &[(&str, &[(&str, &str)])] = &[
        (
            "",
            &[
                ("/v1/embeddings", "/v1/embeddings"),
                ("/", "/"),
                ("//embeddings", "//embeddings"),
                ("/v1//embeddings/", "/v1//embeddings/"),
                ("/api/v1/embeddings?x=1", "/api/v1/embeddings?x=1"),
                ("/openai/deployments/d/embeddings?api-version=1", "/openai/deployments/d/embeddings?api-version=1"),
            ],
        ),
        (
            "/v1",
            &[
                ("/v1/embeddings", "/v1/embeddings"),
                ("/embeddings", "/v1/embeddings"),
                ("/embeddings/", "/v1/embeddings/"),
                ("//embeddings", "/v1//embeddings"),
                ("/v1//embeddings", "/v1//embeddings"),
                ("//v1/embeddings", "//v1/embeddings"),
                ("/v1?x", "/v1?x"),
                ("/v10/x", "/v1/v10/x"),
                ("/v1/chat/completions?x=1", "/v1/chat/completions?x=1"),
                ("/openai/deployments/d/embeddings", "/openai/deployments/d/embeddings"),
            ],
        ),
        ("/v1/", &[("/v1/chat", "/v1/chat"), ("/embeddings", "/v1/embeddings")]),
        (
            "/v1beta/openai",
            &[
                ("/v1beta/openai/embeddings", "/v1beta/openai/embeddings"),
                ("/v1beta/openai//embeddings", "/v1beta/openai//embeddings"),
                ("/v1/embeddings", "/v1beta/openai/embeddings"),
                ("/v1//embeddings", "/v1beta/openai//embeddings"),
                ("/embeddings", "/v1beta/openai/embeddings"),
                ("/openai/embeddings", "/v1beta/openai/embeddings"),
            ],
        ),
        ("/api/v1", &[("/api/v1/embeddings", "/api/v1/embeddings"), ("/v1/embeddings", "/api/v1/embeddings")]),
        (
            "/serving-endpoints",
            &[
                ("/serving-endpoints/embeddings", "/serving-endpoints/embeddings"),
                ("/embeddings", "/serving-endpoints/embeddings"),
            ],
        ),
        (
            "/engines/v1",
            &[("/engines/v1/embeddings", "/engines/v1/embeddings"), ("/v1/embeddings", "/engines/v1/embeddings")],
        ),
        (
            "/openai/v1",
            &[
                ("/openai/v1/embeddings", "/openai/v1/embeddings"),
                ("/v1/embeddings", "/openai/v1/embeddings"),
                ("/embeddings", "/openai/v1/embeddings"),
                ("/openai/deployments/d/embeddings?v=1", "/openai/deployments/d/embeddings?v=1"),
            ],
        ),
        (
            "/openai/",
            &[
                ("/openai/deployments/d/embeddings", "/openai/deployments/d/embeddings"),
                ("/openai/v1/embeddings", "/openai/v1/embeddings"),
                ("/deployments/d/embeddings", "/openai/deployments/d/embeddings"),
            ],
        ),
        (
            "/api/openai",
            &[
                ("/v1/models", "/api/openai/models"),
                ("/openai/v1/embeddings", "/api/openai/v1/embeddings"),
                ("/api/openai/v1/embeddings", "/api/openai/v1/embeddings"),
            ],
        ),
        (
            "/my-api",
            &[
                ("/openai/deployments/d/embeddings?v=1", "/my-api/openai/deployments/d/embeddings?v=1"),
                ("//openai/deployments/d/embeddings", "/my-api//openai/deployments/d/embeddings"),
                ("/my-api/openai/deployments/d/embeddings?v=1", "/my-api/openai/deployments/d/embeddings?v=1"),
                ("/openai/deployments/a%2Fb%20c/embeddings", "/my-api/openai/deployments/a%2Fb%20c/embeddings"),
                ("/openaix/embeddings", "/my-api/openaix/embeddings"),
                ("/v1/embeddings", "/my-api/embeddings"),
            ],
        ),
        ("/my-api/v1", &[("/openai/deployments/d/embeddings", "/my-api/openai/deployments/d/embeddings")]),
        (
            "/my-openai/openai/deployments/d",
            &[
                ("/embeddings?v=1", "/my-openai/openai/deployments/d/embeddings?v=1"),
                ("/openai/deployments/e/embeddings", "/my-openai/openai/deployments/e/embeddings"),
            ],
        ),
        (
            "/models",
            &[("/models/embeddings?v=1", "/models/embeddings?v=1"), ("/embeddings?v=1", "/models/embeddings?v=1")],
        ),
    ];

    #[test]
    fn each_path_is_mapped_onto_each_base_url() {
        for (base, paths) in MAPPED {
            for (ours, theirs) in *paths {
                assert_eq!(mapped(&format!("http://h:1{base}"), ours), format!("http://h:1{theirs}"), "{base} {ours}");
            }
        }
    }

    #[test]
    fn a_path_that_is_too_long_after_the_base_url_is_an_error() {
        let ours: PathAndQuery = format!("/{}", "x".repeat(usize::from(u16::MAX) - 10)).parse().expect("a path");
        let uri = |base: &'static str| upstream_uri(&Uri::from_static(base), &ours);
        assert!(uri("http://h").is_ok());
        assert_eq!(uri("http://h/a/long/base/v1"), Err(UriTooLong));
    }

    #[test]
    fn embeddings_paths_are_distinguished_from_others() {
        let embeddings = [
            "/embeddings",
            "/v1/embeddings",
            "/v1/embeddings/",
            "//embeddings",
            "/v1//embeddings//",
            "/v1beta/openai/embeddings",
            "/serving-endpoints/embeddings",
            "/openai/deployments//embeddings",
            "/openai/deployments/a/b/embeddings",
            "/deployments/embeddings",
        ];
        for path in embeddings {
            assert_eq!(classify_path(path), RouteKind::Embeddings, "{path}");
        }
        for (path, name) in [
            ("/openai/deployments/my-d/embeddings", "my-d"),
            ("/my-api//openai/deployments/a%2Fb/embeddings/", "a%2Fb"),
            ("/deployments/embeddings/embeddings", "embeddings"),
        ] {
            assert_eq!(
                (classify_path(path), deployment(path).as_deref()),
                (RouteKind::Deployment, Some(name)),
                "{path}"
            );
        }
        for other in ["/", "/v1/models", "/v1/embeddings/x", "/v1/myembeddings", "/api/embed", "/v1/Embeddings"] {
            assert_eq!((classify_path(other), deployment(other)), (RouteKind::Other, None), "{other}");
        }
    }

    #[test]
    fn equivalent_spellings_of_a_path_have_one_normal_form() {
        for (path, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            ("/v1/embeddings", "/v1/embeddings"),
            ("//v1///embeddings//", "/v1/embeddings"),
            ("/a%2F/b", "/a%2F/b"),
        ] {
            assert_eq!(normal_path(path), normal);
        }
    }

    #[test]
    fn paths_that_resemble_embeddings_are_recognised() {
        for path in ["/api/embed", "/embed", "/v1/embeddings/x", "/Embedding"] {
            assert!(resembles_embeddings(path), "{path}");
        }
        for path in ["/v1/chat/completions", "/emb", ""] {
            assert!(!resembles_embeddings(path), "{path}");
        }
    }
}

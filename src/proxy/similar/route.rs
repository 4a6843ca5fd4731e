//! Paths of similarity requests.

use http::Uri;

use crate::upstream::normal_path;

/// End of vecho's own paths. They begin like the embeddings paths of the same client.
const OWN_PATH: &str = "/vecho/similar";

/// Path of TEI's similarity route.
pub(super) const TEI_PATH: &str = "/similarity";

/// The address of a similarity request.
pub(in crate::proxy) struct SimilarRoute {
    /// The embeddings address on the public port for its inputs.
    pub(super) embeddings: Uri,
    /// True for vecho's own path, false for TEI's, which the upstream may know as well.
    pub(in crate::proxy) is_own: bool,
}

impl SimilarRoute {
    /// Returns the route of a path, if it is one of a similarity request.
    pub(in crate::proxy) fn of(uri: &Uri) -> Option<Self> {
        let path = normal_path(uri.path());
        let prefix = path.strip_suffix(OWN_PATH);
        let is_own = prefix.is_some();
        // Clients are given a base URL that ends in `/v1`, or one without a path. Both have the same embeddings
        // address at nearly every upstream.
        let prefix = match prefix.or_else(|| (path == TEI_PATH).then_some(""))? {
            "" => "/v1",
            prefix => prefix,
        };
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let embeddings = format!("{prefix}/embeddings{query}").parse().ok()?;
        Some(Self { embeddings, is_own })
    }

    /// Returns the pattern of the path for traces.
    pub(in crate::proxy) const fn pattern(&self) -> &'static str {
        if self.is_own { "/{prefix}/vecho/similar" } else { TEI_PATH }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(path: &str) -> Option<(String, bool)> {
        SimilarRoute::of(&path.parse().expect("an address")).map(|route| (route.embeddings.to_string(), route.is_own))
    }

    #[test]
    fn the_embeddings_path_is_that_of_the_same_client() {
        for (path, expected) in [
            ("/vecho/similar", "/v1/embeddings"),
            ("//vecho/similar/", "/v1/embeddings"),
            ("/v1/vecho/similar", "/v1/embeddings"),
            ("/api/v3/vecho/similar?x=1", "/api/v3/embeddings?x=1"),
            ("/openai/deployments/d/vecho/similar?api-version=1", "/openai/deployments/d/embeddings?api-version=1"),
        ] {
            assert_eq!(embeddings(path), Some((expected.to_owned(), true)), "{path}");
        }
        assert_eq!(embeddings("/similarity"), Some(("/v1/embeddings".to_owned(), false)));
        for path in ["/v1/similarity", "/similar", "/vecho/similarity", "/vecho", "/"] {
            assert_eq!(embeddings(path), None, "{path}");
        }
    }
}

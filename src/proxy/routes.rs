//! Routes that the public port answers itself. All other requests pass through.

/// Methods and paths, as `src/admin/openapi.json` describes them. Those that end in `/embeddings` or `/vecho/similar` are
/// answered under any prefix as well.
pub const OWN_ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/embeddings"),
    ("POST", "/embeddings"),
    ("POST", "/openai/deployments/{deployment}/embeddings"),
    ("POST", "/v1/vecho/similar"),
    ("POST", "/vecho/similar"),
    ("POST", "/similarity"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::similar::SimilarRoute;
    use crate::upstream::{RouteKind, classify_path};

    #[test]
    fn each_route_is_known_by_its_path() {
        for (_, path) in OWN_ROUTES {
            if path.contains("similar") {
                assert!(SimilarRoute::of(&path.parse().expect("an address")).is_some(), "{path}");
                continue;
            }
            let kind = if path.contains("{deployment}") { RouteKind::Deployment } else { RouteKind::Embeddings };
            assert_eq!(classify_path(path), kind, "{path}");
        }
    }
}

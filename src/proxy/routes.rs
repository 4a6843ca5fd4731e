//! Routes that the public port answers itself. All other requests pass through.

/// Methods and paths, as `src/admin/openapi.json` describes them. Embeddings are answered under any prefix as well.
pub const OWN_ROUTES: &[(&str, &str)] =
    &[("POST", "/v1/embeddings"), ("POST", "/embeddings"), ("POST", "/openai/deployments/{deployment}/embeddings")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{RouteKind, classify_path};

    #[test]
    fn each_route_is_an_embeddings_path() {
        for (_, path) in OWN_ROUTES {
            let kind = if path.contains("{deployment}") { RouteKind::Deployment } else { RouteKind::Embeddings };
            assert_eq!(classify_path(path), kind, "{path}");
        }
    }
}

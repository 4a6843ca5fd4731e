//! Addresses of the Batch API, and the differences between OpenAI and Azure.

use http::Uri;
use http::uri::PathAndQuery;

use crate::cli::moving::CommandError;
use crate::config::{Config, KeyHeader, UpstreamTarget};
use crate::upstream::{RouteKind, classify_path, normal_path, upstream_uri};

/// The Batch API of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    /// Address of live requests, on the same server.
    origin: Uri,
    /// Path before `/files` and `/batches`.
    prefix: String,
    /// Query of every request, with Azure's `api-version`.
    query: Option<String>,
    /// Endpoint of each request in a file.
    pub(super) endpoint: &'static str,
    /// True if a batch may be created only after its file has been processed.
    pub(super) waits_for_file: bool,
}

impl Dialect {
    /// Derives the addresses from those of an embeddings request to `path`.
    pub(super) fn of(config: &Config, path: &str) -> Result<Self, CommandError> {
        let UpstreamTarget::Http(base) = &config.upstream.target else {
            return Err("the upstream is the built-in mock, which has no Batch API; set upstream.url".to_owned());
        };
        let wrong = || format!("--path {path} is not the path of an embeddings request");
        let ours: PathAndQuery = path.parse().map_err(|_| wrong())?;
        let uri = upstream_uri(base, &ours).map_err(|error| error.to_string())?;
        let (kind, full) = (classify_path(uri.path()), normal_path(uri.path()).into_owned());
        let is_deployment = kind == RouteKind::Deployment;
        let prefix = match kind {
            RouteKind::Other => return Err(wrong()),
            // The API belongs to the resource, not to one of its deployments.
            RouteKind::Deployment => full.rsplit_once("/deployments/").map_or("", |(prefix, _)| prefix),
            RouteKind::Embeddings => full.strip_suffix("/embeddings").unwrap_or_default(),
        };
        let is_azure = is_deployment
            || prefix.ends_with("/openai/v1")
            || uri.host().is_some_and(|host| host.ends_with(".azure.com"))
            || config.upstream.api_key_header == KeyHeader::ApiKey;
        Ok(Self {
            prefix: prefix.to_owned(),
            query: uri.query().map(str::to_owned),
            endpoint: if is_deployment { "/embeddings" } else { "/v1/embeddings" },
            waits_for_file: is_azure,
            origin: uri,
        })
    }

    /// Returns the address of live requests.
    pub(super) const fn live(&self) -> &Uri {
        &self.origin
    }

    /// Returns the address of a path below the API, with parameters.
    pub(super) fn uri(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Uri, CommandError> {
        let own = self.query.iter().cloned();
        let query: Vec<String> = own.chain(parameters.iter().map(|(name, value)| format!("{name}={value}"))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("{}{path}{mark}{}", self.prefix, query.join("&"));
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| format!("{path} is not a path"))?);
        Uri::from_parts(parts).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(base: &str, path: &str) -> Dialect {
        let config = Config::from_pairs(&[("upstream.url", base)]).expect("it is free of faults");
        Dialect::of(&config, path).expect("it has a Batch API")
    }

    #[test]
    fn addresses_are_derived_from_those_of_embeddings() {
        let azure = "/openai/deployments/d/embeddings?api-version=2024-10-21";
        let cases = [
            ("https://api.openai.com/v1", "/v1/embeddings", "https://api.openai.com/v1/files", false),
            ("https://api.openai.com", "/v1/embeddings", "https://api.openai.com/v1/files", false),
            ("http://gateway/prefix/v1", "/embeddings", "http://gateway/prefix/v1/files", false),
            (
                "https://r.openai.azure.com/openai/v1",
                "/v1/embeddings",
                "https://r.openai.azure.com/openai/v1/files",
                true,
            ),
            (
                "https://r.openai.azure.com",
                azure,
                "https://r.openai.azure.com/openai/files?api-version=2024-10-21",
                true,
            ),
            ("https://apim/my", azure, "https://apim/my/openai/files?api-version=2024-10-21", true),
        ];
        for (base, path, files, is_azure) in cases {
            let dialect = dialect(base, path);
            assert_eq!(dialect.uri("/files", &[]).expect("a path").to_string(), files);
            assert_eq!(dialect.waits_for_file, is_azure, "{base}");
        }
        let listed = dialect("https://r.openai.azure.com", azure).uri("/files", &[("purpose", "batch")]);
        let listed = listed.expect("a path").to_string();
        assert_eq!(listed, "https://r.openai.azure.com/openai/files?api-version=2024-10-21&purpose=batch");
        assert_eq!(dialect("https://r.openai.azure.com", azure).endpoint, "/embeddings");
        assert_eq!(dialect("https://api.openai.com/v1", "/embeddings").endpoint, "/v1/embeddings");
    }

    #[test]
    fn a_path_without_embeddings_is_refused() {
        let config = Config::from_pairs(&[]).expect("it is free of faults");
        assert!(Dialect::of(&config, "/v1/chat/completions").is_err());
        let mock = Config::from_pairs(&[("upstream.url", "mock:")]).expect("it is free of faults");
        assert!(Dialect::of(&mock, "/v1/embeddings").expect_err("no API").contains("has no Batch API"));
    }
}

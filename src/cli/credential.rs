//! Whose cache it is: the credential that an application of this environment would send.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Config, KeyHeader, Secret};

/// Where clients of OpenAI look for their credential, and the header in which they send it.
const VARIABLES: &[(&str, &str)] = &[("OPENAI_ORG_ID", "openai-organization"), ("OPENAI_PROJECT_ID", "openai-project")];
const API_KEY: &str = "OPENAI_API_KEY";
const AZURE_HEADER: HeaderName = HeaderName::from_static("api-key");

/// What the environment says about it.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    api_key: Option<Secret>,
    others: Vec<(&'static str, String)>,
}

impl Credential {
    /// Reads it as clients of OpenAI do.
    pub fn from_environment(environment: &[(String, String)]) -> Self {
        let value = |wanted: &str| {
            let found = environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let others = VARIABLES.iter().filter_map(|(name, header)| Some((*header, value(name)?))).collect();
        Self { api_key: value(API_KEY).as_deref().map(Secret::new), others }
    }

    /// Whether the environment holds a key.
    pub(super) const fn has_key(&self) -> bool {
        self.api_key.is_some()
    }

    /// The headers that carry it; the key of the configuration where the environment has none.
    pub(super) fn headers(&self, config: &Config) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(key) = self.api_key.as_ref().or(config.upstream.api_key.as_ref()) {
            let (name, text) = match config.upstream.api_key_header {
                KeyHeader::Authorization => (AUTHORIZATION, format!("Bearer {}", key.reveal())),
                KeyHeader::ApiKey => (AZURE_HEADER, key.reveal().to_owned()),
            };
            headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
        }
        for (name, value) in &self.others {
            headers.extend(HeaderValue::from_str(value).ok().map(|value| (HeaderName::from_static(name), value)));
        }
        headers
    }
}

//! Whose cache it is: the credential that an application of this environment would send.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Config, KeyHeader, Origin, Scope, Secret};

/// Where clients of OpenAI look for their credential, and the header in which they send it.
const VARIABLES: &[(&str, &str)] = &[("OPENAI_ORG_ID", "openai-organization"), ("OPENAI_PROJECT_ID", "openai-project")];
const API_KEY: &str = "OPENAI_API_KEY";
const AZURE_HEADER: HeaderName = HeaderName::from_static("api-key");

/// The configuration of a vecho whose callers bring their own key.
pub(super) fn of_callers(config: &Config) -> Config {
    let mut of_callers = config.clone();
    of_callers.upstream.api_key = None;
    if of_callers.cache.scope == Scope::Proxy {
        of_callers.cache.scope = Scope::Credential;
    }
    of_callers
}

/// The configuration of the vecho that will serve, where none runs that could be asked.
///
/// `OPENAI_API_KEY` is first of all an application's: whoever runs a command beside it has it in the environment, and a
/// vecho that is to hold the key is given it by a name or a file of its own, or told its scope.
pub(super) fn of_nobody(config: Config) -> Config {
    let origin =
        |name| config.effective.entries().iter().find(|entry| entry.key.name == name).map(|entry| &entry.origin);
    let is_applications = origin("upstream.api_key") == Some(&Origin::Env(API_KEY.to_owned()));
    let is_scope_said = origin("cache.scope").is_some_and(|origin| *origin != Origin::Default);
    if is_applications && !is_scope_said { of_callers(&config) } else { config }
}

/// For whom entries are that were asked for under this configuration, with this credential.
pub(super) fn whose(config: &Config, credential: &Credential) -> &'static str {
    match config.cache.scope {
        Scope::Credential if credential.has_key() => {
            "in scope credential, for applications that send this OPENAI_API_KEY themselves"
        }
        Scope::Credential if config.upstream.api_key.is_some() => {
            "in scope credential, for applications that send the key of upstream.api_key themselves"
        }
        Scope::Credential => "in scope credential, for callers without a key, since OPENAI_API_KEY is not set",
        Scope::Proxy => "in scope proxy, for a vecho that holds the key",
        Scope::Shared => "in scope shared",
    }
}

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

//! The credential that an application in this environment would send. It determines which entries belong to it.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{CallerIdentity, Config, KeyHeader, Origin, Scope, Secret};

/// Environment variables of OpenAI clients and the headers that carry their values.
const VARIABLES: &[(&str, &str)] = &[("OPENAI_ORG_ID", "openai-organization"), ("OPENAI_PROJECT_ID", "openai-project")];
const API_KEY: &str = "OPENAI_API_KEY";
const AZURE_HEADER: HeaderName = HeaderName::from_static("api-key");

/// Returns the configuration of a vecho whose callers send their own key.
pub(super) fn of_callers(config: &Config) -> Config {
    let mut of_callers = config.clone();
    of_callers.upstream.api_key = None;
    // Scope `proxy` requires a key, so it is invalid without one.
    if of_callers.cache.scope == Scope::Proxy {
        of_callers.cache.scope = Scope::Credential;
    }
    of_callers
}

/// Returns the configuration of a vecho whose callers are named by the claims of their own tokens.
pub(super) fn of_token_owners(config: &Config) -> Config {
    let mut of_owners = of_callers(config);
    of_owners.auth.identity = CallerIdentity::Token;
    of_owners
}

/// Returns the configuration of the vecho that will serve these entries, if none is running.
///
/// `OPENAI_API_KEY` primarily belongs to an application, and a command in the same environment sees it too. A vecho
/// that holds the key normally gets it from its own variable or file, or has an explicit scope.
pub(super) fn of_nobody(config: Config) -> Config {
    let origin =
        |name| config.effective.entries().iter().find(|entry| entry.key.name == name).map(|entry| &entry.origin);
    let is_applications = origin("upstream.api_key") == Some(&Origin::Env(API_KEY.to_owned()));
    let is_scope_said = origin("cache.scope").is_some_and(|origin| *origin != Origin::Default);
    if is_applications && !is_scope_said { of_callers(&config) } else { config }
}

/// Describes the users of entries that this configuration and this credential create.
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

/// Credential in the environment.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    api_key: Option<Secret>,
    others: Vec<(&'static str, String)>,
}

impl Credential {
    /// Reads the credential as OpenAI clients do.
    pub fn from_environment(environment: &[(String, String)]) -> Self {
        let value = |wanted: &str| {
            let found = environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let others = VARIABLES.iter().filter_map(|(name, header)| Some((*header, value(name)?))).collect();
        Self { api_key: value(API_KEY).as_deref().map(Secret::new), others }
    }

    /// Returns true if the environment holds a key.
    pub(super) const fn has_key(&self) -> bool {
        self.api_key.is_some()
    }

    /// Returns the credential's headers. Without a key in the environment, they carry the key of the configuration.
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

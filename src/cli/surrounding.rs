//! The environment of applications that call vecho.

use super::credential::Credential;

/// Settings of OpenAI clients in the environment.
#[derive(Clone, Debug, Default)]
pub struct Surrounding {
    /// The credential that they send.
    pub credential: Credential,
    /// The base URL that they call, `OPENAI_BASE_URL`.
    pub base_url: Option<String>,
}

impl Surrounding {
    pub(super) fn of(environment: &[(String, String)]) -> Self {
        let base_url = environment.iter().find(|(name, value)| name == "OPENAI_BASE_URL" && !value.is_empty());
        let base_url = base_url.map(|(_, value)| value.clone());
        Self { credential: Credential::from_environment(environment), base_url }
    }
}

//! Usage labels of an embeddings request: its model, its namespace and its number of inputs, never a text.

use std::sync::Arc;

use crate::flow::RequestOrigin;
use crate::observe::metrics::{Metrics, RequestUsage, UsageAccount, UsageLabels};
use crate::upstream::deployment;
use crate::wire::EmbedRequest;

/// Usage labels of a request. Without inputs, the request was not parsed.
#[derive(Default)]
pub(super) struct RequestLabels {
    model: String,
    namespace: String,
    inputs: u64,
}

impl RequestLabels {
    /// Takes the labels from a parsed request.
    pub(super) fn new(request: &EmbedRequest<'_>, origin: &RequestOrigin<'_>) -> Self {
        let in_path = || deployment(origin.uri.path()).unwrap_or_default();
        let namespace = origin.namespace.unwrap_or_default();
        Self {
            model: request.space.model.clone().unwrap_or_else(in_path),
            namespace: String::from_utf8_lossy(namespace).into_owned(),
            inputs: request.inputs.len() as u64,
        }
    }

    /// Returns the account that counts the response; `answered` is the model in the response.
    pub(super) fn account(&self, metrics: &Metrics, answered: &str) -> Arc<UsageAccount> {
        metrics.accounts().of(&self.model, &self.namespace, answered)
    }

    /// Returns the labels of a request without a response to count. It opens no account: their number is bounded, and a
    /// client can request any model.
    pub(super) fn subject(&self) -> Option<RequestUsage> {
        let named = || Arc::new(UsageLabels::new(&self.model, &self.namespace));
        (self.inputs > 0).then(|| RequestUsage { named: named(), inputs: self.inputs })
    }
}

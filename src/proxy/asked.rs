//! What is counted and shown of an embeddings request: its model, its namespace and how many inputs; never a text.

use std::sync::Arc;

use http::{HeaderMap, Uri};

use super::controls::namespace;
use crate::metrics::{Account, Metrics, Named, Subject};
use crate::upstream::deployment;
use crate::wire::EmbedRequest;

/// What an embeddings request asks, as far as it is counted. Without inputs it was not understood.
#[derive(Default)]
pub(super) struct Asked {
    model: String,
    namespace: String,
    inputs: u64,
}

impl Asked {
    /// `uri` is the upstream's address.
    pub(super) fn new(request: &EmbedRequest<'_>, uri: &Uri, headers: &HeaderMap) -> Self {
        let in_path = || deployment(uri.path()).unwrap_or_default();
        let namespace = namespace(headers).unwrap_or_default();
        Self {
            model: request.space.model.clone().unwrap_or_else(in_path),
            namespace: String::from_utf8_lossy(namespace).into_owned(),
            inputs: request.inputs.len() as u64,
        }
    }

    /// Where its answer is counted; `answered` is the model that the answer names.
    pub(super) fn account(&self, metrics: &Metrics, answered: &str) -> Arc<Account> {
        metrics.accounts().of(&self.model, &self.namespace, answered)
    }

    /// What is shown of it where it has no answer to be counted. It opens no account: those are few, and a client can
    /// ask for any model.
    pub(super) fn subject(&self) -> Option<Subject> {
        let named = || Arc::new(Named::new(&self.model, &self.namespace));
        (self.inputs > 0).then(|| Subject { named: named(), inputs: self.inputs })
    }
}

//! Turns an embeddings request into the keys of its inputs, so that their entries can be forgotten.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use serde_json::Value;

use super::Proxy;
use super::controls::NAMESPACE;
use super::explain::{refusal, unfit};
use super::tokens::CallerToken;
use crate::cache::ForgetOrder;
use crate::cache::purges::{MAX_FORGOTTEN, TOO_MANY_FORGOTTEN};
use crate::config::Config;
use crate::flow::space_key;

/// Maximum scopes of one request.
const MAX_SCOPES: usize = 256;

impl Proxy {
    /// Returns the keys of a request's inputs in each scope that its headers name, or the reason why the request would
    /// not be cached. A header that chooses the scope may occur several times; each of its values is a scope of its own.
    /// An input that is too long has a second key, that of the text to which `limits.long_input` cuts it.
    pub async fn forget_order(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Result<ForgetOrder, Value> {
        let config = self.live.load();
        let scopes = scopes(&config, headers)?;
        let first = scopes.first().unwrap_or(headers);
        let described = self.described(&config, path, (first, body)).await?;
        let request = described.request(&config)?;
        let origin = described.origin(&config, first, CallerToken::described(&config, first))?;
        let rules = self.input_rules(&config, &origin);
        let inputs = self.flow.possible_inputs(&request, &rules).await.map_err(unfit)?;
        // Each key costs a hash and memory, and no more are remembered.
        if inputs.len().saturating_mul(scopes.len()) > MAX_FORGOTTEN {
            return Err(refusal(TOO_MANY_FORGOTTEN, "its inputs, times the scopes, are more than can be forgotten"));
        }
        let mut keys = HashSet::new();
        for headers in &scopes {
            let token = CallerToken::described(&config, headers);
            let origin = described.origin(&config, headers, token)?;
            let space = space_key(&origin.scope, &origin.uri, &request.space);
            keys.extend(inputs.iter().map(|input| input.key(&space)));
        }
        let until_ms = self.flow.clock.now_ms().saturating_add(config.cache.forgotten_for_ms());
        Ok(ForgetOrder {
            inputs: request.inputs.len(),
            scopes: scopes.len(),
            keys: keys.into_iter().collect(),
            until_ms,
        })
    }
}

/// Returns the headers of one request for each combination of the values of the headers that choose the scope.
fn scopes(config: &Config, headers: &HeaderMap) -> Result<Vec<HeaderMap>, Value> {
    let mut scopes = vec![headers.clone()];
    for name in scope_headers(config) {
        let values: Vec<_> = headers.get_all(&name).iter().cloned().collect();
        if values.len() < 2 {
            continue;
        }
        if scopes.len() * values.len() > MAX_SCOPES {
            return Err(refusal("too_many_scopes", &format!("the headers name more than {MAX_SCOPES} scopes")));
        }
        let with = |scope: &HeaderMap| {
            let (scope, name) = (scope.clone(), &name);
            values.clone().into_iter().map(move |value| {
                let mut scope = scope.clone();
                // Replaces all values of the header.
                scope.insert(name, value);
                scope
            })
        };
        scopes = scopes.iter().flat_map(with).collect();
    }
    Ok(scopes)
}

/// Returns the headers that choose the scope, each once.
fn scope_headers(config: &Config) -> Vec<HeaderName> {
    let mut names = vec![NAMESPACE];
    for name in config.auth.credential_headers.iter().chain(&config.cache.key_headers) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

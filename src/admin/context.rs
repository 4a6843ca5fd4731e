//! Handles of the parts that the ops port shows or steers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use serde_json::Value;

use super::feed::Feed;
use super::guard::Guard;
use crate::cache::{Caches, ForgetOrder};
use crate::config::Live;
use crate::observe::logs::LevelHandle;
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::governor::Governor;
use crate::process::lifecycle::Lifecycle;
use crate::process::system::System;
use crate::spend::SpendGuard;
use crate::upstream::Batcher;

/// Handles of everything that the ops port reaches. Cheap to clone.
#[derive(Clone)]
pub struct AdminContext {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The tiers and the reply cache.
    pub caches: Caches,
    /// Explains requests of the public port.
    pub explainer: Explainer,
    /// Finds the entries of requests of the public port.
    pub finder: Finder,
    /// Readiness of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// Makes the calls; tells the rate limits and the state of several targets.
    pub batcher: Arc<Batcher>,
    /// Counts what calls have cost today.
    pub spend: Arc<SpendGuard>,
    /// Keeps the process under its memory limit.
    pub governor: Arc<Governor>,
    /// The machine or container.
    pub system: Arc<System>,
    /// The configuration in force.
    pub live: Live,
    /// The log level.
    pub level: LevelHandle,
    /// Event feed for open dashboards.
    pub feed: Arc<Feed>,
    /// Access control.
    pub guard: Guard,
    /// Clock.
    pub clock: Clock,
}

impl fmt::Debug for AdminContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminContext").finish_non_exhaustive()
    }
}

type Explain = dyn Fn(String, HeaderMap, Bytes) -> BoxFuture<'static, Value> + Send + Sync;

/// Explains what the public port would do with a request. The public port is a module beside this one, so it is reached
/// by a closure.
#[derive(Clone)]
pub struct Explainer(Arc<Explain>);

impl Explainer {
    /// Creates an explainer. `explain` gets the path, the headers and the body of the request to explain.
    pub fn new<F>(explain: impl Fn(String, HeaderMap, Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Value> + Send + 'static,
    {
        Self(Arc::new(move |path, headers, body| Box::pin(explain(path, headers, body))))
    }

    /// Returns for each input its key, the tier that holds it and its age, or why the request cannot be cached.
    pub(super) async fn explain(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Value {
        (self.0)(path.to_owned(), headers.clone(), body).await
    }
}

type Find = dyn Fn(String, HeaderMap, Bytes) -> BoxFuture<'static, Result<ForgetOrder, Value>> + Send + Sync;

/// Finds the entries of a request of the public port. It is reached by a closure, as the [`Explainer`].
#[derive(Clone)]
pub struct Finder(Arc<Find>);

impl Finder {
    /// Creates a finder. `find` gets the path, the headers and the body of the request.
    pub fn new<F>(find: impl Fn(String, HeaderMap, Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ForgetOrder, Value>> + Send + 'static,
    {
        Self(Arc::new(move |path, headers, body| Box::pin(find(path, headers, body))))
    }

    /// Returns the entries of a request, or why the request cannot be cached.
    pub(super) async fn find(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<ForgetOrder, Value> {
        (self.0)(path.to_owned(), headers.clone(), body).await
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").finish_non_exhaustive()
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").finish_non_exhaustive()
    }
}

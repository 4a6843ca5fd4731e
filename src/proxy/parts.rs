//! The parts of the public port.

use std::sync::Arc;

use super::admission::{AdmissionBounds, AdmissionLimit};
use super::cors::CorsCache;
use super::decode::BodyDecoder;
use super::reply::Replies;
use super::tei_upstream::TeiUpstream;
use crate::cache::reply_cache::ReplyCache;
use crate::config::Live;
use crate::flow::Flow;
use crate::key::ProcessSecret;
use crate::observe::metrics::Metrics;
use crate::process::tasks::Tasks;
use crate::upstream::UpstreamClient;

/// The public port, shared through `Arc`.
pub struct Proxy {
    pub(super) flow: Arc<Flow>,
    pub(super) reply_cache: Arc<ReplyCache>,
    pub(super) client: Arc<UpstreamClient>,
    pub(super) live: Live,
    pub(super) admission_limit: AdmissionLimit,
    pub(super) decoder: BodyDecoder,
    pub(super) cors: CorsCache,
    pub(super) replies: Replies,
    pub(super) tei: TeiUpstream,
    /// Secret for the keys of the reply cache.
    pub(super) answer_secret: ProcessSecret,
    /// Tasks of upgraded connections.
    pub(super) tunnels: Tasks,
    pub(super) metrics: Arc<Metrics>,
}

impl Proxy {
    /// Creates a proxy in front of `flow`, with the same upstream for requests that pass through. Requests and their
    /// responses together hold at most `max_bytes`.
    pub fn new(
        flow: Arc<Flow>,
        reply_cache: Arc<ReplyCache>,
        client: Arc<UpstreamClient>,
        max_bytes: usize,
        tunnels: Tasks,
    ) -> Arc<Self> {
        let (live, metrics) = (flow.live.clone(), Arc::clone(&flow.metrics));
        let config = live.load();
        let bounds = AdmissionBounds { max_requests: config.limits.max_requests, max_bytes };
        let admission_limit = AdmissionLimit::new(bounds, &config.auth.credential_headers, &metrics);
        let (replies, answer_secret) = (Replies::new(), ProcessSecret::new());
        let (decoder, cors) = (BodyDecoder::new(), CorsCache::new());
        Arc::new(Self {
            flow,
            reply_cache,
            client,
            live,
            admission_limit,
            decoder,
            cors,
            replies,
            tei: TeiUpstream::default(),
            answer_secret,
            tunnels,
            metrics,
        })
    }
}

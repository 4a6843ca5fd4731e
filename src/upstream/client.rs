//! One call to the upstream: the connection pool, the credential that vecho holds, and the timeouts of a call.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};

use super::body::{ClientBody, ForwardedBody, UpstreamBody};
use super::connections::{ConnectionLimits, Connections, ForwardError};
use super::headers::{KEY_HEADERS, SECRETS_ELSEWHERE};
use super::http2::StreamEnd;
use super::in_process::{self, InProcess};
use super::memory_budget::Reservation;
use super::reading::read_reply;
use super::redirect::{may_share_credentials, next_call};
use super::send_error::SendError;
use super::{Class, Failure, LaneProperties, UnavailableReason, UpstreamReply};
use crate::config::{Config, KeyHeader, Live, Secret};
use crate::observe::traces::TraceContext;
use crate::process::certificate::ReloadableCertificate;
use crate::process::connector::{Connecting, TimedConnector, TlsError};
use crate::process::errors::cause_of;

/// Makes calls. Used by `Arc`.
pub struct UpstreamClient {
    transport: Transport,
    /// Client certificate for the upstream.
    identity: Option<Arc<ReloadableCertificate>>,
    live: Live,
    /// Place of its target in the configuration.
    target: Option<usize>,
}

enum Transport {
    Http(Box<Connections>),
    InProcess(InProcess),
}

impl UpstreamClient {
    /// Creates a client for the configured upstream.
    pub fn http(live: Live) -> Result<Self, TlsError> {
        let config = live.load();
        let upstream = &config.upstream;
        let files = upstream.egress.identity.clone();
        let identity = files.map(|files| ReloadableCertificate::load(files.cert_file, files.key_file)).transpose()?;
        let identity = identity.map(Arc::new);
        let connector = TimedConnector::new(Connecting {
            limit: upstream.connect_timeout,
            limit_key: "upstream.connect_timeout",
            ca_file: upstream.ca_file.as_deref(),
            ca_key: "upstream.ca_file",
            proxies: &upstream.egress.proxies,
            identity: identity.as_ref(),
        })?;
        let limits = ConnectionLimits {
            max_concurrent: upstream.max_concurrent,
            idle_timeout: upstream.idle_timeout,
            max_age: upstream.max_connection_age,
            http2: upstream.egress.http2,
        };
        let transport = Transport::Http(Box::new(Connections::new(&connector, limits)));
        Ok(Self { transport, identity, live, target: None })
    }

    /// Creates a client for a target, by its place in the configuration. It has connections and a key of its own.
    pub fn for_target(live: Live, target: usize) -> Result<Self, TlsError> {
        Ok(Self { target: Some(target), ..Self::http(live)? })
    }

    /// Creates a client with a function as its upstream.
    pub fn in_process(embedder: InProcess, live: Live) -> Self {
        Self { transport: Transport::InProcess(embedder), identity: None, live, target: None }
    }

    /// Returns the client certificate.
    pub const fn identity(&self) -> Option<&Arc<ReloadableCertificate>> {
        self.identity.as_ref()
    }

    /// Posts a JSON body and reads the whole answer within the configured limits. The request may have ended by then;
    /// the answer is paid for, so it is read to its end if it fits in memory. The call carries its own trace context.
    pub(super) async fn post(
        &self,
        properties: &LaneProperties,
        body: Bytes,
        call: &TraceContext,
        reservation: &Reservation,
    ) -> Result<UpstreamReply, Failure> {
        let connections = match &self.transport {
            Transport::Http(connections) => connections,
            Transport::InProcess(embedder) => return in_process::post(embedder, properties, body).await,
        };
        let config = self.live.load();
        let outgoing =
            OutgoingCall { config: &config, credential: self.credential(&config), properties, trace: call, body };
        // One deadline covers the head and the body of the answer.
        let until = Instant::now() + config.upstream.call_timeout;
        let response = timeout_at(until, outgoing.send(connections))
            .await
            .map_err(|_| Failure::unavailable(UnavailableReason::Timeout, "the upstream sent no answer in time"))??;
        timeout_at(until, read_reply(response, config.upstream.max_answer_bytes, properties.encoding, reservation))
            .await
            .map_err(|_| {
                Failure::unavailable(UnavailableReason::Timeout, "the upstream's answer did not end in time")
            })?
    }

    /// Forwards a request unchanged, except for a credential that vecho holds, and streams the answer.
    pub async fn forward(&self, mut request: Request<ClientBody>) -> Result<Response<ForwardedBody>, ForwardError> {
        let connections = match &self.transport {
            Transport::Http(connections) => connections,
            Transport::InProcess(embedder) => {
                return in_process::forward(embedder, request, self.live.load().limits.max_body_bytes).await;
            }
        };
        let config = self.live.load();
        authorize(&config, self.credential(&config), request.headers_mut());
        Ok(connections.forward(request).await?.map(ForwardedBody::Streamed))
    }
}

impl UpstreamClient {
    /// Returns the key that vecho holds for this place, if there is one.
    fn credential<'c>(&self, config: &'c Config) -> Option<(&'c Secret, KeyHeader)> {
        let target = self.target.and_then(|target| config.targets.get(target));
        match target {
            Some(target) => Some((&target.api_key, target.api_key_header)),
            None => Some((config.upstream.api_key.as_ref()?, config.upstream.api_key_header)),
        }
    }
}

/// One outgoing embeddings call.
struct OutgoingCall<'a> {
    config: &'a Config,
    credential: Option<(&'a Secret, KeyHeader)>,
    properties: &'a LaneProperties,
    trace: &'a TraceContext,
    body: Bytes,
}

impl OutgoingCall<'_> {
    /// Sends the call and follows one redirect. The answer to the second call is final, whatever it is.
    async fn send(self, connections: &Connections) -> Result<Response<UpstreamBody>, Failure> {
        let uri = &self.properties.uri;
        let mut response = self.send_to(uri, connections).await?;
        if let Some(next) = next_call(uri, response.status(), response.headers()) {
            match self.send_to(&next, connections).await {
                // The redirect target is unreachable, so the redirect itself is the upstream's answer.
                Err(failure) if failure.class == Class::Unavailable(UnavailableReason::Connect) => {}
                followed => response = followed?,
            }
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let detail = "an unrequested switch of protocols (status 101)";
            return Err(Failure::unavailable(UnavailableReason::Status, detail));
        }
        Ok(response)
    }

    /// Sends the call to an address, with credentials if they may be sent there.
    async fn send_to(&self, uri: &Uri, connections: &Connections) -> Result<Response<UpstreamBody>, Failure> {
        let mut request = Request::new(ClientBody::whole(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.properties.headers.clone();
        let headers = request.headers_mut();
        self.trace.write(headers);
        if may_share_credentials(&self.properties.uri, uri) {
            // The lane's headers never hold vecho's key, so each call adds it.
            authorize(self.config, self.credential, headers);
        } else {
            // Another host may belong to someone else, so it gets no credential of vecho or the caller.
            remove_credentials(self.config, headers);
            for name in &SECRETS_ELSEWHERE {
                headers.remove(name);
            }
        }
        connections.call(request).await.map_err(|error| failure_of(&error))
    }
}

/// Replaces any credential of the request by the key that vecho holds, if there is one.
fn authorize(config: &Config, credential: Option<(&Secret, KeyHeader)>, headers: &mut HeaderMap) {
    let Some((key, header)) = credential else {
        return;
    };
    // The caller's key may be in another header than the configured one, and only one key may be sent.
    remove_credentials(config, headers);
    let (name, text) = match header {
        KeyHeader::Authorization => ("authorization", format!("Bearer {}", key.reveal())),
        KeyHeader::ApiKey => ("api-key", key.reveal().to_owned()),
    };
    // The configuration has checked that the key is a valid header value.
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        // Debug output of headers hides a sensitive value.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

fn remove_credentials(config: &Config, headers: &mut HeaderMap) {
    for name in KEY_HEADERS.iter().chain(&config.auth.credential_headers) {
        headers.remove(name);
    }
}

fn failure_of(error: &SendError) -> Failure {
    match error {
        SendError::Client(error) if error.is_connect() => {
            Failure::unavailable(UnavailableReason::Connect, cause_of(error))
        }
        SendError::Client(error) => Failure::unavailable(UnavailableReason::Dropped, cause_of(error)),
        SendError::Connect(error) => Failure::unavailable(UnavailableReason::Connect, cause_of(&**error)),
        SendError::Stream(error) if error.end == StreamEnd::Reset => {
            Failure::unavailable(UnavailableReason::Reset, cause_of(error))
        }
        SendError::Stream(error) => Failure::unavailable(UnavailableReason::Dropped, cause_of(error)),
        SendError::Proxy(error) => Failure::unavailable(UnavailableReason::Connect, error.to_string()),
        SendError::InterimFlood => Failure::unavailable(UnavailableReason::Status, error.to_string()),
    }
}

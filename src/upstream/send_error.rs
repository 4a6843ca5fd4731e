//! Errors of requests without an answer.

use hyper_util::client::legacy;

use super::http2::StreamError;
use crate::process::connector::ProxyError;
use crate::process::errors::{BoxError, root_cause_of};

/// Maximum number of interim answers to one request. Servers send one or two.
pub(super) const MAX_INTERIM: u32 = 32;

/// Error of a request without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The client failed.
    #[error(transparent)]
    Client(#[from] legacy::Error),
    /// No connection with HTTP/2 could be opened.
    #[error("{}", root_cause_of(&**.0))]
    Connect(BoxError),
    /// A stream of a connection with HTTP/2 ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A forward proxy refused the request.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Too many interim answers arrived.
    #[error("more than {MAX_INTERIM} interim answers (status 1xx)")]
    InterimFlood,
}

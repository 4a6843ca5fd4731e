//! The body of a request to the upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::process::errors::BoxError;

/// Error of an outgoing body if its client sends no more of it in time.
#[derive(Debug, thiserror::Error)]
#[error("no more of the body arrived in time")]
pub struct BodyStalled;

/// Body of a request to the upstream.
#[derive(Debug)]
pub struct ClientBody(ClientContent);

#[derive(Debug)]
enum ClientContent {
    /// In memory, so the request can be repeated.
    Whole(Bytes),
    /// Read from the client while it is sent.
    Streamed(UnsyncBoxBody<Bytes, BoxError>),
}

impl ClientBody {
    /// Returns a body without bytes.
    pub const fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// Returns a body in memory.
    pub const fn whole(bytes: Bytes) -> Self {
        Self(ClientContent::Whole(bytes))
    }

    /// Returns a body that is read while it is sent. If it has ended already, it becomes an empty body in memory.
    pub fn streamed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        // A body in memory makes the request repeatable, see `repeatable_copy` in connections.rs.
        if body.is_end_stream() { Self::empty() } else { Self(ClientContent::Streamed(body.boxed_unsync())) }
    }

    /// Returns the bytes of a body in memory.
    pub(super) const fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            ClientContent::Whole(bytes) => Some(bytes),
            ClientContent::Streamed(_) => None,
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            ClientContent::Whole(bytes) => {
                // The body is one frame. The empty rest then marks its end.
                let rest = std::mem::take(bytes);
                Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
            }
            ClientContent::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            ClientContent::Whole(bytes) => bytes.is_empty(),
            ClientContent::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            // An exact size makes hyper send `content-length` in place of chunks.
            ClientContent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ClientContent::Streamed(body) => body.size_hint(),
        }
    }
}

/// The body of an answer as it arrives.
pub struct UpstreamBody {
    incoming: Incoming,
    /// Stream of a connection with HTTP/2, dropped when the body has ended.
    stream: Option<Box<dyn Send + Sync>>,
}

impl UpstreamBody {
    /// Returns a body that has its connection to itself.
    pub(super) fn plain(incoming: Incoming) -> Self {
        Self { incoming, stream: None }
    }

    /// Returns a body that holds its stream until it has ended.
    pub(super) fn of_stream(incoming: Incoming, stream: impl Send + Sync + 'static) -> Self {
        Self { incoming, stream: Some(Box::new(stream)) }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        // A frame may be the last one, and then nothing polls the body again.
        if !matches!(frame, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.stream = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a forwarded answer.
pub enum ForwardedBody {
    /// Passed on as it arrives.
    Streamed(UpstreamBody),
    /// In memory already.
    Whole(Bytes),
}

//! Connection that records its use, so a failed request can tell whether a kept connection was dead.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::Extensions;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Record of the use of one connection, shared by the connection, its responses and its errors.
#[derive(Clone, Debug, Default)]
pub struct ConnectionUse(Arc<UseCounters>);

#[derive(Debug, Default)]
struct UseCounters {
    /// True if a response has arrived over the connection.
    answered: AtomicBool,
    /// True if no request was written since that response.
    is_between: AtomicBool,
    /// Bytes read.
    received: AtomicU64,
    /// Bytes read before the last request.
    received_before: AtomicU64,
}

impl ConnectionUse {
    /// Returns the record in the extensions of a response or of a connection's metadata.
    pub fn find(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Returns the record of the connection on which an error happened.
    pub fn of_connection(connected: &Connected) -> Option<Self> {
        // The error offers the record only as an extension, so it goes through a map.
        let mut extensions = Extensions::new();
        connected.get_extras(&mut extensions);
        extensions.remove()
    }

    /// Records a response. Returns true if it is not the first one, so the server keeps connections open.
    pub fn record_response(&self) -> bool {
        // The next write begins a request, as one connection carries one request at a time.
        self.0.is_between.store(true, Ordering::Relaxed);
        self.0.answered.swap(true, Ordering::Relaxed)
    }

    /// Returns true if a response has arrived over the connection.
    pub fn has_answered(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed)
    }

    /// Returns true if the connection had answered before, and no byte arrived after the last request.
    pub fn died_unanswered(&self) -> bool {
        let UseCounters { answered, received, received_before, .. } = &*self.0;
        answered.load(Ordering::Relaxed) && received.load(Ordering::Relaxed) == received_before.load(Ordering::Relaxed)
    }

    fn record_read(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records an attempt to write. The first one after a response begins a request.
    fn record_write(&self) {
        // The swap lets only the first write of a request store the count.
        if self.0.is_between.swap(false, Ordering::Relaxed) {
            self.0.received_before.store(self.0.received.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// A connection with a [`ConnectionUse`].
pub struct Tracked<S> {
    stream: S,
    usage: ConnectionUse,
    /// True if a proxy reads the requests, which are then in absolute form.
    is_forwarded: bool,
}

impl<S> Tracked<S> {
    pub(super) fn new(stream: S, is_forwarded: bool) -> Self {
        Self { stream, usage: ConnectionUse::default(), is_forwarded }
    }

    /// Returns the record of the connection's use.
    pub const fn usage(&self) -> &ConnectionUse {
        &self.usage
    }
}

impl<S: Connection> Tracked<S> {
    /// Returns true if the TLS handshake chose HTTP/2.
    pub fn chose_http2(&self) -> bool {
        self.stream.connected().is_negotiated_h2()
    }
}

impl<S: Connection> Connection for Tracked<S> {
    fn connected(&self) -> Connected {
        // The client copies this record into each response of the connection.
        self.stream.connected().proxy(self.is_forwarded).extra(self.usage.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The buffer may hold bytes of an earlier read.
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.usage.record_read(buffer.filled().len() - before);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.usage.record_write();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.usage.record_write();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reused_connection_without_response_bytes_died_unanswered() {
        let usage = ConnectionUse::default();
        usage.record_write();
        assert!(!usage.died_unanswered(), "a new connection");
        usage.record_read(100);
        assert!(!usage.record_response(), "the first response");
        usage.record_read(20);
        usage.record_write();
        assert!(usage.died_unanswered());
        usage.record_read(1);
        usage.record_write();
        assert!(!usage.died_unanswered(), "a response had begun while the request was written");
        assert!(usage.record_response());
    }
}

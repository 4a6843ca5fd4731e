//! The socket as hyper sees it. Records the facts for timeouts, and adds a body to hyper's own error responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::HeadScan;
use super::reply;
use super::stats::{ConnectionStats, RequestPart};

/// Socket that records its use. Also owns `slot`, which is released with the socket, even after an upgrade.
#[derive(Debug)]
pub(super) struct ObservedStream<S, T> {
    inner: S,
    stats: Arc<ConnectionStats>,
    head: HeadScan,
    substitute: Option<Substitute>,
    _slot: T,
}

/// Response that is sent instead of hyper's.
#[derive(Debug)]
struct Substitute {
    bytes: Vec<u8>,
    written: usize,
}

impl<S, T> ObservedStream<S, T> {
    pub(super) fn new(inner: S, stats: Arc<ConnectionStats>, slot: T) -> Self {
        Self { inner, stats, head: HeadScan::default(), substitute: None, _slot: slot }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        match self.stats.read_bytes() {
            RequestPart::Other => return,
            // A new head begins, so nothing of the previous one may count.
            RequestPart::HeadStart => self.head = HeadScan::default(),
            RequestPart::HeadRest => {}
        }
        self.head.read(bytes);
        if self.head.has_length_and_coding() {
            self.stats.note_two_lengths();
        }
    }

    fn note(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => self.stats.write_blocked(),
            // A failed write carries 0 bytes, and ends the blocked state.
            Poll::Ready(written) => self.stats.wrote(*written.as_ref().unwrap_or(&0)),
        }
        polled
    }

    /// Starts a substitute if `first` is all that hyper writes and is one of hyper's own error heads.
    fn substitute_bare_refusal(&mut self, first: &[u8], all_bytes: usize) {
        // hyper writes its error head alone and in one piece. Anything longer is a response.
        let bare = self.stats.speaks_for_itself() && first.len() == all_bytes && reply::is_bare_refusal(first);
        // hyper repeats a write that was pending. The substitute of the first attempt goes on then.
        if bare && self.substitute.is_none() {
            self.stats.note_bare_reply();
            self.substitute = Some(Substitute { bytes: reply::explain_refusal(first), written: 0 });
        }
    }
}

impl<S: AsyncWrite + Unpin, T> ObservedStream<S, T> {
    /// Writes the substitute, then reports `replaced_bytes` as written to hyper.
    fn poll_substitute(&mut self, cx: &mut Context<'_>, replaced_bytes: usize) -> Poll<io::Result<usize>> {
        while let Some(substitute) = &mut self.substitute {
            let rest = &substitute.bytes[substitute.written..];
            if rest.is_empty() {
                self.substitute = None;
                break;
            }
            let polled = Pin::new(&mut self.inner).poll_write(cx, rest);
            // A part may be written. The next poll continues at `written`.
            let written = ready!(self.note(polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some(substitute) = &mut self.substitute {
                substitute.written += written;
            }
        }
        // hyper must take its own bytes for written. It never sees the substitute.
        Poll::Ready(Ok(replaced_bytes))
    }
}

impl<S: AsyncRead + Unpin, T: Unpin> AsyncRead for ObservedStream<S, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.note_read(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: Unpin> AsyncWrite for ObservedStream<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.substitute_bare_refusal(buf, buf.len());
        if self.substitute.is_some() {
            return self.poll_substitute(cx, buf.len());
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all_bytes = bufs.iter().map(|buf| buf.len()).sum();
        self.substitute_bare_refusal(bufs.first().map_or(&[], |first| first), all_bytes);
        if self.substitute.is_some() {
            return self.poll_substitute(cx, all_bytes);
        }
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        match polled {
            Poll::Pending => self.stats.write_blocked(),
            Poll::Ready(_) => self.stats.flushed(),
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        // The shutdown of TLS writes bytes, so it can be blocked by the peer as well.
        self.note(polled.map_ok(|()| 0)).map_ok(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

    async fn written_through(stats: &Arc<ConnectionStats>, bytes: &[u8], pipe_bytes: usize) -> String {
        let (near, mut far) = tokio::io::duplex(pipe_bytes);
        let mut watched = ObservedStream::new(near, Arc::clone(stats), ());
        let write = async {
            watched.write_all(bytes).await.expect("the pipe is open");
            drop(watched);
        };
        let mut seen = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut seen), write);
        read.expect("what was written is text");
        seen
    }

    #[tokio::test]
    async fn a_bare_refusal_gets_a_body_even_through_a_pipe_of_a_few_bytes() {
        let stats = ConnectionStats::new(true);
        let seen = written_through(&stats, BARE, 7).await;
        assert!(seen.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{seen}");
        assert!(
            seen.ends_with(r#""type":"invalid_request_error","param":null,"code":"unreadable_request"}}"#),
            "{seen}"
        );
        assert!(stats.had_bare_reply());
    }

    #[tokio::test]
    async fn the_answer_of_a_handler_passes_unchanged() {
        let stats = ConnectionStats::new(true);
        drop(stats.begin_call());
        assert_eq!(written_through(&stats, BARE, 1024).await.as_bytes(), BARE);
    }

    #[tokio::test]
    async fn http2_bytes_pass_untouched() {
        let stats = ConnectionStats::new(false);
        assert_eq!(written_through(&stats, BARE, 1024).await.as_bytes(), BARE);
    }
}

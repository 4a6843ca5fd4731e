//! State of one connection, from which its timeouts are derived.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

/// Least size of a write that carries part of a response. HTTP/2 pings, acknowledgements and GOAWAY frames are smaller.
const ANSWER_BYTES: usize = 1024;

/// Written by the stream, the calls and the responses; read by the watch. Each field stands for itself, and on HTTP/1.1
/// one task accesses all of them, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct ConnectionStats {
    // HTTP/1.1 alone has a head phase and one request at a time. HTTP/2 interleaves its frames.
    http1: bool,
    // Calls whose response is not sent completely.
    in_flight: AtomicUsize,
    // Calls begun so far. Two idle periods differ in this number.
    requests: AtomicU64,
    // True from the first byte of a head until its call begins.
    head_begun: AtomicBool,
    // True while hyper's buffer may hold a part of a response.
    owes_bytes: AtomicBool,
    // True while the socket takes no bytes.
    write_blocked: AtomicBool,
    // Writes so far. A peer that reads slowly changes this number, and its timeout restarts.
    writes: AtomicU64,
    // Responses on HTTP/2 whose next chunk waits for the peer's window.
    unread: AtomicUsize,
    // Chunks and large writes that an HTTP/2 peer has accepted.
    taken: AtomicU64,
    // True after hyper has answered an unreadable head itself.
    bare_reply: AtomicBool,
    // True while the head that is read, or was read last, has two lengths.
    two_lengths: AtomicBool,
}

/// Event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request. No byte of it has arrived.
    Idle,
    /// The rest of a request head.
    Head,
    /// Our response, or a request body, which has a timeout of its own.
    Serving,
    /// The peer, which must read bytes of a response.
    Writing,
}

/// Part of a request that was read from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPart {
    /// The first bytes of an HTTP/1.1 head.
    HeadStart,
    /// Further bytes of an HTTP/1.1 head.
    HeadRest,
    /// A body, or any part of HTTP/2.
    Other,
}

impl ConnectionStats {
    pub(super) fn new(http1: bool) -> Arc<Self> {
        Arc::new(Self { http1, ..Self::default() })
    }

    /// Returns the phase, and a number that distinguishes two periods in the same phase.
    pub(super) fn phase(&self) -> (Phase, u64) {
        // A blocked socket comes first: a call in flight would otherwise hide a peer that does not read.
        if self.write_blocked.load(Relaxed) {
            return (Phase::Writing, self.writes.load(Relaxed));
        }
        let phase = if self.unread.load(Relaxed) > 0 {
            Phase::Writing
        } else if self.in_flight.load(Relaxed) > 0 {
            Phase::Serving
        } else if self.head_begun.load(Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        };
        // Either counter changes when the peer makes progress, which restarts the timeout of the phase.
        (phase, self.requests.load(Relaxed) + self.taken.load(Relaxed))
    }

    /// Records that bytes were read. Returns the part of a request to which they belong.
    pub(super) fn read_bytes(&self) -> RequestPart {
        // HTTP/2 also has frames that belong to no request, so only the idle timeout applies to it.
        if !self.http1 || self.in_flight.load(Relaxed) > 0 {
            return RequestPart::Other;
        }
        if self.head_begun.load(Relaxed) {
            return RequestPart::HeadRest;
        }
        self.head_begun.store(true, Relaxed);
        RequestPart::HeadStart
    }

    /// Records that the head that is being read has both `Content-Length` and `Transfer-Encoding`.
    pub(super) fn note_two_lengths(&self) {
        self.two_lengths.store(true, Relaxed);
    }

    /// Returns true once if the last head had both `Content-Length` and `Transfer-Encoding`.
    pub(super) fn take_two_lengths(&self) -> bool {
        // The load spares nearly all requests the more costly swap.
        self.two_lengths.load(Relaxed) && self.two_lengths.swap(false, Relaxed)
    }

    /// Records that bytes were written.
    pub(super) fn wrote(&self, bytes: usize) {
        count_alone(&self.writes);
        // On HTTP/2, hyper may send the end of a response after its call. Such a write restarts the idle timeout.
        if !self.http1 && bytes >= ANSWER_BYTES {
            self.taken.fetch_add(1, Relaxed);
        }
        self.write_blocked.store(false, Relaxed);
    }

    /// Records that the peer does not read at the moment.
    pub(super) fn write_blocked(&self) {
        self.write_blocked.store(true, Relaxed);
    }

    /// Records that all of hyper's output was passed to the operating system.
    pub(super) fn flushed(&self) {
        self.write_blocked.store(false, Relaxed);
        // hyper flushes only when its own buffer is empty, so without a call in flight no part of a response is left in
        // it.
        if self.in_flight.load(Relaxed) == 0 {
            self.owes_bytes.store(false, Relaxed);
        }
    }

    /// Returns true if bytes that hyper writes now can only be its own response to an unreadable request head.
    pub(super) fn speaks_for_itself(&self) -> bool {
        self.http1 && !self.owes_bytes.load(Relaxed)
    }

    /// Records that hyper sent its own error response. The rest of the peer's data is not read as requests.
    pub(super) fn note_bare_reply(&self) {
        self.bare_reply.store(true, Relaxed);
    }

    /// Returns true if hyper sent its own error response.
    pub(super) fn had_bare_reply(&self) -> bool {
        self.bare_reply.load(Relaxed)
    }

    /// Begins a call of the handler, which lasts until the guard is dropped.
    pub(super) fn begin_call(self: &Arc<Self>) -> CallGuard {
        self.in_flight.fetch_add(1, Relaxed);
        count_alone(&self.requests);
        // The head is complete. Bytes that follow belong to the body, or to the next head after this call.
        self.head_begun.store(false, Relaxed);
        self.owes_bytes.store(true, Relaxed);
        CallGuard(Arc::clone(self))
    }
}

/// Increments a counter that only this task writes. A load and a store cost a tenth of an atomic addition.
fn count_alone(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// Request in flight, from its head to the last byte of the response body.
#[derive(Debug)]
pub(super) struct CallGuard(Arc<ConnectionStats>);

impl CallGuard {
    /// Records that the next chunk of the response waits for the peer. On HTTP/2 a peer can leave a response unread
    /// without blocking the socket. On HTTP/1.1 the socket shows it.
    fn await_peer(&self) {
        if !self.0.http1 {
            self.0.unread.fetch_add(1, Relaxed);
        }
    }

    /// Records that the peer has room for the next chunk of the response.
    fn peer_took(&self) {
        if !self.0.http1 {
            self.0.unread.fetch_sub(1, Relaxed);
            self.0.taken.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Response body that keeps its request in flight while it is sent.
#[derive(Debug)]
pub(super) struct CountedBody<B> {
    body: B,
    awaits_peer: bool,
    call: CallGuard,
}

impl<B> CountedBody<B> {
    pub(super) fn new(body: B, call: CallGuard) -> Self {
        // hyper polls the body when the peer has room. Until the first poll, the response waits for the peer.
        call.await_peer();
        Self { body, awaits_peer: true, call }
    }

    fn set_awaits_peer(&mut self, awaits_peer: bool) {
        match (self.awaits_peer, awaits_peer) {
            (false, true) => self.call.await_peer(),
            (true, false) => self.call.peer_took(),
            (true, true) | (false, false) => {}
        }
        self.awaits_peer = awaits_peer;
    }
}

impl<B> Drop for CountedBody<B> {
    fn drop(&mut self) {
        // A stream that the peer resets may end while its chunk waits.
        self.set_awaits_peer(false);
    }
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        // hyper polls for a chunk only when the peer has room for one.
        self.set_awaits_peer(false);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // A chunk that is handed over waits for the peer. A pending body waits for the handler.
        self.set_awaits_peer(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_new_connection_is_idle_until_its_first_byte_begins_a_head() {
        let stats = ConnectionStats::new(true);
        assert_eq!(stats.phase(), (Phase::Idle, 0));
        assert_eq!(stats.read_bytes(), RequestPart::HeadStart);
        assert_eq!(stats.phase(), (Phase::Head, 0));
        assert_eq!(stats.read_bytes(), RequestPart::HeadRest);
    }

    #[test]
    fn a_body_read_during_a_call_begins_no_head() {
        let stats = ConnectionStats::new(true);
        stats.read_bytes();
        let call = stats.begin_call();
        assert_eq!(stats.read_bytes(), RequestPart::Other);
        assert_eq!(stats.phase(), (Phase::Serving, 1));
        drop(call);
        assert_eq!(stats.phase(), (Phase::Idle, 1));
    }

    #[test]
    fn a_blocked_write_takes_precedence_and_progress_restarts_the_phase() {
        let stats = ConnectionStats::new(true);
        let _call = stats.begin_call();
        stats.write_blocked();
        assert_eq!(stats.phase(), (Phase::Writing, 0));
        stats.wrote(1);
        assert_eq!(stats.phase().0, Phase::Serving);
        stats.write_blocked();
        assert_eq!(stats.phase(), (Phase::Writing, 1));
    }

    #[test]
    fn an_unflushed_answer_is_never_mistaken_for_a_reply_of_hyper() {
        let stats = ConnectionStats::new(true);
        assert!(stats.speaks_for_itself());
        let call = stats.begin_call();
        stats.flushed();
        assert!(!stats.speaks_for_itself(), "a flush during the call says nothing about the answer");
        drop(call);
        assert!(!stats.speaks_for_itself(), "the answer is still in hyper's buffer");
        stats.flushed();
        assert!(stats.speaks_for_itself());
    }

    #[test]
    fn an_http2_answer_is_in_the_write_phase_only_if_the_peer_has_no_window() {
        let stats = ConnectionStats::new(false);
        let mut body = CountedBody::new(Slow, stats.begin_call());
        assert_eq!(stats.phase().0, Phase::Writing);
        assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(stats.phase().0, Phase::Serving);
        drop(body);
        assert_eq!(stats.phase().0, Phase::Idle);
    }

    #[test]
    fn only_writes_that_carry_an_answer_keep_an_http2_connection_from_idling() {
        let stats = ConnectionStats::new(false);
        let stay = stats.phase();
        stats.wrote(ANSWER_BYTES - 1);
        assert_eq!(stats.phase(), stay);
        stats.wrote(ANSWER_BYTES);
        assert_ne!(stats.phase(), stay);
    }

    /// A body without a ready chunk.
    struct Slow;

    impl Body for Slow {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[test]
    fn http2_has_no_head_phase_and_no_bare_replies() {
        let stats = ConnectionStats::new(false);
        assert_eq!(stats.read_bytes(), RequestPart::Other);
        assert_eq!(stats.phase(), (Phase::Idle, 0));
        assert!(!stats.speaks_for_itself());
    }
}

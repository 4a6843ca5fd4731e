//! Request bodies, with limits on their size, on the pause between two chunks and on the total time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::process::errors::BoxError;

/// Bytes reserved ahead for a body of declared length before they arrive.
const AHEAD_BYTES: usize = 256 * 1024;

/// Reason why a body did not arrive completely.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No chunk arrived for this long.
    #[error("no part of the body arrived for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// It was not complete by its deadline.
    #[error("the body was not complete in time")]
    Late,
    /// The connection broke, or the peer ended it.
    #[error("the body was cut off: {0}")]
    Cut(#[source] BoxError),
}

/// Reason why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It is larger than allowed.
    #[error("the body is larger than {max_bytes} bytes")]
    TooLarge {
        /// Largest allowed size.
        max_bytes: usize,
    },
    /// There was no memory for one of its chunks.
    #[error("there is no room for the body")]
    NoRoom,
    /// It did not arrive completely.
    #[error(transparent)]
    Incomplete(#[from] BodyError),
}

/// Limits of a request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Largest size in bytes.
    pub max_bytes: usize,
    /// Longest pause between two chunks.
    pub pause: Duration,
    /// Longest time until it is complete.
    pub whole: Duration,
}

/// Body that fails if a chunk does not arrive in time. If the body is available at once, no timer starts.
#[derive(Debug)]
pub struct TimedBody<B> {
    body: B,
    max_pause: Duration,
    whole: Option<Duration>,
    deadline: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> TimedBody<B> {
    /// Allows `max_pause` between two chunks of `body`.
    pub fn new(body: B, max_pause: Duration) -> Self {
        Self { body, max_pause, whole: None, deadline: None, alarm: None, waiting: false }
    }

    /// Also allows at most `whole` for the complete body, from the first wait on. One timer serves both limits.
    fn whole_within(self, whole: Duration) -> Self {
        Self { whole: Some(whole), ..self }
    }

    /// Resolves if the wait for this chunk has exceeded its limit. The wait starts with the first poll.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            self.set_alarm();
        }
        self.alarm.as_mut().map_or(Poll::Pending, |alarm| alarm.as_mut().poll(cx))
    }

    fn set_alarm(&mut self) {
        let now = Instant::now();
        // The total time begins with the first wait, so a body that is already here needs no call to the clock.
        if self.deadline.is_none() {
            self.deadline = self.whole.map(|whole| now + whole);
        }
        let stalled = now + self.max_pause;
        let until = self.deadline.map_or(stalled, |deadline| deadline.min(stalled));
        // The timer is kept for the next wait, because a new one costs an allocation.
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().reset(until),
            none => *none = Some(Box::pin(sleep_until(until))),
        }
    }

    fn overdue(&self) -> BodyError {
        // One timer serves both limits, so the clock tells which of them has expired.
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_late { BodyError::Late } else { BodyError::Stalled(self.max_pause) }
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Data comes before the timer: a chunk that is already here is never late.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Cut(error.into()))));
        }
        self.poll_stalled(cx).map(|()| Some(Err(self.overdue())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Collects `body`, if it stays within `bounds` and `admit` accepts the length of each chunk as it arrives. A body of
/// one chunk is not copied.
pub async fn collect_bounded<B>(
    body: B,
    bounds: BodyBounds,
    mut admit: impl FnMut(usize) -> bool,
) -> Result<Bytes, CollectError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let max_bytes = bounds.max_bytes;
    // The lower bound is the declared `Content-Length`, or 0 for a chunked body.
    let stated_bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if stated_bytes > max_bytes {
        return Err(CollectError::TooLarge { max_bytes });
    }
    let mut pieces = TimedBody::new(body, bounds.pause).whole_within(bounds.whole);
    let mut collected = CollectedBody::default();
    while let Some(frame) = pieces.frame().await {
        // Trailers are not data and are ignored.
        if let Ok(piece) = frame?.into_data() {
            if collected.len() + piece.len() > max_bytes {
                return Err(CollectError::TooLarge { max_bytes });
            }
            // Memory is reserved as bytes arrive, because a declared length costs the peer nothing.
            if !admit(piece.len()) {
                return Err(CollectError::NoRoom);
            }
            collected.add(piece, stated_bytes);
        }
        // The end is known after the last byte of a declared length, which spares one more poll.
        if pieces.is_end_stream() {
            break;
        }
    }
    Ok(collected.finish())
}

/// Chunks received so far.
enum CollectedBody {
    One(Bytes),
    Many(BytesMut),
}

impl Default for CollectedBody {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl CollectedBody {
    fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.len(),
        }
    }

    fn add(&mut self, piece: Bytes, stated_bytes: usize) {
        match self {
            // A body in one chunk shares the memory of hyper's buffer.
            Self::One(first) if first.is_empty() => *first = piece,
            Self::One(first) => {
                let mut all = BytesMut::from(&**first);
                append(&mut all, &piece, stated_bytes);
                *self = Self::Many(all);
            }
            Self::Many(all) => append(all, &piece, stated_bytes),
        }
    }

    fn finish(self) -> Bytes {
        match self {
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.freeze(),
        }
    }
}

/// Grows the buffer by the bytes to come, but at most by the larger of its length and `AHEAD_BYTES`. So a declared
/// length alone reserves little memory.
fn append(all: &mut BytesMut, piece: &[u8], stated_bytes: usize) {
    if all.capacity() - all.len() < piece.len() {
        let to_come = stated_bytes.saturating_sub(all.len());
        all.reserve(to_come.min(all.len().max(AHEAD_BYTES)).max(piece.len()));
    }
    all.extend_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn up_to(max_bytes: usize) -> BodyBounds {
        BodyBounds { max_bytes, pause: TIMEOUT, whole: TIMEOUT }
    }

    /// Sends one byte after each `pause`, `count` times, and then nothing more.
    fn trickle(count: u32, pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let bytes = stream::unfold(0, move |sent| async move {
            if sent == count {
                return std::future::pending().await;
            }
            tokio::time::sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
        });
        StreamBody::new(Box::pin(bytes))
    }

    fn pieces(pieces: &[&'static str]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let whole = Bytes::from(vec![7_u8; 4096]);
        let collected = collect_bounded(Full::new(whole.clone()), up_to(4096), |_| true).await.expect("it fits");
        assert_eq!(collected.as_ptr(), whole.as_ptr());
        assert_eq!(collected, whole);
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        let collected = collect_bounded(pieces(&["ab", "", "cd", "e"]), up_to(5), |_| true).await.expect("it fits");
        assert_eq!(collected, "abcde");
    }

    #[tokio::test]
    async fn one_byte_over_the_bound_is_too_large_with_and_without_a_length() {
        let stated = collect_bounded(Full::new(Bytes::from_static(b"abcde")), up_to(4), |_| true).await;
        let unstated = collect_bounded(pieces(&["abc", "de"]), up_to(4), |_| true).await;
        assert!(matches!(stated, Err(CollectError::TooLarge { max_bytes: 4 })), "{stated:?}");
        assert!(matches!(unstated, Err(CollectError::TooLarge { max_bytes: 4 })), "{unstated:?}");
    }

    #[tokio::test]
    async fn the_stall_timeout_starts_at_the_last_piece() {
        const PIECES: u32 = 5;
        let (max_pause, pause) = (Duration::from_millis(600), Duration::from_millis(150));
        let began = Instant::now();
        let bounds = BodyBounds { max_bytes: 100, pause: max_pause, whole: TIMEOUT };
        let collected = collect_bounded(trickle(PIECES, pause), bounds, |_| true).await;
        assert!(
            matches!(collected, Err(CollectError::Incomplete(BodyError::Stalled(after))) if after == max_pause),
            "{collected:?}"
        );
        assert!(began.elapsed() >= pause * PIECES + max_pause, "gave up after {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_slow_body_is_bounded_in_total_time() {
        let bounds = BodyBounds { max_bytes: 100_000, pause: TIMEOUT, whole: Duration::from_millis(100) };
        let collected = collect_bounded(trickle(u32::MAX, Duration::from_millis(1)), bounds, |_| true).await;
        assert!(matches!(collected, Err(CollectError::Incomplete(BodyError::Late))), "{collected:?}");
    }

    #[tokio::test]
    async fn memory_is_reserved_for_each_piece_and_a_refusal_ends_the_body() {
        let mut asked = Vec::new();
        let admit = |bytes: usize| {
            asked.push(bytes);
            asked.len() < 3
        };
        let collected = collect_bounded(pieces(&["ab", "cde", "f", "g"]), up_to(100), admit).await;
        assert!(matches!(collected, Err(CollectError::NoRoom)), "{collected:?}");
        assert_eq!(asked, [2, 3, 1]);
    }

    #[test]
    fn a_declared_length_alone_allocates_no_memory() {
        let mut all = BytesMut::new();
        append(&mut all, b"ab", usize::MAX);
        assert!(all.capacity() <= 2 * AHEAD_BYTES, "{}", all.capacity());
    }
}

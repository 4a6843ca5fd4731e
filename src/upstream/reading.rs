//! Reads the answer to a call: completely, without its content codings, and within its memory reservation.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::task::yield_now;

use super::body::UpstreamBody;
use super::memory_budget::Reservation;
use super::{Failure, UnavailableReason, UpstreamReply};
use crate::process::pace::Pace;
use crate::wire::{Decoding, Encoding, Step, content_codings};

/// Headers that describe the encoded body.
const OF_ENCODED_BODY: [&str; 7] =
    ["content-digest", "content-encoding", "content-length", "content-md5", "digest", "etag", "repr-digest"];

/// Reads an answer of at most `max_bytes`, counted after decoding.
pub(super) async fn read_reply(
    response: Response<UpstreamBody>,
    max_bytes: usize,
    asked: Encoding,
    reservation: &Reservation,
) -> Result<UpstreamReply, Failure> {
    let (parts, body) = response.into_parts();
    let (mut body, mut pieces, mut bytes) = (Limited::new(body, max_bytes), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        // A frame without data holds trailers, which are ignored.
        if let Ok(piece) = frame.map_err(|error| body_failure(&*error, asked))?.into_data() {
            bytes += piece.len();
            // While this waits for memory, the connection is not read, so the sender is slowed down.
            if !reservation.cover(memory_bytes(bytes, asked)).await {
                return Err(Failure::no_room(asked));
            }
            pieces.push(piece);
        }
    }
    let reply = UpstreamReply { status: parts.status, headers: parts.headers, body: join(pieces, bytes).await };
    decode(reply, max_bytes, asked, reservation).await
}

/// Decodes the body of an answer. An answer that does not match its content codings stays unchanged.
async fn decode(
    mut reply: UpstreamReply,
    max_bytes: usize,
    asked: Encoding,
    reservation: &Reservation,
) -> Result<UpstreamReply, Failure> {
    let Some(codings) = content_codings(&reply.headers).filter(|codings| !codings.is_empty()) else {
        return Ok(reply);
    };
    let encoded_bytes = reply.body.len() as u64;
    let _permit = reservation.decoding_permit().await;
    // The encoded body is kept, because it is returned if it does not match its codings.
    let mut decoding = Decoding::new(codings, reply.body.clone());
    loop {
        match decoding.step() {
            Err(_) => return Ok(reply),
            Ok(Step::Done(body)) => {
                forget_coding(&mut reply.headers);
                reply.body = body;
                return Ok(reply);
            }
            Ok(Step::More { total, .. }) if total > max_bytes => return Err(Failure::too_large(asked)),
            Ok(Step::More { total, .. }) => {
                // The encoded and the decoded body are in memory at the same time.
                if !reservation.cover(encoded_bytes + memory_bytes(total, asked)).await {
                    return Err(Failure::no_room(asked));
                }
                // Lets other calls run between two steps.
                yield_now().await;
            }
        }
    }
}

fn forget_coding(headers: &mut HeaderMap) {
    for name in OF_ENCODED_BODY {
        headers.remove(name);
    }
}

fn body_failure(error: &(dyn Error + Send + Sync + 'static), asked: Encoding) -> Failure {
    if error.is::<LengthLimitError>() {
        Failure::too_large(asked)
    } else {
        Failure::unavailable(UnavailableReason::Cut, "the upstream's answer was cut off")
    }
}

/// Returns the memory of an answer with this many bytes and of its vectors. The vectors take three quarters of a base64
/// answer again, or at most a quarter of an answer with decimal numbers.
const fn memory_bytes(wire_bytes: usize, asked: Encoding) -> u64 {
    let vectors = match asked {
        Encoding::Base64 => wire_bytes / 4 * 3,
        Encoding::Float => wire_bytes / 4,
    };
    (wire_bytes + vectors) as u64
}

async fn join(mut pieces: Vec<Bytes>, bytes: usize) -> Bytes {
    // A single piece needs no copy.
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let (mut whole, mut pace) = (BytesMut::with_capacity(bytes), Pace::default());
    // Each piece is freed as soon as it is copied.
    for piece in pieces {
        whole.extend_from_slice(&piece);
        pace.after(piece.len()).await;
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http::{HeaderValue, StatusCode};

    use super::super::memory_budget::MemoryBudget;
    use super::*;
    use crate::key::Key;

    const MIB: u64 = 1 << 20;
    const CALLER: Key = Key::from_bytes([1; 32]);

    fn zipped(count: usize) -> UpstreamReply {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b' '; count]).expect("memory takes everything");
        let mut headers = HeaderMap::new();
        for name in OF_ENCODED_BODY {
            headers.insert(name, HeaderValue::from_static("gzip"));
        }
        headers.insert("x-mark", HeaderValue::from_static("seen"));
        let body = encoder.finish().expect("memory takes everything").into();
        UpstreamReply { status: StatusCode::OK, headers, body }
    }

    #[tokio::test]
    async fn a_decoded_answer_loses_the_headers_of_its_encoding() {
        let reservation = MemoryBudget::new(64 * MIB).take(MIB, CALLER).await;
        let reply = decode(zipped(100_000), 100_000, Encoding::Float, &reservation).await.expect("it fits");
        assert_eq!(reply.body, vec![b' '; 100_000]);
        assert_eq!(reply.headers.keys().collect::<Vec<_>>(), ["x-mark"]);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_when_decoded_is_refused_early() {
        let budget = MemoryBudget::new(64 * MIB);
        let reservation = budget.take(0, CALLER).await;
        let result = decode(zipped(50_000_000), 1_000_000, Encoding::Float, &reservation).await;
        assert_eq!(result.map(|_| ()).expect_err("it is too large").detail, Failure::too_large(Encoding::Float).detail);
        assert!(budget.take(62 * MIB, CALLER).await.cover(62 * MIB).await, "the share took less than two mebibytes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_exceeds_free_memory_when_decoded_is_refused() {
        let reservation = MemoryBudget::new(MIB).take(MIB, CALLER).await;
        let result = decode(zipped(50_000_000), 60_000_000, Encoding::Float, &reservation).await;
        assert_eq!(result.map(|_| ()).expect_err("it has no room").detail, Failure::no_room(Encoding::Float).detail);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_match_its_coding_is_unchanged() {
        let reservation = MemoryBudget::new(64 * MIB).take(MIB, CALLER).await;
        let mut lie = zipped(10);
        lie.body = Bytes::from_static(b"{}");
        let reply = decode(lie.clone(), 1_000, Encoding::Float, &reservation).await.expect("it is passed on");
        assert_eq!((reply.body, reply.headers), (lie.body, lie.headers));
    }
}

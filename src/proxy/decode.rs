//! Decodes request bodies with content codings, within the limits of plain ones.

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::serve::CollectError;
use crate::wire::{Coding, Decoding, Step};

/// Maximum number of concurrent decodings. A decoder may hold a window of 16 MiB, which no body limit counts.
const MAX_DECODINGS: usize = 2;

/// Decoder of request bodies with limited concurrency.
pub(super) struct BodyDecoder(Semaphore);

impl BodyDecoder {
    pub(super) const fn new() -> Self {
        Self(Semaphore::const_new(MAX_DECODINGS))
    }

    /// Decodes a body of at most `max_bytes` in each of its codings. `admit` reserves memory for each part of it.
    /// Returns `None` if the body does not match its codings.
    pub(super) async fn decode(
        &self,
        codings: Vec<Coding>,
        body: Bytes,
        max_bytes: usize,
        mut admit: impl FnMut(usize) -> bool,
    ) -> Result<Option<Bytes>, CollectError> {
        let _permit = self.0.acquire().await.expect("the semaphore must stay open");
        let mut decoding = Decoding::new(codings, body);
        loop {
            match decoding.step() {
                // The request then passes through as it came, so the upstream explains the fault.
                Err(_) => return Ok(None),
                Ok(Step::Done(plain)) => return Ok(Some(plain)),
                Ok(Step::More { total, .. }) if total > max_bytes => return Err(CollectError::TooLarge { max_bytes }),
                Ok(Step::More { added, .. }) if !admit(added) => return Err(CollectError::NoRoom),
                // Other requests may run between two steps.
                Ok(Step::More { .. }) => yield_now().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn zeros(count: usize) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; count]).expect("memory takes everything");
        encoder.finish().expect("memory takes everything").into()
    }

    #[tokio::test]
    async fn a_body_is_refused_as_soon_as_it_is_larger_than_its_limit() {
        let mut admitted = 0;
        let admit = |bytes: usize| {
            admitted += bytes;
            true
        };
        let result = BodyDecoder::new().decode(vec![Coding::Gzip], zeros(50_000_000), 1_000_000, admit).await;
        assert!(matches!(result, Err(CollectError::TooLarge { max_bytes: 1_000_000 })), "{result:?}");
        assert!(admitted <= 1_000_000, "{admitted}");
    }

    #[tokio::test]
    async fn a_body_that_exceeds_the_free_memory_is_refused() {
        let mut free_bytes = 300_000_usize;
        let admit = |bytes: usize| {
            let rest = free_bytes.checked_sub(bytes);
            free_bytes = rest.unwrap_or(free_bytes);
            rest.is_some()
        };
        let result = BodyDecoder::new().decode(vec![Coding::Gzip], zeros(1_000_000), 2_000_000, admit).await;
        assert!(matches!(result, Err(CollectError::NoRoom)), "{result:?}");
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_decoded() {
        let result = BodyDecoder::new().decode(vec![Coding::Gzip], zeros(100_000), 100_000, |_| true).await;
        assert_eq!(result.expect("it fits"), Some(Bytes::from(vec![0; 100_000])));
    }
}

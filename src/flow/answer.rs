//! The steps of one request, from the look-up to the answer.

use std::sync::Arc;

use super::job::EmbedJob;
use super::outcome::FlowOutcome;
use super::request::Request;
use super::state::Flow;
use crate::wire::Bypass;

/// Maximum number of fetch rounds of a request. A model that changes during a fetch causes another round; after the
/// last one the request is passed through.
const MAX_ROUNDS: usize = 3;

impl Flow {
    /// Answers one request.
    pub async fn answer(self: &Arc<Self>, job: &EmbedJob<'_>) -> FlowOutcome {
        let mut request = Request::new(self, job);
        let proof = request.prove_token().await;
        let Some(mut progress) = request.begin(proof).await else {
            // Without memory for its vectors, the request still gets the upstream's own answer.
            return FlowOutcome::PassThrough(Bypass::TooLarge);
        };
        if job.context.controls.only_if_cached {
            // The model may have changed between two look-ups; then some vectors count as missing.
            let is_whole = !request.drop_older_models(&mut progress) && progress.is_complete();
            return if is_whole { request.assemble(&progress).await } else { FlowOutcome::NotCached };
        }
        // Another round follows only if the fetch revealed a newer model than that of the vectors at hand.
        for _ in 0..MAX_ROUNDS {
            if progress.lacks_any() {
                // An unreadable answer would be paid for twice, because the request would pass through afterwards.
                if let Some(bypass) = request.known_unreadable() {
                    return FlowOutcome::PassThrough(bypass);
                }
                Box::pin(request.fetch(&mut progress)).await;
            }
            if let Some(refused) = request.refusal(&progress) {
                return refused;
            }
            if request.drop_older_models(&mut progress) {
                continue;
            }
            return match request.apply_fallback(&mut progress).await {
                Ok(()) => {
                    request.note_use();
                    request.assemble(&progress).await
                }
                Err(failed) => FlowOutcome::Refused(Arc::clone(&failed.failure)),
            };
        }
        FlowOutcome::PassThrough(Bypass::UnsteadyModel)
    }
}

//! Scores the candidates of a similarity request, in parts of a bounded size.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::value::RawValue;

use super::unranked::Unranked;
use crate::flow::{Answer, EmbedJob, FlowOutcome, RequestContext, RequestOrigin, SourceCounts, Unfit};
use crate::observe::metrics::UsageAccount;
use crate::observe::traces::Span;
use crate::proxy::Proxy;
use crate::proxy::admission::Admission;
use crate::proxy::labels::RequestLabels;
use crate::proxy::reading::read_admitted;
use crate::vector::CosineQuery;
use crate::wire::{Bypass, SimilarFault, SimilarQuery, SimilarRequest};

/// Maximum number of inputs that are embedded at once. It bounds the vectors in memory, and is half of what OpenAI
/// allows in a request.
const PART_INPUTS: usize = 1024;

/// Memory of an input while its part is embedded: the text of a vector of 3,072 numbers in the upstream's answer.
const ANSWER_BYTES: u64 = 52 << 10;

/// Parts of this size are not divided further if there is no memory for them.
pub(super) const LEAST_PART_INPUTS: usize = 16;

/// Returns the number of inputs that are embedded at once if all answers together may take `budget_bytes`. An answer
/// that does not fit would be paid for twice, and others need memory as well.
fn part_inputs(budget_bytes: u64) -> usize {
    let fits = budget_bytes / 8 * 5 / ANSWER_BYTES;
    usize::try_from(fits).unwrap_or(usize::MAX).clamp(LEAST_PART_INPUTS, PART_INPUTS)
}

/// The parts of one request that stay the same during an attempt.
pub(super) struct Similar<'a> {
    pub(super) request: SimilarRequest<'a>,
    pub(super) context: RequestContext,
    pub(super) origin: RequestOrigin<'a>,
    pub(super) span: &'a Span,
}

/// Vectors of some inputs.
struct Embedded {
    answer: Box<Answer>,
    asked: RequestLabels,
    /// Number of inputs that were too long and were cut.
    cut: usize,
}

/// Scores and counts of the parts that are finished.
#[derive(Default)]
pub(super) struct Scored {
    query: Option<CosineQuery>,
    pub(super) scores: Vec<f32>,
    pub(super) model: Option<String>,
    pub(super) source_counts: SourceCounts,
    pub(super) prompt_tokens: u64,
    pub(super) cut: usize,
    pub(super) call_headers: Option<HeaderMap>,
    /// Reason why the upstream counts as unavailable, if stale vectors are ranked.
    pub(super) fallback: Option<String>,
    asked: Option<RequestLabels>,
}

impl Proxy {
    /// Embeds query and candidates in parts, and keeps only the scores of each part.
    pub(super) async fn score(&self, similar: &Similar<'_>, admission: &mut Admission) -> Result<Scored, Unranked> {
        self.refuse_too_long(similar, admission).await?;
        let mut scored = Scored::default();
        match self.score_parts(similar, &mut scored, admission).await {
            Ok(()) => Ok(scored),
            // The next attempt reports these tokens as well.
            Err(Unranked::ModelChanged { .. }) => {
                Err(Unranked::ModelChanged { billed_tokens: scored.source_counts.billed })
            }
            Err(other) => Err(other),
        }
    }

    async fn score_parts(
        &self,
        similar: &Similar<'_>,
        scored: &mut Scored,
        admission: &mut Admission,
    ) -> Result<(), Unranked> {
        let request = &similar.request;
        let mut inputs = Vec::with_capacity(request.candidates.len() + 1);
        match &request.query {
            SimilarQuery::Vector(vector) => scored.query = Some(CosineQuery::new(vector)),
            // One call carries one kind of inputs.
            SimilarQuery::Input(query, kind) if *kind != request.kind => {
                let embedded = self.embed(similar, &[query], admission).await?;
                scored.add(similar, embedded)?;
            }
            SimilarQuery::Input(query, _) => inputs.push(*query),
        }
        inputs.extend_from_slice(&request.candidates);
        let (mut rest, mut size) = (&inputs[..], part_inputs(self.flow.batcher.answer_bytes()));
        while !rest.is_empty() {
            let (part, later) = rest.split_at(size.min(rest.len()));
            match self.embed(similar, part, admission).await {
                // A smaller part needs less memory.
                Err(Unranked::NoRoom) if part.len() > LEAST_PART_INPUTS => size = part.len() / 2,
                embedded => {
                    scored.add(similar, embedded?)?;
                    rest = later;
                }
            }
            // A part that is a hit waits for nothing, and other requests need the thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Embeds some inputs like an embeddings request of the same caller.
    async fn embed(
        &self,
        similar: &Similar<'_>,
        inputs: &[&RawValue],
        admission: &mut Admission,
    ) -> Result<Embedded, Unranked> {
        let body = similar.request.embeddings_body(inputs.iter().copied());
        let (context, origin) = (&similar.context, &similar.origin);
        let held_bytes = admission.held_bytes();
        let request = read_admitted((&body, body.len()), &context.config, origin, admission)?;
        // A fetch may outlast the request, and holds the memory of its part.
        let charge = admission.lend(admission.held_bytes() - held_bytes);
        let asked = RequestLabels::new(&request, origin);
        let (context, origin) = (context.clone(), origin.clone());
        let mut job = Box::new(EmbedJob { context, request, body: body.clone(), charge, origin });
        let cut = match self.flow.fit(&mut job).await {
            Ok(cut) => cut,
            // Too long inputs were refused before, except while memory had no room for the tokenizer.
            Err(Unfit::TooLong(_)) => return Err(SimilarFault::too_long(None, None).into()),
            Err(Unfit::Unmeasured) => return Err(self.unfit(Unfit::Unmeasured).into()),
        };
        match self.flow.answer(&job).await {
            FlowOutcome::Answer(answer) => Ok(Embedded { answer, asked, cut }),
            FlowOutcome::Refused(failure) => Err(self.no_answer(&failure).into()),
            FlowOutcome::NotCached => Err(self.not_cached().into()),
            FlowOutcome::PassThrough(Bypass::TooLarge) => Err(Unranked::NoRoom),
            FlowOutcome::PassThrough(Bypass::UnsteadyModel) => Err(Unranked::ModelChanged { billed_tokens: 0 }),
            FlowOutcome::InvalidAnswer(_) | FlowOutcome::PassThrough(_) => {
                let message = "The upstream's answer to the embeddings of this request cannot be read.";
                Err(self.replies.no_vectors(message).into())
            }
        }
    }

    /// Returns the account that counts the request, once a part of it is answered.
    pub(super) fn account(&self, scored: &Scored) -> Option<Arc<UsageAccount>> {
        let model = scored.model.as_deref().unwrap_or_default();
        scored.asked.as_ref().map(|asked| asked.account(&self.metrics, model))
    }
}

impl Scored {
    /// Adds the answer of a part. Its first vector is the query if there is none yet.
    fn add(&mut self, similar: &Similar<'_>, embedded: Embedded) -> Result<(), Unranked> {
        let Embedded { answer, asked, cut } = embedded;
        let Answer { rendering, source_counts, call_headers, fallback, .. } = *answer;
        // The tokens are paid for, whatever becomes of the part.
        self.source_counts += source_counts;
        // Scores of two models cannot be compared.
        if self.model.as_ref().is_some_and(|model| *model != rendering.model) {
            return Err(Unranked::ModelChanged { billed_tokens: 0 });
        }
        let mut vectors = rendering.slots.iter().map(|slot| &rendering.vectors[*slot as usize]);
        let query = match self.query.take() {
            Some(query) => query,
            None => CosineQuery::new(&vectors.next().expect("a part must hold an input").unpack()),
        };
        for vector in vectors {
            self.scores.push(query.cosine(vector).ok_or_else(|| {
                if matches!(similar.request.query, SimilarQuery::Vector(_)) {
                    let (given, known) = (query.dimension(), vector.dimension());
                    let message = format!("query has {given} components, and the model's vectors have {known}.");
                    return SimilarFault::new(Some("query"), message).into();
                }
                Unranked::ModelChanged { billed_tokens: 0 }
            })?);
        }
        self.query = Some(query);
        self.prompt_tokens += rendering.prompt_tokens;
        self.cut += cut;
        self.call_headers = self.call_headers.take().or(call_headers);
        self.fallback = self.fallback.take().or(fallback);
        self.asked.get_or_insert(asked);
        self.model = Some(rendering.model);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_fits_the_memory_of_answers_and_leaves_some_to_others() {
        assert_eq!(part_inputs(100 << 20), PART_INPUTS);
        // A container of 256 MiB: nine tenths are the limit, and a fifth of it is for answers.
        let budget_bytes = (256 << 20) / 10 * 9 / 5;
        assert!(part_inputs(budget_bytes) as u64 * ANSWER_BYTES <= budget_bytes * 3 / 4);
        assert_eq!(part_inputs(0), LEAST_PART_INPUTS);
    }
}

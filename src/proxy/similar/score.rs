//! Scores the candidates of a similarity request, in parts of a bounded size.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::value::RawValue;

use crate::flow::{Answer, EmbedJob, FlowOutcome, RequestContext, RequestOrigin, SourceCounts};
use crate::observe::metrics::{RequestUsage, UsageLabels};
use crate::observe::traces::Span;
use crate::proxy::Proxy;
use crate::proxy::admission::Admission;
use crate::proxy::finished::Finished;
use crate::proxy::intake::path_model;
use crate::proxy::labels::RequestLabels;
use crate::upstream::classify_path;
use crate::vector::CosineQuery;
use crate::wire::{Bypass, SimilarFault, SimilarQuery, SimilarRequest, read_request, reading_bytes};

/// Maximum number of inputs that are embedded at once. It bounds the vectors in memory, and is half of what OpenAI
/// allows in a request.
const PART_INPUTS: usize = 1024;

/// Memory of an input while its part is embedded: the text of a vector of 3,072 numbers in the upstream's answer.
const ANSWER_BYTES: u64 = 52 << 10;

/// Denominator of the share of the memory limit that the answers of a part may take.
const ANSWERS_SHARE: u64 = 8;

/// Parts of this size are not divided further if there is no memory for them.
const LEAST_PART_INPUTS: usize = 16;

/// Returns the number of inputs that are embedded at once under a memory limit. An answer that does not fit would be
/// paid for twice.
fn part_inputs(limit_bytes: u64) -> usize {
    let fits = limit_bytes / ANSWERS_SHARE / ANSWER_BYTES;
    usize::try_from(fits).unwrap_or(usize::MAX).clamp(LEAST_PART_INPUTS, PART_INPUTS)
}

/// Reason why there is no ranking.
pub(super) enum Unranked {
    /// The caller's request is at fault.
    Fault(SimilarFault),
    /// There are no vectors; the response says why.
    NoVectors(Box<Finished>),
    /// A limit of vecho is reached.
    NoRoom,
    /// The model changed between two parts of the request.
    ModelChanged,
}

impl From<SimilarFault> for Unranked {
    fn from(fault: SimilarFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Finished> for Unranked {
    fn from(finished: Finished) -> Self {
        Self::NoVectors(Box::new(finished))
    }
}

/// The parts of one request that stay the same while it is answered.
pub(super) struct Similar<'a> {
    pub(super) request: SimilarRequest<'a>,
    pub(super) context: &'a RequestContext,
    pub(super) origin: RequestOrigin<'a>,
    pub(super) span: &'a Span,
}

/// Vectors of some inputs.
struct Embedded {
    answer: Box<Answer>,
    labels: Arc<UsageLabels>,
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
    pub(super) usage: Option<RequestUsage>,
}

impl Proxy {
    /// Embeds query and candidates in parts, and keeps only the scores of each part.
    pub(super) async fn score(&self, similar: &Similar<'_>, admission: &mut Admission) -> Result<Scored, Unranked> {
        let request = &similar.request;
        let mut scored = Scored::default();
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
        let (mut rest, mut size) = (&inputs[..], part_inputs(similar.context.config.memory.limit_bytes));
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
        Ok(scored)
    }

    /// Embeds some inputs like an embeddings request of the same caller.
    async fn embed(
        &self,
        similar: &Similar<'_>,
        inputs: &[&RawValue],
        admission: &mut Admission,
    ) -> Result<Embedded, Unranked> {
        let body = similar.request.embeddings_body(inputs.iter().copied());
        let (context, origin) = (similar.context, &similar.origin);
        let held_bytes = admission.held_bytes();
        if !admission.reserve(body.len() + reading_bytes(&body)) {
            return Err(Unranked::NoRoom);
        }
        let path_model = path_model(classify_path(origin.uri.path()));
        let request = read_request(&body, &context.config.cache.extra_fields, path_model);
        // The parser has finished, so its memory is no longer reserved.
        admission.reduce_to(held_bytes);
        let request = request.map_err(SimilarFault::from)?;
        let needed_bytes = request.answering_bytes(body.len()) + body.len();
        if !admission.reserve(needed_bytes) {
            return Err(Unranked::NoRoom);
        }
        // A fetch may outlast the request, and holds the memory of its part.
        let charge = admission.lend(needed_bytes);
        let asked = RequestLabels::new(&request, origin);
        let (context, origin) = (context.clone(), origin.clone());
        let mut job = Box::new(EmbedJob { context, request, body: body.clone(), charge, origin });
        let cut = match self.flow.fit(&mut job).await {
            Ok(cut) => cut,
            Err(unfit) => return Err(self.unfit(unfit).into()),
        };
        match self.flow.answer(&job).await {
            FlowOutcome::Answer(answer) => {
                let account = asked.account(&self.metrics, &answer.rendering.model);
                answer.source_counts.count(&self.metrics, &account);
                Ok(Embedded { answer, labels: Arc::clone(account.named()), cut })
            }
            FlowOutcome::Refused(failure) => Err(self.replies.refused(&failure).into()),
            FlowOutcome::NotCached => Err(self.not_cached().into()),
            FlowOutcome::PassThrough(Bypass::TooLarge) => Err(Unranked::NoRoom),
            FlowOutcome::PassThrough(Bypass::UnsteadyModel) => Err(Unranked::ModelChanged),
            FlowOutcome::InvalidAnswer(_) | FlowOutcome::PassThrough(_) => {
                let message = "The upstream's answer to the embeddings of this request cannot be read.";
                Err(self.replies.no_vectors(message).into())
            }
        }
    }
}

impl Scored {
    /// Adds the answer of a part. Its first vector is the query if there is none yet.
    fn add(&mut self, similar: &Similar<'_>, embedded: Embedded) -> Result<(), Unranked> {
        let Embedded { answer, labels, cut } = embedded;
        let Answer { rendering, source_counts, call_headers, .. } = *answer;
        // Scores of two models cannot be compared.
        if self.model.as_ref().is_some_and(|model| *model != rendering.model) {
            return Err(Unranked::ModelChanged);
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
                Unranked::ModelChanged
            })?);
        }
        self.query = Some(query);
        self.prompt_tokens += rendering.prompt_tokens;
        self.source_counts += source_counts;
        self.cut += cut;
        self.call_headers = self.call_headers.take().or(call_headers);
        self.usage = Some(RequestUsage { named: labels, inputs: self.source_counts.inputs() });
        self.model = Some(rendering.model);
        Ok(())
    }
}

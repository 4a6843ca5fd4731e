//! Refuses a similarity request with an entry that is too long, before anything of it is sent.

use serde_json::value::RawValue;

use super::score::{LEAST_PART_INPUTS, Similar};
use super::unranked::Unranked;
use crate::flow::{InputRules, Unfit};
use crate::observe::metrics::Rejection;
use crate::proxy::Proxy;
use crate::proxy::admission::Admission;
use crate::proxy::reading::read_admitted;
use crate::wire::{MAX_INPUT_TOKENS, SimilarFault, SimilarQuery};

impl Proxy {
    /// Refuses the request if its query or a candidate is too long and `limits.long_input` says so. A part that is sent
    /// before a later one is refused would be paid for.
    pub(super) async fn refuse_too_long(
        &self,
        similar: &Similar<'_>,
        admission: &mut Admission,
    ) -> Result<(), Unranked> {
        if !similar.context.config.limits.long_input.may_reject() {
            return Ok(());
        }
        // A token takes at least one byte of JSON.
        let is_suspect = |input: &RawValue| input.get().len() > MAX_INPUT_TOKENS;
        if let SimilarQuery::Input(query, _) = &similar.request.query
            && is_suspect(query)
            && self.first_too_long(similar, &[query], admission).await?.is_some()
        {
            return Err(self.too_long("query", None));
        }
        let candidates = similar.request.candidates.iter().copied().enumerate();
        let (places, suspects): (Vec<usize>, Vec<&RawValue>) =
            candidates.filter(|(_, candidate)| is_suspect(candidate)).unzip();
        for (places, part) in places.chunks(LEAST_PART_INPUTS).zip(suspects.chunks(LEAST_PART_INPUTS)) {
            if let Some(place) = self.first_too_long(similar, part, admission).await? {
                return Err(self.too_long("candidates", Some(places[place])));
            }
        }
        Ok(())
    }

    fn too_long(&self, member: &'static str, place: Option<usize>) -> Unranked {
        self.metrics.requests.rejected(Rejection::LongInput);
        SimilarFault::too_long(Some(member), place).into()
    }

    /// Returns the place of the first input that must be refused.
    async fn first_too_long(
        &self,
        similar: &Similar<'_>,
        inputs: &[&RawValue],
        admission: &mut Admission,
    ) -> Result<Option<usize>, Unranked> {
        let body = similar.request.embeddings_body(inputs.iter().copied());
        let (context, origin) = (&similar.context, &similar.origin);
        let held_bytes = admission.held_bytes();
        let mut request = read_admitted((&body, body.len()), &context.config, origin, admission)?;
        let (now_ms, deadline) = (context.now_ms, context.deadline);
        let rules = InputRules { config: &context.config, uri: &origin.uri, now_ms, deadline };
        let fitted = self.flow.fit_inputs(&mut request, &rules).await;
        admission.reduce_to(held_bytes);
        match fitted {
            Ok(_) => Ok(None),
            Err(Unfit::TooLong(place)) => Ok(Some(place)),
            Err(Unfit::Unmeasured) => Err(self.unfit(Unfit::Unmeasured).into()),
        }
    }
}

//! Comparison of a target's vectors with those of the others.

use std::sync::Arc;

use tokio::time::Instant;

use super::canary;
use super::choice::RoutedCall;
use super::gate::{Agreement, FailedComparison, ModelGate};
use super::place::TargetPlace;
use super::reference::Reference;
use super::several::Several;
use super::verdict::too_long;
use crate::config::Config;
use crate::key::Key;
use crate::observe::logs::shorten_for_log;
use crate::upstream::pacing::PaceTurn;
use crate::upstream::{Failure, UnavailableReason};

const RENEWED: &str =
    "every target gives other vectors than before; those of the one that was asked last count from now on";
const DISAGREES: &str = "a target gives other vectors than the others; it gets no calls for this model";

impl Several {
    /// Compares the vectors of a place with the reference. The first place of a model gives the reference.
    pub(super) async fn examine(
        &self,
        place: &Arc<TargetPlace>,
        (request, turn): (&RoutedCall<'_>, Option<PaceTurn>),
    ) -> Result<(), Failure> {
        let Some(gate) = &request.gate else { return Ok(()) };
        let begun = Instant::now();
        let mut last = gate.examining().await;
        // Another call may have examined it during the wait for the lock.
        if gate.standings()[place.index].verdict(Instant::now()) != Agreement::Unknown {
            return Ok(());
        }
        // If that has failed, each waiting call would take as long again.
        if let Some(known) = last.as_ref().filter(|known| known.place == place.index && known.at >= begun) {
            return Err(known.failure.clone());
        }
        let result = self.compare(place, (request, turn), gate).await;
        *last = result.as_ref().err().map(|failure| FailedComparison {
            place: place.index,
            at: Instant::now(),
            failure: failure.clone(),
        });
        result
    }

    async fn compare(
        &self,
        place: &Arc<TargetPlace>,
        (request, turn): (&RoutedCall<'_>, Option<PaceTurn>),
        gate: &ModelGate,
    ) -> Result<(), Failure> {
        let config = self.live.load();
        let (model, asked) = (request.properties.model, request.properties.space.model_name());
        let answer = self.ask(place, (request, turn), &config).await?;
        let named = answer.model.as_deref().unwrap_or(asked);
        let told = Reference { model: Arc::from(named), vectors: answer.vectors };
        let reference = match self.reference(place, gate, model).await? {
            Some(reference) => reference,
            None => self.begin(gate, (model, asked), told.clone()).await,
        };
        if reference.vectors == told.vectors {
            gate.judge(place.index, true, config.drift.every);
            self.metrics.targets.compared(place.index, asked, true);
            return Ok(());
        }
        let mut distance = reference.distance(&told.vectors);
        if distance > config.drift.bound {
            // A single answer may be an accident.
            distance = reference.distance(&self.ask(place, (request, None), &config).await?.vectors);
        }
        let agrees = distance <= config.drift.bound;
        gate.judge(place.index, agrees, config.drift.every);
        self.metrics.targets.compared(place.index, asked, agrees);
        if !agrees {
            if self.throttled.admits(DISAGREES) {
                let target = &*place.target.name;
                tracing::error!(target, model = &*shorten_for_log(asked), difference = distance, "{DISAGREES}");
            }
            self.renew_if_all_disagree(gate, (place, told), (model, asked));
        }
        Ok(())
    }

    /// Returns the vectors to compare with. While a tier that may hold them does not work, only the first target may
    /// begin without them: entries of the others were compared with it.
    async fn reference(
        &self,
        place: &TargetPlace,
        gate: &ModelGate,
        model: Key,
    ) -> Result<Option<Arc<Reference>>, Failure> {
        let (None, Some(references)) = (gate.reference(), &self.gate.references) else { return Ok(gate.reference()) };
        match references.find(model).await {
            Ok(known) => Ok(known.map(|known| gate.set_reference(known))),
            Err(_) if place.index == 0 => Ok(None),
            Err(unread) => Err(Failure::unavailable(UnavailableReason::Status, unread.to_string())),
        }
    }

    async fn ask(
        &self,
        place: &Arc<TargetPlace>,
        (request, turn): (&RoutedCall<'_>, Option<PaceTurn>),
        config: &Config,
    ) -> Result<canary::CanaryAnswer, Failure> {
        let there = place.properties(request.properties, (&self.first, None)).map_err(too_long)?;
        let answer = canary::ask(place, &there, (request.call, turn, &config.cache.key_headers)).await?;
        if let Some(gate) = &request.gate {
            gate.answered(place.index);
        }
        Ok(answer)
    }

    /// Makes an answer the first reference of a model, unless another replica has one meanwhile.
    async fn begin(&self, gate: &ModelGate, (model, asked): (Key, &str), told: Reference) -> Arc<Reference> {
        let first = match &self.gate.references {
            Some(references) => references.begin(model, asked, told).await,
            None => told,
        };
        gate.set_reference(first)
    }

    fn replace(&self, gate: &ModelGate, (model, asked): (Key, &str), told: Reference) {
        if let Some(references) = &self.gate.references {
            references.keep(model, asked, &told);
        }
        gate.renew(told);
    }

    /// Begins a new reference if the vectors of every place disagree with it: the model has changed everywhere.
    fn renew_if_all_disagree(&self, gate: &ModelGate, (place, told): (&TargetPlace, Reference), of: (Key, &str)) {
        let (now, standings) = (Instant::now(), gate.standings());
        let mut serving = self.places.iter().filter(|place| place.serves(of.1));
        if serving.all(|place| standings[place.index].verdict(now) == Agreement::Disagrees) {
            tracing::error!(model = &*shorten_for_log(of.1), "{RENEWED}");
            self.replace(gate, of, told);
            gate.judge(place.index, true, self.live.load().drift.every);
            self.metrics.targets.compared(place.index, of.1, true);
        }
    }
}

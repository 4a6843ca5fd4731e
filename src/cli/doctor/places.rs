//! The places that vecho calls: the upstream, or each of several targets.

use std::sync::Arc;

use futures_util::future::join_all;

use super::call::{self, CalledModel};
use super::check::CheckResult;
use super::options::DoctorOptions;
use super::upstream;
use crate::cli::surrounding::Surrounding;
use crate::config::{Config, TargetConfig, UpstreamConfig, UpstreamTarget};
use crate::upstream::cosine_distance;
use crate::vector::Vector;

/// One place, with the configuration as it is for calls to it.
struct CalledPlace {
    /// Name of the target, if there are several.
    name: Option<Arc<str>>,
    config: Config,
    /// Name that the model of the call has there.
    model: String,
    /// True if it serves the model, and not only another one.
    serves: bool,
}

/// Results for all places.
pub(super) struct PlaceResults {
    pub(super) results: Vec<CheckResult>,
    /// What the first place has shown.
    pub(super) first: upstream::UpstreamReport,
}

/// Checks all places at once.
pub(super) async fn check(config: &Config, surrounding: &Surrounding, options: &DoctorOptions) -> PlaceResults {
    let places = CalledPlace::all(config, options);
    let checked = join_all(places.iter().map(async |place| {
        let reached = upstream::check(&place.config).await;
        let called =
            if options.call { Some(call::check(&place.config, surrounding, &place.model).await) } else { None };
        (reached, called)
    }));
    let (mut results, mut first, mut compared) = (Vec::new(), None, None);
    for (place, (reached, called)) in places.iter().zip(checked.await) {
        results.push(place.named(reached.result.clone()));
        if let Some(CalledModel { result, vector }) = called {
            results.push(place.named(result));
            // Vectors of different models say nothing about each other.
            if let Some(vector) = vector.filter(|_| place.serves) {
                let (other, reference) = compared.get_or_insert((place, vector.clone()));
                results.extend(place.compared((&vector, reference), other, config.drift.bound));
            }
        }
        first.get_or_insert(reached);
    }
    PlaceResults { results, first: first.expect("there must be a place") }
}

impl CalledPlace {
    fn all(config: &Config, options: &DoctorOptions) -> Vec<Self> {
        if config.targets.is_empty() {
            let (config, model) = (config.clone(), options.model.clone());
            return vec![Self { name: None, config, model, serves: true }];
        }
        config.targets.iter().map(|target| Self::of(config, target, options)).collect()
    }

    fn of(config: &Config, target: &TargetConfig, options: &DoctorOptions) -> Self {
        let upstream = UpstreamConfig {
            target: UpstreamTarget::Http(target.url.clone()),
            api_key: Some(target.api_key.clone()),
            api_key_header: target.api_key_header,
            ..config.upstream.clone()
        };
        // A target that does not serve the model is called for the first one that it serves.
        let served = target.models.get(&options.model).or_else(|| target.models.values().next());
        let model = served.unwrap_or(&options.model).clone();
        let serves = target.models.is_empty() || target.models.contains_key(&options.model);
        Self { name: Some(Arc::clone(&target.name)), config: Config { upstream, ..config.clone() }, model, serves }
    }

    /// Returns a fault if the vector of this place differs from that of another one by more than `bound`.
    fn compared(&self, (vector, reference): (&Vector, &Vector), other: &Self, bound: f64) -> Option<CheckResult> {
        let distance = cosine_distance(reference, vector);
        if distance <= bound {
            return None;
        }
        let other = other.name.as_deref().unwrap_or_default();
        let differs = format!("its vector is not that of target {other} (1 - cosine is {distance:.4})");
        let remedy = "correct its models: vecho serves no vectors of a target that differ from those of the others";
        Some(self.named(CheckResult::fault("call", differs, remedy)))
    }

    /// Returns a result with the name of the target.
    fn named(&self, result: CheckResult) -> CheckResult {
        let Some(name) = &self.name else { return result };
        let message = format!("target {name}: {}", result.message);
        let keys = [
            ("OPENAI_API_KEY or upstream.api_key", "its api_key"),
            ("upstream.api_key or OPENAI_API_KEY", "its api_key"),
            ("upstream.url", "its url"),
        ];
        let remedy = result.remedy.map(|remedy| {
            keys.iter().fold(remedy, |remedy, (of_upstream, of_target)| remedy.replace(of_upstream, of_target))
        });
        CheckResult { message, remedy, ..result }
    }
}

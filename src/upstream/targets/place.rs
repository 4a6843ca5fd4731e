//! One place that serves models.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Uri;
use http::uri::PathAndQuery;

use crate::config::TargetConfig;
use crate::key::{Key, Tag};
use crate::upstream::call_executor::CallExecutor;
use crate::upstream::endpoint::{is_known_service, is_under, upstream_uri};
use crate::upstream::headers::SECRETS_ELSEWHERE;
use crate::upstream::{Class, Failure, LaneProperties, UriTooLong};
use crate::wire::{Base64, Encoding, Space};

/// One of several targets, with its connections, its breaker and its load.
pub struct TargetPlace {
    pub(super) index: usize,
    pub(super) target: TargetConfig,
    pub(super) executor: CallExecutor,
    in_flight: AtomicUsize,
    /// True if its base64 cannot be read, so it is asked for numbers.
    only_numbers: AtomicBool,
}

/// A call under way at a place.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TargetPlace {
    /// Creates the place of a target. `index` is its place in the configuration.
    pub fn new(index: usize, target: TargetConfig, executor: CallExecutor) -> Self {
        Self { index, target, executor, in_flight: AtomicUsize::new(0), only_numbers: AtomicBool::new(false) }
    }

    /// Returns true if the target serves a model.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.target.models.is_empty() || self.target.models.contains_key(model)
    }

    /// Returns true if another call is within `concurrent`.
    pub(super) fn has_room(&self) -> bool {
        self.target.concurrent.is_none_or(|most| self.in_flight.load(Ordering::Relaxed) < most)
    }

    /// Returns true if calls ask for numbers, whatever the requests ask for.
    pub(super) fn asks_for_numbers(&self) -> bool {
        self.only_numbers.load(Ordering::Relaxed)
    }

    /// Returns true if a failed call may succeed with numbers; from now on, calls ask for them. Some servers encode
    /// other numbers than f32 in base64. The lane learns that of the first target, but of no other.
    pub(super) fn learns_from(&self, failure: &Failure) -> bool {
        let learns = self.index > 0 && matches!(failure.class, Class::InvalidAnswer(_, Encoding::Base64));
        if learns {
            self.only_numbers.store(true, Ordering::Relaxed);
        }
        learns
    }

    /// Counts a call until the guard is dropped.
    pub(super) fn enter(&self) -> UnderWay<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.in_flight)
    }

    /// Returns the calls in flight by weight.
    #[expect(clippy::cast_precision_loss, reason = "the number of calls in flight is small")]
    pub(super) fn load(&self) -> f64 {
        let in_flight = self.in_flight.load(Ordering::Relaxed) as f64 + 1.0;
        in_flight / f64::from(self.target.weight)
    }

    /// Returns the properties of a lane as they are at this place. `first` is the base URL that the lane's address was
    /// made for, and `dimension` that of the model's vectors, if it is known.
    pub(super) fn properties(
        &self,
        properties: &LaneProperties,
        (first, dimension): (&Uri, Option<usize>),
    ) -> Result<LaneProperties, UriTooLong> {
        let is_known = is_known_service(&self.target.url);
        let base64 = match (properties.base64, dimension) {
            // Another kind of server may put other numbers into base64, so they are checked by their length.
            (Base64::Trusted, Some(dimension)) if !is_known => Base64::Proven(dimension),
            (Base64::Trusted, None) if !is_known => Base64::Unproven,
            (known, _) => known,
        };
        let mut headers = properties.headers.clone();
        if self.index > 0 {
            // It may belong to someone else, so it gets no secret that a caller meant for the first target.
            for name in &SECRETS_ELSEWHERE {
                headers.remove(name);
            }
        }
        Ok(LaneProperties {
            headers,
            uri: rebased(&properties.uri, first, &self.target.url)?,
            space: self.space(&properties.space).into_owned(),
            model: self.key(&properties.model),
            base64,
            is_known: properties.is_known && is_known,
            ..properties.clone()
        })
    }

    /// Returns the key of a model at this place.
    pub(super) fn key(&self, model: &Key) -> Key {
        model.extend(Tag::Upstream, self.target.name.as_bytes())
    }

    /// Returns a space with the name that the model has here.
    fn space<'s>(&self, space: &'s Space) -> Cow<'s, Space> {
        match self.target.models.get(space.model_name()) {
            Some(name) if name != space.model_name() => {
                Cow::Owned(Space { model: Some(name.clone()), ..space.clone() })
            }
            _ => Cow::Borrowed(space),
        }
    }
}

/// Returns an address below another base URL.
pub(super) fn rebased(uri: &Uri, from: &Uri, to: &Uri) -> Result<Uri, UriTooLong> {
    let root = PathAndQuery::from_static("/");
    let path = uri.path_and_query().unwrap_or(&root);
    let base = from.path().trim_end_matches('/');
    let rest = path.as_str();
    if base.is_empty() || !is_under(rest, base) {
        return upstream_uri(to, path);
    }
    let rest = &rest[base.len()..];
    // The path of a base stands for `/v1`, so the rest is mapped like a path below it.
    upstream_uri(to, &format!("/v1{rest}").parse().map_err(|_| UriTooLong)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_moved_from_one_base_url_to_another() {
        for (uri, from, to, moved) in [
            ("http://a/v1/embeddings", "http://a/v1", "http://b/v1", "http://b/v1/embeddings"),
            ("http://a/v1/embeddings?x=1", "http://a/v1", "http://b/openai/v1", "http://b/openai/v1/embeddings?x=1"),
            ("http://a/openai/v1/embeddings", "http://a/openai/v1", "http://b/v1", "http://b/v1/embeddings"),
            ("http://a/api/embeddings", "http://a/api", "http://b", "http://b/v1/embeddings"),
            ("http://a/v1/embeddings", "http://a/", "http://b/v1", "http://b/v1/embeddings"),
            (
                "http://a/openai/deployments/d/embeddings",
                "http://a/openai/v1",
                "http://b/openai/v1",
                "http://b/openai/deployments/d/embeddings",
            ),
        ] {
            let parse = |text: &str| text.parse::<Uri>().expect("an address");
            let found = rebased(&parse(uri), &parse(from), &parse(to)).expect("it is short").to_string();
            assert_eq!(found, moved, "{uri} from {from} to {to}");
        }
    }
}

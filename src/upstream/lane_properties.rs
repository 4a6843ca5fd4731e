//! Properties that all inputs of one lane share, and so all inputs of one call.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, Uri};

use crate::key::Key;
use crate::spend::Purchase;
use crate::wire::{Base64, Encoding, RequestForm, Space};

/// Assumed dimension while it is unknown: that of the largest common model.
const LIKELY_DIMENSION: usize = 3_072;

/// Properties that all inputs of one lane share: they are sent with every call of the lane.
#[derive(Clone, Debug)]
pub struct LaneProperties {
    /// The address.
    pub uri: Uri,
    /// Headers of the call, without a key that vecho holds.
    pub headers: HeaderMap,
    /// Fields that shape the vectors.
    pub space: Space,
    /// The model as its callers name it, for prices.
    pub priced_as: String,
    /// Namespace of the requests, if they have one.
    pub namespace: Option<String>,
    /// The key of address and space, the same for all callers.
    pub model: Key,
    /// The key of address, model's name and credential, which share the service's rate limits.
    pub paced_as: Key,
    /// Requested encoding.
    pub encoding: Encoding,
    /// Spelling of the calls that vecho writes.
    pub form: RequestForm,
    /// The `user` field.
    pub user: Option<String>,
    /// Requested dimension. A server that ignores it answers with longer vectors.
    pub asked_dimension: Option<usize>,
    /// Known dimension of the vectors if one is requested.
    pub known_dimension: Option<usize>,
    /// What is known of the upstream's base64.
    pub base64: Base64,
    /// True if the service is known to accept calls in vecho's own form: large, merged, in base64.
    pub is_known: bool,
}

impl LaneProperties {
    /// Returns what a call of this lane pays for. `answered` is the upstream's name of the model, if known.
    pub fn purchase<'a>(&'a self, answered: Option<&'a str>) -> Purchase<'a> {
        Purchase { namespace: self.namespace.as_deref(), model: &self.priced_as, answered }
    }

    /// Returns the approximate memory of the answer to one input, as bytes on the wire and as a vector.
    pub(super) fn answer_bytes(&self) -> usize {
        let known = match self.base64 {
            Base64::Proven(dimension) => Some(dimension),
            Base64::Trusted | Base64::Unproven => self.known_dimension.or(self.asked_dimension),
        };
        // Per component: 16/3 bytes of base64 or about 13 of a decimal number, and 4 bytes of the vector.
        let plain = if self.encoding == Encoding::Base64 { 10 } else { 17 };
        // A compressed answer is in memory beside the plain one: about three quarters of base64, or half of numbers.
        let is_compressed = self.headers.contains_key(ACCEPT_ENCODING);
        let compressed = if self.encoding == Encoding::Base64 { 4 } else { 7 };
        let bytes_per_component = if is_compressed { plain + compressed } else { plain };
        known.unwrap_or(LIKELY_DIMENSION) * bytes_per_component
    }
}

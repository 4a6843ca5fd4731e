//! Compresses finished answers, and marks them.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};

use super::CompressionPlan;
use crate::observe::metrics::RequestMetrics;
use crate::proxy::finished::Finished;

/// Smallest answer that is compressed. A smaller one fits into one packet with its head.
const SMALLEST_BYTES: usize = 1024;

/// Compresses an answer with vectors. Errors and responses of the upstream stay as they are.
pub(in crate::proxy) fn compress(plan: CompressionPlan, mut finished: Finished, metrics: &RequestMetrics) -> Finished {
    let CompressionPlan::Negotiated(chosen) = plan else { return finished };
    if !finished.outcome.has_vectors() {
        return finished;
    }
    let headers = finished.response.headers_mut();
    // A cache in between must know that the header matters, also if this answer is plain.
    if !varies_by_encoding(headers) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let Some(chosen) = chosen else { return finished };
    let min_bytes = if chosen.refuses_plain { 0 } else { SMALLEST_BYTES };
    if finished.response.body_mut().compress(chosen.coding, min_bytes) {
        metrics.compressed(chosen.coding);
        finished.response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(chosen.coding.label()));
    }
    finished
}

/// Returns true if `vary` names `accept-encoding`, as an answer of the upstream often does.
fn varies_by_encoding(headers: &HeaderMap) -> bool {
    let names = headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let name = ACCEPT_ENCODING.as_str().as_bytes();
    names.map(<[u8]>::trim_ascii).any(|named| named == b"*" || named.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http_body::Body as _;

    use super::*;
    use crate::observe::metrics::{Metrics, Outcome};
    use crate::proxy::ReplyBody;
    use crate::wire::{ChosenCoding, PREFERRED_CODINGS};

    #[test]
    fn an_answer_stays_plain_if_its_compression_has_no_memory() {
        let metrics = Metrics::new("1");
        for coding in PREFERRED_CODINGS {
            // Without an admission, no memory can be reserved.
            let body = ReplyBody::whole(Bytes::from(vec![b'1'; 1_000_000]));
            let finished = Finished::new(Response::new(body), Outcome::Hit);
            let plan = CompressionPlan::Negotiated(Some(ChosenCoding { coding, refuses_plain: true }));
            let sent = compress(plan, finished, &metrics.requests).response;
            let (named, length) = (sent.headers().get(CONTENT_ENCODING), sent.body().size_hint().exact());
            assert_eq!((named, length), (None, Some(1_000_000)), "{coding:?}");
        }
    }

    #[test]
    fn vary_names_accept_encoding_once() {
        for (values, varies) in [
            (&["origin"][..], false),
            (&["origin, Accept-Encoding"], true),
            (&["origin", "accept-encoding"], true),
            (&["*"], true),
            (&["x-accept-encoding"], false),
        ] {
            let mut all = HeaderMap::new();
            for value in values {
                all.append(VARY, HeaderValue::from_static(value));
            }
            assert_eq!(varies_by_encoding(&all), varies, "{values:?}");
        }
    }
}

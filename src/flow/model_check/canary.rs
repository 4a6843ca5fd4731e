//! The call that asks for the fixed texts.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::config::{Config, Priority};
use crate::flow::Flow;
use crate::key::Tag;
use crate::learned::SpaceState;
use crate::observe::traces::TraceContext;
use crate::upstream::{
    CANARY_TEXTS, Charge, Failure, Fetched, Lane, LaneProperties, Missing, OwnRequest, Report, Waiter, canary_keys,
    request_id,
};
use crate::wire::{Encoding, Input, RequestForm, write_request};

/// Returns a lane for the texts beside the lane of a request. Of the request's headers it has those that are part of
/// every key: any other may be meant for the request alone.
pub(super) fn lane_beside(lane: &Lane, config: &Config, headers: &HeaderMap) -> Lane {
    let mut kept = HeaderMap::new();
    for name in &config.cache.key_headers {
        for value in headers.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Numbers are unambiguous, and every server understands a request without `encoding_format`.
    let form = RequestForm::default();
    let properties =
        LaneProperties { headers: kept, user: None, encoding: Encoding::Float, form, ..(*lane.properties).clone() };
    let id = lane.id.extend(Tag::Control, b"canary");
    Lane { id, learns_as: id, properties: Arc::new(properties) }
}

/// Asks for the vectors of the texts, in their order.
pub(super) async fn ask(flow: &Arc<Flow>, lane: &Lane, space: &SpaceState) -> Result<Vec<Fetched>, Arc<Failure>> {
    let config = flow.live.load();
    let known_dimension = lane.properties.asked_dimension.and_then(|_| space.known_dimension());
    let properties = LaneProperties { known_dimension, ..(*lane.properties).clone() };
    let inputs: Vec<Input<'static>> = CANARY_TEXTS.iter().map(|text| Input::Text(Cow::Borrowed(*text))).collect();
    let body = write_request(&properties.space, &inputs.iter().collect::<Vec<_>>(), properties.form, None);
    let places: Vec<u32> = (0..).take(inputs.len()).collect();
    let firsts: Vec<usize> = (0..inputs.len()).collect();
    let own = (body, properties.form, Arc::new(()) as Charge);
    let own = OwnRequest::new(own, request_id(&canary_keys(&lane.id), &places), (&firsts, &places));
    let waiter = Waiter {
        deadline: Instant::now() + config.limits.request_timeout,
        caller: lane.id,
        priority: Priority::Bulk,
        trace: TraceContext::NONE.clone(),
    };
    let lane = Lane { id: lane.id, learns_as: lane.learns_as, properties: Arc::new(properties) };
    let (mut reports, work) = flow.batcher.submit(&lane, Missing { inputs, places, own }, waiter);
    let collecting = async {
        let mut fetched: Vec<Option<Fetched>> = vec![None; CANARY_TEXTS.len()];
        while let Some(report) = reports.recv().await {
            let Report::Result(piece) = report else { continue };
            for (place, vector) in piece.places.zip(piece.result?) {
                fetched[place] = Some(vector);
            }
        }
        // Without a failure, the pieces cover every place.
        Ok(fetched.into_iter().flatten().collect())
    };
    tokio::join!(biased; work.run(), collecting).1
}

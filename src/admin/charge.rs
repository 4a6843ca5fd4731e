//! Counts calls that this process has not made, such as jobs of the Batch API.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::AdminContext;
use super::reply::{self, AdminResponse, Refusal};
use crate::spend::Purchase;

/// Path of the route.
pub const CHARGE_PATH: &str = "/api/performance/budget/charge";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChargeRequest {
    model: String,
    #[serde(default)]
    namespace: Option<String>,
    tokens: u64,
    /// Part of the price that the call costs, in percent.
    #[serde(default = "whole_price")]
    price_percent: u8,
}

const fn whole_price() -> u8 {
    100
}

/// `POST /api/performance/budget/charge`
pub(super) fn charge(context: &AdminContext, body: &Bytes) -> Result<AdminResponse, Refusal> {
    let request: ChargeRequest = serde_json::from_slice(body).map_err(|error| {
        Refusal::BadBody(format!("The body must be like {{\"model\": \"m\", \"tokens\": 1000}}: {error}."))
    })?;
    if request.price_percent > whole_price() {
        let message = "price_percent must be at most 100.".to_owned();
        return Err(Refusal::BadParameter { param: "price_percent".to_owned(), message });
    }
    let purchase = Purchase { namespace: request.namespace.as_deref(), model: &request.model, answered: None };
    let is_counted = !context.spend.is_off();
    context.spend.charge(&purchase, request.tokens, request.price_percent).map_err(Refusal::OverBudget)?;
    Ok(reply::ok(&json!({ "counted": is_counted })))
}

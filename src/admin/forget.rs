//! Forgets the entries of single inputs.

use bytes::Bytes;
use http::{StatusCode, request};
use serde_json::{Map, Value, json};

use super::cache::{EMBEDDINGS_PATH, warning};
use super::reply::{self, AdminResponse, Refusal};
use super::{AdminContext, body};
use crate::cache::purges::TOO_MANY_FORGOTTEN;
use crate::cache::{Forgotten, Tier};
use crate::config::Scope;
use crate::flow::UNMEASURED;

/// Describes a medium that still holds forgotten entries.
const UNERASED: &str = "The disk still holds forgotten entries, which are never served: it is slow or fails, see the log. \
                        This process goes on until they are overwritten. Repeat the request to learn whether they are.";

/// `POST /api/performance/cache/forget?path=`: the body is an embeddings request, the headers are those it would have. A
/// header that chooses the scope may occur several times.
pub(super) async fn forget(
    context: &AdminContext,
    head: &request::Parts,
    body: Bytes,
) -> Result<AdminResponse, Refusal> {
    let [path] = body::parameters(head.uri.query(), ["path"])?;
    let path = path.as_deref().unwrap_or(EMBEDDINGS_PATH);
    // Under this scope the token would count as the application's credential, and nothing would be found.
    if context.live.load().cache.scope == Scope::Credential && context.guard.is_token_in_authorization(&head.headers) {
        return Err(Refusal::TokenAsCredential);
    }
    let order = context.finder.find(path, &head.headers, body).await.map_err(|refusal| not_cacheable(&refusal))?;
    let (inputs, scopes) = (order.inputs, order.scopes);
    let forgotten =
        context.caches.forget(order, context.clock.now_ms()).await.map_err(|_| Refusal::TooManyForgotten)?;
    context.metrics.cache.purges.inc();
    context.metrics.cache.forgotten.add(inputs as u64);
    Ok(answer(inputs, scopes, &forgotten))
}

fn answer(inputs: usize, scopes: usize, forgotten: &Forgotten) -> AdminResponse {
    let labels = |tiers: &[Tier]| tiers.iter().map(|tier| tier.label()).collect::<Vec<_>>();
    let (pending, unerased) = (labels(&forgotten.pending), labels(&forgotten.unerased));
    tracing::info!(inputs, scopes, ?pending, ?unerased, "inputs forgotten on request of the ops port");
    let removed = |(tier, entries): &(Tier, u64)| (tier.label().to_owned(), json!(entries));
    let removed: Map<String, Value> = forgotten.removed.iter().map(removed).collect();
    let mut answer = json!({ "inputs": inputs, "scopes": scopes, "removed_entries": removed, "pending": pending });
    if pending.is_empty() && unerased.is_empty() {
        return reply::ok(&answer);
    }
    let mut warnings = Vec::new();
    if !pending.is_empty() {
        warnings.push(warning(&forgotten.pending, forgotten.is_remembered));
    }
    if !unerased.is_empty() {
        answer["unerased"] = json!(unerased);
        warnings.push(UNERASED.to_owned());
    }
    answer["warning"] = json!(warnings.join(" "));
    reply::json(StatusCode::ACCEPTED, &answer)
}

/// Turns the reason of an explanation into an error, with the member or path that caused it.
fn not_cacheable(refusal: &Value) -> Refusal {
    let text = |name: &str| refusal[name].as_str().map(str::to_owned);
    if refusal["reason"] == TOO_MANY_FORGOTTEN {
        return Refusal::TooManyForgotten;
    }
    if refusal["reason"] == UNMEASURED {
        return Refusal::InputsUnmeasured;
    }
    let subject = ["member", "path"].into_iter().find_map(text);
    Refusal::NotCacheable {
        reason: text("reason").unwrap_or_default(),
        message: text("message").unwrap_or_default(),
        subject,
    }
}

//! Routes of the ops port: one table for dispatch, access checks and the index.

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;

use super::guard::{Access, Detail};
use super::reply::{self, AdminResponse, Refusal};
use super::{
    AdminBody, AdminContext, CHARGE_PATH, EXPORT_PATH, IMPORT_PATH, body, cache, charge, dashboard, forget, health,
    moving, performance, settings,
};
use crate::observe::metrics::Rejection;

/// Largest body of a request, except for requests to explain.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Description of the routes of both ports. The tests compare it with the route tables and with real answers.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// One row of the route table.
pub(super) struct RouteEntry {
    pub(super) path: &'static str,
    /// The `allow` header; its first word is the method that the index shows.
    pub(super) allow: &'static str,
    pub(super) access: Access,
    endpoint: Endpoint,
    what: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Index,
    OpenApi,
    Asset,
    Dashboard,
    Events,
    Metrics,
    Live,
    Ready,
    Stats,
    Health,
    CacheStats,
    OptimizeMemory,
    Purge,
    Explain,
    Forget,
    Charge,
    Export,
    Import,
    Config,
    LogLevel,
}

const fn get(path: &'static str, access: Access, endpoint: Endpoint, what: &'static str) -> RouteEntry {
    RouteEntry { path, allow: "GET, HEAD", access, endpoint, what }
}

const fn change(allow: &'static str, path: &'static str, endpoint: Endpoint, what: &'static str) -> RouteEntry {
    RouteEntry { path, allow, access: Access::Private, endpoint, what }
}

pub(super) const ROUTES: &[RouteEntry] = &[
    get("/", Access::Figures, Endpoint::Index, "this list; to a browser, the dashboard"),
    get("/metrics", Access::Open, Endpoint::Metrics, "metrics in Prometheus's text format"),
    get("/livez", Access::Open, Endpoint::Live, "200 while the process lives"),
    get("/readyz", Access::Open, Endpoint::Ready, "200 while requests are accepted, else 503 and the reason"),
    get("/openapi.json", Access::Open, Endpoint::OpenApi, "the routes of both ports in OpenAPI 3.1"),
    get("/api/performance/stats", Access::Figures, Endpoint::Stats, "requests, cache and machine in figures"),
    get("/api/performance/health", Access::Figures, Endpoint::Health, "healthy, degraded or error, and why"),
    get("/api/performance/cache/stats", Access::Figures, Endpoint::CacheStats, "what the caches hold and how they do"),
    change("POST", "/api/performance/optimize-memory", Endpoint::OptimizeMemory, "frees memory down to a target"),
    change("DELETE", "/api/performance/cache", Endpoint::Purge, "empties the caches; ?model= and ?tier= narrow it"),
    change(
        "POST",
        "/api/performance/cache/explain",
        Endpoint::Explain,
        "what would happen to the embeddings request in the body",
    ),
    change(
        "POST",
        "/api/performance/cache/forget",
        Endpoint::Forget,
        "removes the entries of the embeddings request in the body",
    ),
    change("POST", CHARGE_PATH, Endpoint::Charge, "counts a call made elsewhere towards the budgets of the day"),
    get(
        EXPORT_PATH,
        Access::Private,
        Endpoint::Export,
        "all that is kept, as a file; it holds vectors, so it is guarded",
    ),
    change("POST", IMPORT_PATH, Endpoint::Import, "takes in the file in the body, which another instance exported"),
    get("/api/dashboard", Access::Private, Endpoint::Dashboard, "what the dashboard shows, and its last day"),
    get("/api/events", Access::Private, Endpoint::Events, "what changes from now on, as server-sent events"),
    get("/api/config", Access::Private, Endpoint::Config, "the configuration in force and where it came from"),
    change("PUT", "/api/log-level", Endpoint::LogLevel, "changes the log level until the next start"),
];

/// The dashboard's files, which the index does not list.
const ASSET: RouteEntry = get(dashboard::ASSETS_PATH, Access::Open, Endpoint::Asset, "");

impl RouteEntry {
    fn method(&self) -> &'static str {
        self.allow.split(',').next().unwrap_or_default()
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// A request that passed the guard, without its body.
struct Admitted<'a> {
    endpoint: Endpoint,
    head: &'a request::Parts,
    peer: SocketAddr,
    detail: Detail,
}

/// Answers one request of `peer` on the ops port.
pub async fn handle<B>(context: &AdminContext, request: Request<B>, peer: SocketAddr) -> Response<AdminBody>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let answered = match admitted(context, &head, peer) {
        Ok(admitted) => respond(context, &admitted, body).await,
        Err(refusal) => {
            // The counter shows attempts to reach guarded routes.
            if matches!(refusal, Refusal::Forbidden { .. }) {
                context.metrics.requests.rejected(Rejection::Forbidden);
            }
            Err(refusal)
        }
    };
    answered.unwrap_or_else(Refusal::into_reply)
}

/// Finds the route and checks access before the body is read.
fn admitted<'a>(context: &AdminContext, head: &'a request::Parts, peer: SocketAddr) -> Result<Admitted<'a>, Refusal> {
    let (method, path) = (head.method.to_string(), head.uri.path());
    let asset = || path.starts_with(ASSET.path).then_some(&ASSET);
    let Some(route) = ROUTES.iter().find(|route| route.path == path).or_else(asset) else {
        return Err(unknown(head));
    };
    if !route.allows(&head.method) {
        return Err(Refusal::WrongMethod { method, path: path.to_owned(), allow: route.allow });
    }
    context.guard.check(required(route, head), head, peer)?;
    Ok(Admitted { endpoint: route.endpoint, head, peer, detail: context.guard.detail(head, peer) })
}

/// Returns the access that the route requires. The page holds no figures, so a browser may load it without a token.
fn required(route: &RouteEntry, head: &request::Parts) -> Access {
    let is_page = route.endpoint == Endpoint::Index && dashboard::wants_page(&head.headers);
    if is_page { Access::Open } else { route.access }
}

fn unknown(head: &request::Parts) -> Refusal {
    Refusal::UnknownRoute { method: head.method.to_string(), path: head.uri.path().to_owned() }
}

async fn respond<B>(context: &AdminContext, admitted: &Admitted<'_>, body: B) -> Result<AdminResponse, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Admitted { endpoint, head, peer, detail } = *admitted;
    match endpoint {
        Endpoint::Index if dashboard::wants_page(&head.headers) => Ok(dashboard::page()),
        Endpoint::Index => Ok(index()),
        Endpoint::OpenApi => Ok(reply::bytes(StatusCode::OK, "application/json", OPENAPI)),
        Endpoint::Asset if head.uri.path() == dashboard::ASSETS_PATH => Ok(dashboard::to_page()),
        Endpoint::Asset => dashboard::asset(head.uri.path()).ok_or_else(|| unknown(head)),
        Endpoint::Dashboard => Ok(dashboard::dashboard(context).await),
        // `HEAD` must not take one of the few permits for streams.
        Endpoint::Events if head.method == Method::HEAD => Ok(dashboard::no_events()),
        Endpoint::Events => dashboard::events(context, peer.ip()),
        Endpoint::Metrics => Ok(metrics(context)),
        Endpoint::Live => Ok(health::live()),
        Endpoint::Ready => Ok(health::ready(context)),
        Endpoint::Stats => Ok(performance::stats(context, detail)),
        Endpoint::Health => Ok(health::health(context, detail)),
        Endpoint::CacheStats => Ok(cache::stats(context, detail)),
        Endpoint::Config => Ok(settings::show(context)),
        Endpoint::Purge => cache::purge(context, head).await,
        Endpoint::OptimizeMemory => {
            performance::optimize_memory(context, body::read(body, MAX_BODY_BYTES).await?).await
        }
        // The body may be as large as one on the public port.
        Endpoint::Explain => {
            cache::explain(context, head, body::read(body, context.live.load().limits.max_body_bytes).await?).await
        }
        Endpoint::Forget => {
            forget::forget(context, head, body::read(body, context.live.load().limits.max_body_bytes).await?).await
        }
        Endpoint::Charge => charge::charge(context, &body::read(body, MAX_BODY_BYTES).await?),
        Endpoint::Export if head.method == Method::HEAD => Ok(moving::no_export()),
        Endpoint::Export => Ok(moving::export(context).await),
        // A file of any size is streamed, so its body has no limit here.
        Endpoint::Import => moving::import(context, head, body).await,
        Endpoint::LogLevel => settings::set_log_level(context, &body::read(body, MAX_BODY_BYTES).await?),
    }
}

fn metrics(context: &AdminContext) -> AdminResponse {
    let (content_type, text) = context.metrics.render();
    reply::bytes(StatusCode::OK, content_type, text)
}

fn index() -> AdminResponse {
    let mut text = String::from("vecho, the ops port\n\n");
    for route in ROUTES {
        writeln!(text, "{:<6} {:<34} {}", route.method(), route.path, route.what)
            .expect("writing to a String must succeed");
    }
    let mut reply = reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", text);
    dashboard::vary(&mut reply);
    reply
}

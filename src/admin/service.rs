//! The routes of the ops port: one table that answers, refuses, and lists itself.

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;

use super::guard::Access;
use super::reply::{self, Refusal, Reply};
use super::{
    AdminBody, AdminContext, EXPORT_PATH, IMPORT_PATH, body, cache, dashboard, health, moving, performance, settings,
};

/// Largest body of a request that is not explained.
const MAX_BODY_BYTES: usize = 1 << 20;

/// One line of the table.
struct Route {
    path: &'static str,
    /// The `allow` header; its first word is the method that the index shows.
    allow: &'static str,
    access: Access,
    endpoint: Endpoint,
    what: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Index,
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
    Export,
    Import,
    Config,
    LogLevel,
}

const fn get(path: &'static str, access: Access, endpoint: Endpoint, what: &'static str) -> Route {
    Route { path, allow: "GET, HEAD", access, endpoint, what }
}

const fn change(allow: &'static str, path: &'static str, endpoint: Endpoint, what: &'static str) -> Route {
    Route { path, allow, access: Access::Change, endpoint, what }
}

const ROUTES: &[Route] = &[
    get("/", Access::Open, Endpoint::Index, "this list; to a browser, the dashboard"),
    get("/metrics", Access::Open, Endpoint::Metrics, "metrics in Prometheus's text format"),
    get("/livez", Access::Open, Endpoint::Live, "200 while the process lives"),
    get("/readyz", Access::Open, Endpoint::Ready, "200 while requests are accepted, else 503 and the reason"),
    get("/api/performance/stats", Access::Open, Endpoint::Stats, "requests, cache and machine in figures"),
    get("/api/performance/health", Access::Open, Endpoint::Health, "healthy, degraded or error, and why"),
    get("/api/performance/cache/stats", Access::Open, Endpoint::CacheStats, "what the caches hold and how they do"),
    change("POST", "/api/performance/optimize-memory", Endpoint::OptimizeMemory, "frees memory down to a target"),
    change("DELETE", "/api/performance/cache", Endpoint::Purge, "empties the caches; ?model= and ?tier= narrow it"),
    change(
        "POST",
        "/api/performance/cache/explain",
        Endpoint::Explain,
        "what would happen to the embeddings request in the body",
    ),
    get(
        EXPORT_PATH,
        Access::Change,
        Endpoint::Export,
        "all that is kept, as a file; it holds vectors, so it is guarded",
    ),
    change("POST", IMPORT_PATH, Endpoint::Import, "takes in the file in the body, which another instance exported"),
    get("/api/dashboard", Access::Local, Endpoint::Dashboard, "what the dashboard shows, and its last day"),
    get("/api/events", Access::Local, Endpoint::Events, "what changes from now on, as server-sent events"),
    get("/api/config", Access::Local, Endpoint::Config, "the configuration in force and where it came from"),
    change("PUT", "/api/log-level", Endpoint::LogLevel, "changes the log level until the next start"),
];

/// The files of the dashboard, which are not listed.
const ASSET: Route = get(dashboard::ASSETS_PATH, Access::Open, Endpoint::Asset, "");

impl Route {
    fn method(&self) -> &'static str {
        self.allow.split(',').next().unwrap_or_default()
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers one request of `peer` on the ops port.
pub async fn handle<B>(context: &AdminContext, request: Request<B>, peer: SocketAddr) -> Response<AdminBody>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let answered = match admitted(context, &head, peer) {
        Ok(endpoint) => respond(context, endpoint, &head, body).await,
        Err(refusal) => Err(refusal),
    };
    answered.unwrap_or_else(Refusal::into_reply)
}

/// Finds the route and asks the guard, before a byte of the body is read.
fn admitted(context: &AdminContext, head: &request::Parts, peer: SocketAddr) -> Result<Endpoint, Refusal> {
    let (method, path) = (head.method.to_string(), head.uri.path());
    let asset = || path.starts_with(ASSET.path).then_some(&ASSET);
    let Some(route) = ROUTES.iter().find(|route| route.path == path).or_else(asset) else {
        return Err(unknown(head));
    };
    if !route.allows(&head.method) {
        return Err(Refusal::WrongMethod { method, path: path.to_owned(), allow: route.allow });
    }
    context.guard.check(route.access, head, peer)?;
    Ok(route.endpoint)
}

fn unknown(head: &request::Parts) -> Refusal {
    Refusal::UnknownRoute { method: head.method.to_string(), path: head.uri.path().to_owned() }
}

async fn respond<B>(
    context: &AdminContext,
    endpoint: Endpoint,
    head: &request::Parts,
    body: B,
) -> Result<Reply, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match endpoint {
        Endpoint::Index if dashboard::wants_page(&head.headers) => Ok(dashboard::page()),
        Endpoint::Index => Ok(index()),
        Endpoint::Asset if head.uri.path() == dashboard::ASSETS_PATH => Ok(dashboard::to_page()),
        Endpoint::Asset => dashboard::asset(head.uri.path()).ok_or_else(|| unknown(head)),
        Endpoint::Dashboard => Ok(dashboard::dashboard(context).await),
        Endpoint::Events if head.method == Method::HEAD => Ok(dashboard::no_events()),
        Endpoint::Events => dashboard::events(context),
        Endpoint::Metrics => Ok(metrics(context)),
        Endpoint::Live => Ok(health::live()),
        Endpoint::Ready => Ok(health::ready(context)),
        Endpoint::Stats => Ok(performance::stats(context)),
        Endpoint::Health => Ok(health::health(context)),
        Endpoint::CacheStats => Ok(cache::stats(context)),
        Endpoint::Config => Ok(settings::show(context)),
        Endpoint::Purge => cache::purge(context, head).await,
        Endpoint::OptimizeMemory => {
            performance::optimize_memory(context, body::read(body, MAX_BODY_BYTES).await?).await
        }
        Endpoint::Explain => cache::explain(context, head, body::read(body, context.max_explain_bytes).await?).await,
        Endpoint::Export if head.method == Method::HEAD => Ok(moving::no_export()),
        Endpoint::Export => Ok(moving::export(context).await),
        Endpoint::Import => moving::import(context, body).await,
        Endpoint::LogLevel => settings::set_log_level(context, &body::read(body, MAX_BODY_BYTES).await?),
    }
}

fn metrics(context: &AdminContext) -> Reply {
    let (content_type, text) = context.metrics.render();
    reply::bytes(StatusCode::OK, content_type, text)
}

fn index() -> Reply {
    let mut text = String::from("vecho, the ops port\n\n");
    for route in ROUTES {
        writeln!(text, "{:<6} {:<34} {}", route.method(), route.path, route.what)
            .expect("writing to a String must succeed");
    }
    let mut reply = reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", text);
    dashboard::vary(&mut reply);
    reply
}

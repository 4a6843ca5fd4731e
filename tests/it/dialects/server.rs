//! The server of one dialect: a hyper server on a loopback port that records every request.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::dialect::{Dialect, Fault, Transport};
use super::gzip;
use super::received::Received;

/// A running server, stopped on drop.
pub(crate) struct Server {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    dialect: Dialect,
    addr: SocketAddr,
    calls: Mutex<Vec<Arc<Received>>>,
    turn: tokio::sync::Mutex<()>,
    /// While true, embeddings calls are held.
    holds: AtomicBool,
    released: Notify,
}

impl Server {
    pub(crate) async fn start(dialect: Dialect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port must bind");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State {
            dialect,
            addr,
            calls: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            holds: AtomicBool::new(false),
            released: Notify::new(),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_connection(stream, Arc::clone(&shared)));
            }
        });
        Self { addr, state, accepting }
    }

    /// Returns the URL of a path on this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Returns the embeddings calls so far, in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Arc<Received>> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of embeddings calls so far.
    pub(crate) fn count(&self) -> usize {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Holds all embeddings calls that arrive from now on.
    pub(crate) fn hold(&self) {
        self.state.holds.store(true, Ordering::SeqCst);
    }

    /// Releases all held calls.
    pub(crate) fn release(&self) {
        self.state.holds.store(false, Ordering::SeqCst);
        self.state.released.notify_waiters();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let served = AtomicUsize::new(0);
    let service = service_fn(|request| {
        let earlier = served.fetch_add(1, Ordering::Relaxed);
        serve(Arc::clone(&state), earlier, request)
    });
    // An error here means that the client disconnected, or that a behaviour closed the connection.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Answers one request. An error closes the connection.
async fn serve(state: Arc<State>, earlier: usize, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    if state.dialect.has(Transport::ClosesKept) && earlier > 0 {
        return Err(io::Error::other("the kept connection is closed"));
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let received = Arc::new(Received::read(&head, body));
    if received.route().ends_with("/models") {
        return Ok(whole(200, json!({"object": "list", "data": []}).to_string().into()));
    }
    if let Some(response) = redirect(&state, &received) {
        return Ok(response);
    }
    state.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&received));
    state.work(&received).await;
    match state.meet(&received) {
        Ok(response) => Ok(response),
        Err(Fault::HangUp) => Err(io::Error::other("the server hangs up")),
        Err(Fault::Status(status, message)) => {
            Ok(whole(status, (state.dialect.errors)(status, &message).to_string().into()))
        }
    }
}

impl State {
    /// Waits for the processing time of the request.
    async fn work(&self, received: &Received) {
        loop {
            let released = self.released.notified();
            if !self.holds.load(Ordering::SeqCst) {
                break;
            }
            released.await;
        }
        let _turn = if self.dialect.has(Transport::Serial) { Some(self.turn.lock().await) } else { None };
        if let Some(pace) = &self.dialect.pace {
            tokio::time::sleep(pace(received)).await;
        }
    }

    fn serves(&self, route: &str) -> bool {
        let path = self.dialect.path.split('?').next().unwrap_or_default();
        if !self.dialect.has(Transport::MergesSlashes) {
            return route == path;
        }
        let parts = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        parts(route) == parts(path)
    }

    fn meet(&self, received: &Received) -> Result<Response<Full<Bytes>>, Fault> {
        let fault = |status, message: &str| Err(Fault::Status(status, message.to_owned()));
        if !self.serves(received.route()) || received.method != http::Method::POST {
            return fault(404, "Not Found");
        }
        if self.dialect.key_header.is_some_and(|name| !received.headers.contains_key(name)) {
            return fault(401, "Incorrect API key provided.");
        }
        if received.members.is_empty() {
            return fault(400, "The body of the request is no JSON object.");
        }
        let draft = self.dialect.answer(received)?;
        let mut response = whole(200, draft.write());
        for (name, value) in &draft.headers {
            response.headers_mut().append(*name, value.parse().expect("a dialect's header is legal"));
        }
        if self.dialect.has(Transport::PacksAnswers) {
            let packed = gzip::pack(&draft.write());
            response.headers_mut().insert("content-encoding", "gzip".parse().expect("it is a value"));
            *response.body_mut() = Full::new(packed);
        }
        Ok(response)
    }
}

/// Returns a redirect to the host name that the client used, as Starlette and others do.
fn redirect(state: &State, received: &Received) -> Option<Response<Full<Bytes>>> {
    let status = state.dialect.redirects(received.route())?;
    let host = host(&received.headers).unwrap_or_else(|| state.addr.to_string());
    let location = format!("http://{host}{}", state.dialect.path);
    let mut response = whole(status, Bytes::new());
    response.headers_mut().insert("location", location.parse().expect("an address is a value"));
    Some(response)
}

fn host(headers: &HeaderMap) -> Option<String> {
    headers.get("host")?.to_str().ok().map(str::to_owned)
}

fn whole(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a dialect's status is legal");
    response.headers_mut().insert("content-type", "application/json".parse().expect("it is a value"));
    response
}

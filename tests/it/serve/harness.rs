//! A server whose handler is chosen by the path, a recorder of its hooks, and a client that sends raw bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use vecho::serve::{
    BodyBounds, Bound, ConnectionHooks, Peer, PeerFault, Running, ServeLimits, Server, Tls, collect_bounded,
};

/// Timeout of every wait, longer than any expected duration.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// Body limit of `/echo`, in bytes.
pub(crate) const ECHO_BYTES: usize = 1000;
/// Size of the answer of `/huge`, in bytes.
pub(crate) const HUGE_BYTES: usize = 32 * 1024 * 1024;
/// Longest pause in a body sent to `/echo`.
const ECHO_PAUSE: Duration = Duration::from_millis(300);

const ECHO_BOUNDS: BodyBounds = BodyBounds { max_bytes: ECHO_BYTES, pause: ECHO_PAUSE, whole: Duration::from_mins(1) };

/// Events that the server reported, and the number of requests at the gate of `/wait`.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    pub(crate) rejected: AtomicUsize,
    pub(crate) faults: Mutex<Vec<PeerFault>>,
    pub(crate) waiting: AtomicUsize,
}

impl Seen {
    pub(crate) fn faults(&self) -> Vec<PeerFault> {
        self.faults.lock().expect("no test panics while it holds this").clone()
    }
}

impl ConnectionHooks for Seen {
    fn opened(&self) {
        self.opened.fetch_add(1, SeqCst);
    }
    fn closed(&self) {
        self.closed.fetch_add(1, SeqCst);
    }
    fn rejected(&self) {
        self.rejected.fetch_add(1, SeqCst);
    }
    fn protocol_error(&self, fault: PeerFault) {
        self.faults.lock().expect("no test panics while it holds this").push(fault);
    }
}

/// A running server, its recorded events and its gate.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) seen: Arc<Seen>,
    pub(crate) gate: Arc<Semaphore>,
}

/// Returns limits that no test reaches unless it lowers one.
pub(crate) fn wide() -> ServeLimits {
    ServeLimits {
        max_connections: 100,
        max_header_bytes: 16 * 1024,
        header_timeout: TIMEOUT * 3,
        idle_timeout: TIMEOUT * 3,
        write_timeout: TIMEOUT * 3,
    }
}

pub(crate) async fn start(limits: ServeLimits) -> Served {
    start_with(limits, None).await
}

pub(crate) async fn start_with(limits: ServeLimits, tls: Option<Tls>) -> Served {
    let seen = Arc::new(Seen::default());
    let gate = Arc::new(Semaphore::new(0));
    let bound = Bound::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is always free");
    let (at, pass) = (Arc::clone(&seen), Arc::clone(&gate));
    let handler = move |request, peer| answer(request, peer, Arc::clone(&at), Arc::clone(&pass));
    let hooks: Arc<dyn ConnectionHooks> = Arc::<Seen>::clone(&seen);
    let running = Server::new(bound, limits).with_tls(tls).with_hooks(hooks).start(handler);
    Served { running, seen, gate }
}

async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/echo" => match collect_bounded(request.into_body(), ECHO_BOUNDS, |_| true).await {
            Ok(body) => say(StatusCode::OK, body),
            Err(error) => say(StatusCode::BAD_REQUEST, error.to_string()),
        },
        "/wait" => {
            seen.waiting.fetch_add(1, SeqCst);
            gate.acquire().await.expect("the gate is never closed").forget();
            say(StatusCode::OK, "waited")
        }
        "/huge" => say(StatusCode::OK, vec![b'x'; HUGE_BYTES]),
        "/unheard" => say(StatusCode::PAYLOAD_TOO_LARGE, "unheard"),
        "/panic" => panic!("as it was told"),
        "/tunnel" => tunnel(request),
        "/peer" => say(StatusCode::OK, format!("{} {} {}", peer.addr, peer.local, peer.tls)),
        _ => say(StatusCode::OK, "hello"),
    }
}

fn say(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).expect("a plain answer is valid")
}

/// Switches protocols, then echoes every byte.
fn tunnel(request: Request<Incoming>) -> Response<Full<Bytes>> {
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.expect("the answer is 101"));
        let mut byte = [0];
        while io.read_exact(&mut byte).await.is_ok() && io.write_all(&byte).await.is_ok() {}
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "bytes")
        .body(Full::default())
        .expect("an upgrade is valid")
}

impl Served {
    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        let addr = self.running.local_addr();
        Client(TcpStream::connect(addr).await.expect("the server listens"))
    }
}

/// A connection on which a test controls every byte.
pub(crate) struct Client<S>(pub(crate) S);

/// A parsed answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> &str {
        &self.head[9..12]
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Checks that this is an error in the API's format.
    pub(crate) fn assert_envelope(&self, status: &str, kind: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.header("connection"), Some("close"), "{self:?}");
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("the body is JSON");
        assert_eq!(body["error"]["type"], kind, "{body}");
        assert!(body["error"]["message"].is_string() && body["error"]["param"].is_null(), "{body}");
        assert!(body["error"].as_object().is_some_and(|error| error.contains_key("code")), "{body}");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.expect("the server reads");
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.answer().await
    }

    /// Returns the next answer, which must state its length or have no body.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(self.0.read_u8()).await.expect("the server answers"));
        }
        let head = String::from_utf8(head).expect("a head is text");
        let mut answer = Answer { head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length is a number"));
        let mut body = vec![0; length];
        within(self.0.read_exact(&mut body)).await.expect("the answer is whole");
        answer.body = String::from_utf8(body).expect("the bodies here are text");
        answer
    }

    /// Waits until the server closes, and panics if it sends anything before.
    pub(crate) async fn assert_closes(&mut self) {
        let mut rest = Vec::new();
        // A reset counts as a close.
        let _ = within(self.0.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "the server said {:?}", String::from_utf8_lossy(&rest));
    }
}

/// Returns the result of `work`, and panics after the timeout.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.expect("this must not take so long")
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

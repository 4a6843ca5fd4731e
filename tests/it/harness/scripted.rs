//! A server on raw sockets whose answer to each request is a function of the test. It can send bytes that no server
//! library sends, and close connections at any point.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// Its number on this connection, from 0.
    pub(crate) number: usize,
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The server's reaction to a request.
pub(crate) enum Act {
    /// Writes these bytes and waits for the next request.
    Say(String),
    /// Writes these bytes and closes the connection.
    SayAndClose(String),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Never answers.
    Nothing,
}

type Script = dyn Fn(&Arrival) -> Act + Send + Sync;
type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// A running server, stopped on drop.
pub(crate) struct Scripted {
    addr: SocketAddr,
    arrivals: Arrivals,
    task: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Arrival) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (arrivals, script) = (Arrivals::default(), Arc::new(script) as Arc<Script>);
        let seen = Arc::clone(&arrivals);
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, connection, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { addr, arrivals, task }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns its address without a path.
    pub(crate) fn root_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns its address as a base URL with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Returns all requests so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Arrival {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        pairs.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

async fn serve(mut stream: TcpStream, connection: usize, script: Arc<Script>, seen: Arrivals) {
    let mut buffer = Vec::new();
    for number in 0.. {
        let Some((head, body)) = read_request(&mut stream, &mut buffer).await else { return };
        let arrival = Arrival { connection, number, head, body };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(arrival.clone());
        match script(&arrival) {
            Act::Say(bytes) => stream.write_all(bytes.as_bytes()).await.ok(),
            Act::SayAndClose(bytes) => {
                stream.write_all(bytes.as_bytes()).await.ok();
                return;
            }
            Act::Close => return,
            Act::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP option");
                return;
            }
            Act::Nothing => std::future::pending().await,
        };
    }
}

/// Returns head and body of the next request, or `None` if the client closes the connection.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let lower = head.to_lowercase();
            let length =
                lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let rest = buffer.split_off(end + 4 + length);
                let body = String::from_utf8_lossy(&buffer[end + 4..]).into_owned();
                *buffer = rest;
                return Some((head, body));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Builds an answer with a JSON body.
pub(crate) fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

/// Builds an answer with a status line, further header lines that each end in CR LF, and a body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

/// Builds an embeddings answer with one vector.
pub(crate) fn one_vector(first: f32) -> String {
    ok(&format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{first},0.5]}}],"model":"tiny","usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    ))
}

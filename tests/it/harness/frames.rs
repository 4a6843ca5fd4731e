//! A raw HTTP/2 connection over TLS, for frames that no HTTP client sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::stub::DEADLINE;
use super::tls::{Identity, connect};

/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error code of a peer that resets its streams.
const CANCEL: u32 = 8;
/// Error code for a peer that sends too much of something.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// One connection. It sends only what a test tells it to, and reads nothing in the background.
pub(crate) struct Frames {
    stream: TlsStream<TcpStream>,
    next_stream: u32,
}

/// The state of a connection after a ping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pinged {
    /// The peer has read everything before the ping.
    Alive,
    /// The peer ended the connection, with this error code if it gave one.
    Ended(Option<u32>),
}

impl Frames {
    pub(crate) async fn connect(addr: SocketAddr, trusted: &Identity) -> Self {
        let stream = connect(addr, trusted, &["h2"]).await.expect("the handshake must succeed");
        let mut frames = Self { stream, next_stream: 1 };
        let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        add_frame(&mut start, SETTINGS, 0, 0, &[]);
        frames.offer(&start).await;
        frames
    }

    /// Returns the frames of a request that is cancelled at once. Without a body, the request stays unfinished.
    pub(crate) fn cancelled_post(&mut self, path: &str, body: Option<&str>) -> Vec<u8> {
        let (id, mut out) = (self.next_stream, Vec::new());
        self.next_stream += 2;
        add_frame(&mut out, HEADERS, END_HEADERS, id, &head(path));
        if let Some(body) = body {
            add_frame(&mut out, DATA, END_STREAM, id, body.as_bytes());
        }
        add_frame(&mut out, RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        out
    }

    /// Sends bytes and ignores errors, because the peer may have closed.
    pub(crate) async fn offer(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await.ok();
            self.stream.flush().await.ok();
        };
        timeout(DEADLINE, sent).await.expect("the peer must read or close");
    }

    /// Sends a ping and reads until its answer, or until the connection ends.
    pub(crate) async fn ping(&mut self) -> Pinged {
        let mut ping = Vec::new();
        add_frame(&mut ping, PING, 0, 0, &[7; 8]);
        self.offer(&ping).await;
        let answered = async {
            loop {
                let Some((kind, flags, payload)) = self.next_frame().await else { return Pinged::Ended(None) };
                match (kind, payload.get(4..8)) {
                    (PING, _) if flags & ACK != 0 && payload == [7; 8] => return Pinged::Alive,
                    (GOAWAY, Some(code)) => {
                        let code = code.try_into().expect("four bytes were taken");
                        return Pinged::Ended(Some(u32::from_be_bytes(code)));
                    }
                    _ => {}
                }
            }
        };
        timeout(DEADLINE, answered).await.expect("the peer must answer or close")
    }

    /// Returns kind, flags and payload of the next frame, or `None` at the end of the connection.
    async fn next_frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [high, mid, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, mid, low]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, payload))
    }
}

fn add_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a test's frame is short").to_be_bytes();
    out.extend([length[1], length[2], length[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// Returns the header block of a post of JSON to `localhost` (RFC 7541, with names of the static table and plain
/// values).
fn head(path: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x80 | 3;
    const SCHEME_HTTPS: u8 = 0x80 | 7;
    const AUTHORITY: u8 = 1;
    const PATH: u8 = 4;
    /// Index 31, which is longer than the prefix of four bits.
    const CONTENT_TYPE: [u8; 2] = [0x0f, 31 - 15];
    let mut block = vec![METHOD_POST, SCHEME_HTTPS];
    let mut add = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("a test's header is short"));
        block.extend(value.as_bytes());
    };
    add(&[PATH], path);
    add(&[AUTHORITY], "localhost");
    add(&CONTENT_TYPE, "application/json");
    block
}

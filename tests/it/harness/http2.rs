//! A server with HTTP/2 over TLS whose reaction to each stream is a function of the test.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;

use super::tls::Identity;

/// One stream as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// Its number on this connection, from 0.
    pub(crate) number: usize,
    pub(crate) path: String,
}

/// The server's reaction to a stream.
pub(crate) enum React {
    /// Answers with this JSON body.
    Answer(String),
    /// Sends the head and half of this body, and then resets the stream.
    Cut(String),
    /// Resets the stream with this reason.
    Reset(Reason),
    /// Answers with this JSON body once the test gives a permit.
    Gate(Arc<Semaphore>, String),
    /// Closes the connection.
    Close,
    /// Never reads from the connection again, nor answers its pings.
    Freeze,
    /// Never answers.
    Nothing,
}

/// The end of a connection.
struct Ending {
    /// True if the connection stays open, but is not read any more.
    freezes: bool,
    /// Kept until then, because a dropped stream is reset.
    _respond: SendResponse<Bytes>,
}

type Script = dyn Fn(&Opened) -> React + Send + Sync;

/// A running server, stopped on drop.
pub(crate) struct Http2Server {
    addr: SocketAddr,
    opened: Arc<Mutex<Vec<Opened>>>,
    ended: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Http2Server {
    /// Starts a server that permits this number of streams to each connection.
    pub(crate) async fn start(
        identity: &Identity,
        max_streams: u32,
        script: impl Fn(&Opened) -> React + Send + Sync + 'static,
    ) -> Self {
        Self::start_after(identity, max_streams, 0, script).await
    }

    /// Like [`Http2Server::start`], but the first connections end with a GOAWAY that covers none of their streams.
    pub(crate) async fn start_after(
        identity: &Identity,
        max_streams: u32,
        leaving: usize,
        script: impl Fn(&Opened) -> React + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (addr, acceptor) = (listener.local_addr().expect("it is bound"), identity.http2_acceptor());
        let (opened, ended, script) = (Arc::default(), Arc::default(), Arc::new(script) as Arc<Script>);
        let (seen, counted) = (Arc::clone(&opened), Arc::<Mutex<usize>>::clone(&ended));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (acceptor, script, seen) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    if connection < leaving {
                        leave(tls).await;
                    } else {
                        serve(tls, (connection, max_streams), &script, &seen).await;
                    }
                    *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                });
            }
        });
        Self { addr, opened, ended, task }
    }

    /// Returns its address as a base URL with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("https://localhost:{}/v1", self.addr.port())
    }

    /// Returns all streams so far.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of connections that have ended.
    pub(crate) fn ended(&self) -> usize {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    tls: TlsStream<TcpStream>,
    (connection, max_streams): (usize, u32),
    script: &Arc<Script>,
    seen: &Arc<Mutex<Vec<Opened>>>,
) {
    let mut builder = Builder::new();
    // With a buffer of one byte, the capacity of a stream tells whether its bytes are sent.
    builder.max_concurrent_streams(max_streams).initial_window_size(1 << 20).max_send_buffer_size(1);
    let Ok(mut http) = builder.handshake::<_, Bytes>(tls).await else { return };
    let (close, mut closing) = mpsc::channel(1);
    for number in 0.. {
        let accepted = tokio::select! {
            accepted = http.accept() => accepted,
            ending = closing.recv() => match ending {
                Some(Ending { freezes: true, _respond }) => std::future::pending().await,
                _ => return,
            },
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (script, seen, close) = (Arc::clone(script), Arc::clone(seen), close.clone());
        tokio::spawn(async move {
            if let Some(ending) = react(request, respond, (connection, number), (&*script, &*seen)).await {
                close.send(ending).await.ok();
            }
        });
    }
}

/// Reads a request and reacts. Returns the end of the connection, if it ends here.
async fn react(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    (connection, number): (usize, usize),
    (script, seen): (&Script, &Mutex<Vec<Opened>>),
) -> Option<Ending> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let opened = Opened { connection, number, path };
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(opened.clone());
    let head = || Response::builder().header("content-type", "application/json").body(()).expect("it is legal");
    match script(&opened) {
        React::Answer(body) => answer(&mut respond, head(), body),
        React::Gate(gate, body) => {
            gate.acquire().await.expect("the test keeps it open").forget();
            answer(&mut respond, head(), body);
        }
        React::Cut(body) => {
            if let Ok(mut sending) = respond.send_response(head(), false) {
                let half = body.len() / 2;
                sending.reserve_capacity(half + 1);
                let _ = sending.send_data(Bytes::from(body).slice(..half), false);
                // The buffer has room again once the bytes are sent. A reset before that would replace them.
                while sending.capacity() == 0 && poll_fn(|cx| sending.poll_capacity(cx)).await.is_some() {}
                sending.send_reset(Reason::INTERNAL_ERROR);
            }
        }
        React::Reset(reason) => respond.send_reset(reason),
        React::Close => return Some(Ending { freezes: false, _respond: respond }),
        React::Freeze => return Some(Ending { freezes: true, _respond: respond }),
        React::Nothing => std::future::pending().await,
    }
    None
}

fn answer(respond: &mut SendResponse<Bytes>, head: Response<()>, body: String) {
    if let Ok(mut sending) = respond.send_response(head, false) {
        let _ = sending.send_data(body.into(), true);
    }
}

/// Sends settings, waits for a request, and announces that it will not be processed.
async fn leave(mut tls: TlsStream<TcpStream>) {
    const HEADERS: u8 = 1;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut preface = [0; 24];
    if tls.read_exact(&mut preface).await.is_err() || tls.write_all(&settings).await.is_err() {
        return;
    }
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if tls.read_exact(&mut payload).await.is_err() {
            return;
        }
        if head[3] == HEADERS && tls.write_all(&go_away).await.is_err() {
            return;
        }
    }
}

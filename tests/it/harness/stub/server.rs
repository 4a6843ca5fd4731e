//! The stub's sockets: a thread with a runtime, and a listener that can close and listen again on its port.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::handle::stands;
use super::routes;
use super::state::State;

const BACKLOG: u32 = 1024;

/// A running server, stopped on drop.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    wished: watch::Sender<bool>,
    listening: watch::Sender<bool>,
    stop: CancellationToken,
    /// Reserves the port for this stub while nothing listens on it.
    _holder: TcpSocket,
}

impl Server {
    /// Opens or closes the listener and waits until it has done so.
    pub(crate) async fn switch(&self, up: bool) {
        self.wished.send_replace(up);
        stands(&self.listening, up).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts the server's thread. The server listens when this function returns.
pub(crate) fn start(state: Arc<State>) -> Server {
    let holder = reusable_socket(SocketAddr::from(([127, 0, 0, 1], 0)));
    let addr = holder.local_addr().expect("a bound socket has an address");
    let server = Server {
        addr,
        wished: watch::Sender::new(true),
        listening: watch::Sender::new(false),
        stop: CancellationToken::new(),
        _holder: holder,
    };
    let (wished, listening, stop) = (server.wished.clone(), server.listening.clone(), server.stop.clone());
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime must start");
        let serve = async {
            loop {
                stands(&wished, true).await;
                let listener = listen(addr);
                listening.send_replace(true);
                let _ = ready.send(());
                serve_until_down(listener, &wished, &state).await;
                listening.send_replace(false);
            }
        };
        runtime.block_on(stop.run_until_cancelled(serve));
    });
    started.recv().expect("the stub must start");
    server
}

async fn serve_until_down(listener: TcpListener, wished: &watch::Sender<bool>, state: &Arc<State>) {
    let connections = CancellationToken::new();
    let _cut = connections.clone().drop_guard();
    let mut down = wished.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let connection = connections.clone();
                let serve = serve_connection(stream, Arc::clone(state));
                tokio::spawn(async move { connection.run_until_cancelled(serve).await });
            }
            _ = down.wait_for(|up| !up) => return,
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let connection = state.next_connection();
    let service = service_fn(move |request| routes::serve(Arc::clone(&state), connection, request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    // An error here means that the client disconnected, or that a behaviour closed the connection.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn listen(addr: SocketAddr) -> TcpListener {
    reusable_socket(addr).listen(BACKLOG).expect("the held port must be free to listen on")
}

fn reusable_socket(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket must open");
    socket.set_reuseaddr(true).expect("a fresh socket takes its options");
    socket.bind(addr).expect("a loopback port must bind");
    socket
}

/// Error by which the service closes the connection.
#[derive(Debug, thiserror::Error)]
#[error("the stub was told to hang up")]
pub(crate) struct HungUp;

//! The listening socket and its accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{self, ConnectionPermit, Shared};
use super::drain::{Running, ServerState};
use super::handler::{Handler, Peer};
use super::limits::{ConnectionHooks, ServeLimits};
use super::reply;
use super::tls::Tls;
use crate::process::connector::{KEEPALIVE, KEEPALIVE_PROBES};
use crate::process::workers::Workers;

/// Connections over the limit that get an error response at once. Any beyond this number are closed without one.
const MAX_REJECTIONS: usize = 64;
/// Timeout for sending such a response and reading from the peer.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Backoff after a failed accept. Without it, a process without free file descriptors would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Reason why the server cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {reason}", reason = reason(.source, .addr.port()))]
pub struct BindError {
    /// The requested address.
    pub addr: SocketAddr,
    /// The error of the operating system.
    pub source: io::Error,
}

fn reason(source: &io::Error, port: u16) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} is already in use; end the program that has it, or set another port")
        }
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need a privilege".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => source.to_string(),
    }
}

/// Listening socket. Connections wait in the operating system's queue until a server is started.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local: SocketAddr,
}

impl Bound {
    /// Binds the address. Port 0 chooses a free port.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let taken = async {
            let listener = TcpListener::bind(addr).await?;
            // Accepted sockets inherit this setting.
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
            SockRef::from(&listener).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
            Ok(Self { local: listener.local_addr()?, listener })
        };
        taken.await.map_err(|source| BindError { addr, source })
    }

    /// Returns the bound address with its actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Server that is not started yet.
pub struct Server {
    bound: Bound,
    limits: ServeLimits,
    tls: Option<Tls>,
    hooks: Arc<dyn ConnectionHooks>,
    workers: Option<Workers>,
}

impl Server {
    /// Creates a server of plain HTTP/1.1.
    pub fn new(bound: Bound, limits: ServeLimits) -> Self {
        Self { bound, limits, tls: None, hooks: Arc::new(()), workers: None }
    }

    /// Adds TLS, and HTTP/2 for peers that negotiate it.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Adds hooks for connection events.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn ConnectionHooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Spreads the connections over these workers. Without it, the current runtime serves all.
    #[must_use]
    pub fn with_workers(self, workers: Option<Workers>) -> Self {
        Self { workers, ..self }
    }

    /// Starts to serve. Connections that already wait come first.
    pub fn start<H: Handler>(self, handler: H) -> Running {
        let state = Arc::new(ServerState::default());
        let running = Running::new(self.bound.local, Arc::clone(&state));
        let acceptor = Acceptor {
            listener: self.bound.listener,
            slots: Arc::new(Semaphore::new(self.limits.max_connections)),
            rejections: Arc::new(Semaphore::new(MAX_REJECTIONS)),
            full: Episode::default(),
            failing: Episode::default(),
            workers: self.workers.unwrap_or_else(Workers::current),
            shared: Arc::new(Shared {
                handler,
                tls: self.tls,
                limits: self.limits,
                hooks: self.hooks,
                state: Arc::clone(&state),
            }),
        };
        state.connections.spawn(acceptor.run());
        running
    }
}

struct Acceptor<H> {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    rejections: Arc<Semaphore>,
    full: Episode,
    failing: Episode,
    workers: Workers,
    shared: Arc<Shared<H>>,
}

impl<H: Handler> Acceptor<H> {
    /// Accepts connections until the drain begins. Then the socket is closed and the port refuses connections.
    async fn run(mut self) {
        let mut draining = Box::pin(self.shared.state.draining());
        loop {
            // The drain is checked first, so a flood of connections cannot delay it.
            tokio::select! {
                biased;
                () = &mut draining => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, addr)) => self.admit(tcp, addr),
                    Err(error) => self.back_off(&error).await,
                }
            }
        }
    }

    fn admit(&mut self, tcp: TcpStream, addr: SocketAddr) {
        if self.failing.ends() {
            tracing::info!("accept() succeeds again");
        }
        // The permit is taken before any other work, so connections over the limit cost little.
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self.reject(tcp);
        };
        if self.full.ends() {
            tracing::info!("below the connection limit again");
        }
        // A peer that is gone already costs no task. Its permit is released here.
        let Some(peer) = self.meet(&tcp, addr) else { return };
        self.hand_over(tcp, peer, permit);
    }

    /// Gives a connection to the worker with the fewest.
    fn hand_over(&self, tcp: TcpStream, peer: Peer, permit: OwnedSemaphorePermit) {
        let (shared, assignment) = (Arc::clone(&self.shared), self.workers.assign());
        let (runtime, is_here) = (assignment.runtime().clone(), assignment.is_here());
        let slot = ConnectionPermit::new(permit, assignment, Arc::clone(&self.shared.hooks));
        let connections = &self.shared.state.connections;
        if is_here {
            return connections.spawn(connection::serve(shared, tcp, peer, slot));
        }
        // A socket belongs to the runtime that polls it, so the other runtime registers it anew.
        // A socket that cannot be moved is dropped, which closes the connection.
        let Ok(socket) = tcp.into_std() else { return };
        let work = async move {
            if let Ok(tcp) = TcpStream::from_std(socket) {
                connection::serve(shared, tcp, peer, slot).await;
            }
        };
        connections.spawn_on(&runtime, work);
    }

    /// Returns the addresses of the peer; `None` if it is already gone.
    fn meet(&self, tcp: &TcpStream, addr: SocketAddr) -> Option<Peer> {
        // Responses are sent in few large writes, so Nagle's algorithm would only delay their ends.
        tcp.set_nodelay(true).ok()?;
        let local = tcp.local_addr().ok()?;
        Some(Peer { addr: canonical(addr), local: canonical(local), tls: self.shared.tls.is_some() })
    }

    fn reject(&mut self, tcp: TcpStream) {
        self.shared.hooks.rejected();
        if self.full.begins() {
            let max_connections = self.shared.limits.max_connections;
            tracing::warn!(max_connections, "connection limit reached; rejecting new connections");
        }
        // With TLS, the response would need the handshake that the limit is meant to save.
        if self.shared.tls.is_none()
            // Beyond `MAX_REJECTIONS` the socket is only dropped, so a flood holds few descriptors.
            && let Ok(permit) = Arc::clone(&self.rejections).try_acquire_owned()
        {
            self.shared.state.aside.spawn(async move {
                // A peer that is too slow gets no response.
                let _ = tokio::time::timeout(REJECTION_TIMEOUT, turn_away(tcp)).await;
                drop(permit);
            });
        }
    }

    async fn back_off(&mut self, error: &io::Error) {
        // The peer gave up while it waited in the queue, which is no fault of this server.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.failing.begins() {
            tracing::error!(%error, "accept() failed; retrying");
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

/// Sends a 503 response, then reads for a moment: closing with unread bytes could destroy the response in transit.
async fn turn_away(mut tcp: TcpStream) {
    // The shutdown of the write half tells the peer that the response is complete.
    let replied = tcp.write_all(&reply::server_full()).await.is_ok() && tcp.shutdown().await.is_ok();
    let mut scrap = [0_u8; 4096];
    while replied && matches!(tcp.read(&mut scrap).await, Ok(1..)) {}
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Condition that is logged when it begins and when it ends, not each time it occurs.
#[derive(Debug, Default)]
struct Episode(bool);

impl Episode {
    fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    fn ends(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_logged_once_at_its_start_and_once_at_its_end() {
        let mut episode = Episode::default();
        let told = [episode.ends(), episode.begins(), episode.begins(), episode.ends(), episode.ends()];
        assert_eq!(told, [false, true, false, true, false]);
    }

    #[test]
    fn a_mapped_ipv6_address_is_shown_as_ipv4() {
        let mapped = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 80));
        assert_eq!(canonical(mapped), SocketAddr::from(([127, 0, 0, 1], 80)));
    }
}

//! The listening socket: bound before anything is served, and the loop that accepts from it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection::{self, Shared, Slot};
use super::drain::{Course, Running};
use super::handler::{Handler, Peer};
use super::limits::{ConnectionHooks, ServeLimits};
use super::reply;
use super::tls::Tls;
use crate::connector::{KEEPALIVE, KEEPALIVE_PROBES};

/// Connections over the bound that are told so at once; those over this number, too, are just closed.
const MAX_REJECTIONS: usize = 64;
/// How long such a reply, and its reading, may take.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The wait after a failure to accept; without it a process out of descriptors would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} (port {port}): {reason}", port = .addr.port(), reason = reason(.source))]
pub struct BindError {
    /// The address asked for.
    pub addr: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

fn reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "the port is already in use".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need a privilege".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => source.to_string(),
    }
}

/// A socket that listens. Connections wait in the operating system's queue until a server is started on it.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local: SocketAddr,
}

impl Bound {
    /// Takes the address; port 0 takes any free port.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let taken = async {
            let listener = TcpListener::bind(addr).await?;
            // Accepted sockets inherit it.
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
            SockRef::from(&listener).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
            Ok(Self { local: listener.local_addr()?, listener })
        };
        taken.await.map_err(|source| BindError { addr, source })
    }

    /// The address taken, with the port that it really is.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A server that is not started yet.
pub struct Server {
    bound: Bound,
    limits: ServeLimits,
    tls: Option<Tls>,
    hooks: Arc<dyn ConnectionHooks>,
}

impl Server {
    /// A server of plain HTTP/1.1.
    pub fn new(bound: Bound, limits: ServeLimits) -> Self {
        Self { bound, limits, tls: None, hooks: Arc::new(()) }
    }

    /// With TLS, and HTTP/2 for peers that want it.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// With somebody who is told about connections.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn ConnectionHooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Begins to serve; connections that already wait are the first.
    pub fn start<H: Handler>(self, handler: H) -> Running {
        let course = Arc::new(Course::default());
        let running = Running::new(self.bound.local, Arc::clone(&course));
        let acceptor = Acceptor {
            listener: self.bound.listener,
            slots: Arc::new(Semaphore::new(self.limits.max_connections)),
            rejections: Arc::new(Semaphore::new(MAX_REJECTIONS)),
            full: Episode::default(),
            failing: Episode::default(),
            shared: Arc::new(Shared {
                handler,
                tls: self.tls,
                limits: self.limits,
                hooks: self.hooks,
                course: Arc::clone(&course),
            }),
        };
        course.connections.spawn(acceptor.run());
        running
    }
}

struct Acceptor<H> {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    rejections: Arc<Semaphore>,
    full: Episode,
    failing: Episode,
    shared: Arc<Shared<H>>,
}

impl<H: Handler> Acceptor<H> {
    /// Accepts until the drain begins; then the socket is closed and the port refuses.
    async fn run(mut self) {
        let mut draining = Box::pin(self.shared.course.draining());
        loop {
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
            tracing::info!("connections are accepted again");
        }
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self.reject(tcp);
        };
        if self.full.ends() {
            tracing::info!("there is room for connections again");
        }
        let Some(peer) = self.meet(&tcp, addr) else { return };
        let slot = Slot::new(permit, Arc::clone(&self.shared.hooks));
        self.shared.course.connections.spawn(connection::serve(Arc::clone(&self.shared), tcp, peer, slot));
    }

    /// The peer's addresses; none if it is gone already.
    fn meet(&self, tcp: &TcpStream, addr: SocketAddr) -> Option<Peer> {
        // Answers leave in few large writes, so waiting to fill segments would only delay their tails.
        tcp.set_nodelay(true).ok()?;
        let local = tcp.local_addr().ok()?;
        Some(Peer { addr: canonical(addr), local: canonical(local), tls: self.shared.tls.is_some() })
    }

    fn reject(&mut self, tcp: TcpStream) {
        self.shared.hooks.rejected();
        if self.full.begins() {
            let max_connections = self.shared.limits.max_connections;
            tracing::warn!(max_connections, "all connections are taken; further ones are turned away");
        }
        // Behind TLS the reply would cost the very handshake that there is no room for.
        if self.shared.tls.is_none()
            && let Ok(permit) = Arc::clone(&self.rejections).try_acquire_owned()
        {
            self.shared.course.aside.spawn(async move {
                // Who is too slow for the reply goes without.
                let _ = tokio::time::timeout(REJECTION_TIMEOUT, turn_away(tcp)).await;
                drop(permit);
            });
        }
    }

    async fn back_off(&mut self, error: &io::Error) {
        // The peer gave up while it waited in the queue; nothing is wrong on this side.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.failing.begins() {
            tracing::error!(%error, "connections cannot be accepted; trying on");
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

/// Says 503 and hears the peer out for a moment: a close with unread bytes would destroy the reply on its way.
async fn turn_away(mut tcp: TcpStream) {
    let replied = tcp.write_all(&reply::server_full()).await.is_ok() && tcp.shutdown().await.is_ok();
    let mut scrap = [0_u8; 4096];
    while replied && matches!(tcp.read(&mut scrap).await, Ok(1..)) {}
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A state that is logged when it begins and when it ends, not each time it is met.
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
    fn an_episode_is_told_once_at_each_end() {
        let mut episode = Episode::default();
        let told = [episode.ends(), episode.begins(), episode.begins(), episode.ends(), episode.ends()];
        assert_eq!(told, [false, true, false, true, false]);
    }

    #[test]
    fn a_mapped_address_is_shown_as_the_ipv4_address_it_is() {
        let mapped = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 80));
        assert_eq!(canonical(mapped), SocketAddr::from(([127, 0, 0, 1], 80)));
    }
}

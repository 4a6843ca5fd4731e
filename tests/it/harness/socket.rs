//! A raw TCP connection, for bytes that no HTTP client sends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stub::DEADLINE;

/// One connection. Every wait on it has a deadline.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the port must accept"))
    }

    /// Returns the address of the test's end.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().expect("it is connected")
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the peer must read");
    }

    /// Sends bytes and ignores errors, because the peer may be gone.
    pub(crate) async fn offer(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.ok();
    }

    /// Shuts down the sending half.
    pub(crate) async fn finish(&mut self) {
        self.0.shutdown().await.expect("the peer must still be there");
    }

    /// Sends a space after each `pause` until the peer answers and closes, and returns the answer.
    pub(crate) async fn trickle(&mut self, pause: Duration) -> String {
        let mut seen = Vec::new();
        loop {
            match timeout(pause, self.0.read_buf(&mut seen)).await {
                Err(_) => self.0.write_all(b" ").await.ok(),
                Ok(Ok(bytes)) if bytes > 0 => None,
                Ok(_) => return String::from_utf8_lossy(&seen).into_owned(),
            };
        }
    }

    /// Reads up to and including a text.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = timeout(DEADLINE, self.0.read_u8()).await;
            match byte {
                Ok(Ok(byte)) => seen.push(byte),
                other => panic!("{other:?} before {end:?}: {:?}", String::from_utf8_lossy(&seen)),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads until the peer closes.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut seen = Vec::new();
        let read = timeout(DEADLINE, self.0.read_to_end(&mut seen)).await;
        read.unwrap_or_else(|_| panic!("not closed after {:?}", String::from_utf8_lossy(&seen))).ok();
        String::from_utf8_lossy(&seen).into_owned()
    }
}

/// Sends a request that ends its connection and returns the whole answer.
pub(crate) async fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut socket = Socket::connect(addr).await;
    socket.send(request).await;
    socket.read_to_end().await
}

//! A TCP proxy that can delay answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Forwards all bytes until the test's runtime ends.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn start(behind: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port must bind");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                if let Ok(inside) = TcpStream::connect(("127.0.0.1", behind)).await {
                    tokio::spawn(relay(outside, inside, Arc::clone(&delay)));
                }
            }
        });
        Self { addr, delay_ms }
    }

    /// Sets the delay of all answers from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).expect("a test's time is short"), Ordering::Relaxed);
    }
}

async fn relay(mut outside: TcpStream, mut inside: TcpStream, delay_ms: Arc<AtomicU64>) {
    let (mut questions, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = outside.read(&mut questions) => match read {
                Ok(bytes) if bytes > 0 && inside.write_all(&questions[..bytes]).await.is_ok() => {}
                _ => return,
            },
            read = inside.read(&mut answers) => match read {
                Ok(bytes) if bytes > 0 => {
                    tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
                    if outside.write_all(&answers[..bytes]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

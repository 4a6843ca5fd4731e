//! A Redis server for the benchmark only, killed when dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Outcome;
use crate::bench::Bench;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// Log text that Redis writes once it listens.
const READY: &str = "Ready to accept connections";

/// A running server without persistence.
pub(crate) struct Redis {
    child: Child,
    /// Port on the loopback address.
    pub(crate) port: u16,
}

impl Redis {
    /// Starts a Redis server.
    pub(crate) fn start(bench: &Bench) -> Outcome<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let port_text = port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(&bench.out);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| {
            format!("redis-server cannot be started ({error}): install it (Debian: apt-get install redis-server)")
        })?;
        let output = child.stdout.take().ok_or("a piped stdout must be there")?;
        // The guard exists before the wait, so a server that never becomes ready is killed too.
        let redis = Self { child, port };
        let (found, ready) = mpsc::channel();
        std::thread::spawn(move || {
            // The thread reads to the end of the stream: a server blocks on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains(READY) {
                    // The receiver is dropped after the first message.
                    let _ = found.send(());
                }
            }
        });
        ready.recv_timeout(READY_WITHIN).map_err(|_| "redis-server does not listen")?;
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! A Redis of the bench's own, killed when dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Outcome;
use crate::bench::Bench;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// What it says once it listens.
const READY: &str = "Ready to accept connections";

/// A running server without persistence.
pub(crate) struct Redis {
    child: Child,
    /// Where it listens, on the loopback.
    pub(crate) port: u16,
}

impl Redis {
    /// Starts one.
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
        // The guard comes first, so that a server that never gets ready is killed too.
        let redis = Self { child, port };
        let (found, ready) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to its end: a server blocks on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains(READY) {
                    // Nobody listens any more after the first one.
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

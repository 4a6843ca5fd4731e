//! A Redis of the bench's own, killed when dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::bench::Bench;

const READY_WITHIN: Duration = Duration::from_secs(10);

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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| {
            format!("redis-server cannot be started ({error}): install it (Debian: apt-get install redis-server)")
        })?;
        let redis = Self { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > READY_WITHIN {
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

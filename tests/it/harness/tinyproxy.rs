//! A real forward proxy as a child process, with its own port and folder. It is killed on drop.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::redis::free_port;
use super::stub::DEADLINE;
use super::tls::Folder;

const MISSING: &str = "tinyproxy is missing: run scripts/setup-tests (Debian: tinyproxy-bin)";

/// A running proxy.
pub(crate) struct Tinyproxy {
    child: Child,
    port: u16,
    folder: Folder,
}

impl Tinyproxy {
    /// Starts a proxy with additional lines of its configuration, such as a login.
    pub(crate) fn start(lines: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = Folder::new(&format!("tinyproxy-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let port = free_port();
        let log = folder.path("log").display().to_string();
        let own =
            format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile \"{log}\"\nLogLevel Info\nMaxClients 100\n");
        let file = folder.write("tinyproxy.conf", own + &lines.join("\n") + "\n");
        let mut command = Command::new("tinyproxy");
        // Debian keeps servers in a folder that is not in the path of every user.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.args(["-d", "-c", &file]).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        let proxy = Self { child, port, folder };
        let begun = Instant::now();
        while TcpStream::connect(proxy.addr()).is_err() {
            assert!(begun.elapsed() < DEADLINE, "the proxy must accept; its log:\n{}", proxy.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        proxy
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns its URL, with `USER:PASSWORD@` before the host.
    pub(crate) fn url(&self, login: &str) -> String {
        format!("http://{login}{}", self.addr())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path("log")).unwrap_or_default()
    }

    /// Returns the number of requests whose first line contains a text.
    pub(crate) fn requests(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains("Request (file descriptor") && line.contains(part)).count()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

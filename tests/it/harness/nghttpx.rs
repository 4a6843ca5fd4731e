//! nghttpx, a real server with HTTP/2, in front of a plain server. It is killed on drop.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::redis::free_port;
use super::stub::DEADLINE;
use super::tls::{Folder, Identity};

const MISSING: &str = "nghttpx is missing: run scripts/setup-tests (Debian: nghttp2-proxy)";

/// A running server.
pub(crate) struct Nghttpx {
    child: Child,
    port: u16,
    folder: Folder,
}

impl Nghttpx {
    /// Starts a server with additional options.
    pub(crate) fn start(identity: &Identity, behind: SocketAddr, options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = Folder::new(&format!("nghttpx-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let port = free_port();
        let (key, cert) = (folder.write("key.pem", &identity.key_pem), folder.write("cert.pem", &identity.cert_pem));
        let log = folder.path("log").display().to_string();
        let mut command = Command::new("nghttpx");
        // Debian keeps servers in a folder that is not in the path of every user.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.env("PATH", path).arg(format!("--frontend=127.0.0.1,{port}"));
        command.arg(format!("--backend=127.0.0.1,{}", behind.port())).args(["--conf=/dev/null", "--workers=1"]);
        command.arg(format!("--errorlog-file={log}")).args(["--no-ocsp", "--single-process"]).args(options);
        command.args([&key, &cert]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        let server = Self { child, port, folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < DEADLINE, "the server must accept; its log:\n{}", server.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        server
    }

    /// Returns its address as a base URL with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("https://localhost:{}/v1", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path("log")).unwrap_or_default()
    }
}

impl Drop for Nghttpx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

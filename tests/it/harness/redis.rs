//! A real Redis as a child process, with its own port and folder and without persistence. It is killed on drop.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::stub::DEADLINE;
use super::tls::Folder;

const MISSING: &str =
    "redis-server or redis-cli is missing: run scripts/setup-tests (Debian: redis-server, redis-tools)";

/// A server that can be killed and started again on its port.
pub(crate) struct Redis {
    child: Option<Child>,
    port: u16,
    folder: Folder,
    arguments: Vec<String>,
    cli_arguments: Vec<String>,
}

impl Redis {
    /// Starts a server.
    pub(crate) fn start() -> Self {
        let mut redis = Self::absent();
        redis.go_on();
        redis
    }

    /// Returns a server that has a port and does not run yet.
    pub(crate) fn absent() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = Folder::new(&format!("redis-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let port = free_port();
        let arguments = vec!["--port".to_owned(), port.to_string()];
        Self { child: None, port, folder, arguments, cli_arguments: vec!["-p".to_owned(), port.to_string()] }
    }

    /// Adds arguments for the server, which take effect at its next start.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Replaces plain text on its port by TLS with these files.
    pub(crate) fn with_tls(mut self, cert_file: &str, key_file: &str, ca_file: &str) -> Self {
        let port = self.port.to_string();
        self.arguments = vec!["--port".to_owned(), "0".to_owned()];
        let files = ["--tls-port", &port, "--tls-cert-file", cert_file, "--tls-key-file", key_file];
        let cli = ["--tls", "--sni", "localhost", "--cacert", ca_file, "--cert", cert_file, "--key", key_file];
        self.cli_arguments.extend(cli.map(str::to_owned));
        self.with(&files).with(&["--tls-ca-cert-file", ca_file])
    }

    /// Adds arguments for `redis-cli`, such as a login.
    pub(crate) fn with_cli_arguments(mut self, arguments: &[&str]) -> Self {
        self.cli_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the server on its port, without its former data.
    pub(crate) fn go_on(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(&self.arguments).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.folder.path("")).args(["--logfile", "log"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{MISSING}: {error}")));
        let begun = Instant::now();
        while self.try_cli(&["ping"]) != "PONG" {
            assert!(begun.elapsed() < DEADLINE, "the server must answer; its log:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path("log")).unwrap_or_default()
    }

    /// Kills the server, which loses all its data.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the server process with a signal. Its connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it must run").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill must run");
        assert!(sent.success());
    }

    /// Returns the answer to a command. Panics if it is an error.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = self.run_cli(arguments);
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        assert!(output.status.success(), "{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn try_cli(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.run_cli(arguments).stdout).trim_end().to_owned()
    }

    fn run_cli(&self, arguments: &[&str]) -> Output {
        self.cli_command(arguments).output().unwrap_or_else(|error| panic!("{MISSING}: {error}"))
    }

    /// Starts a command without waiting for its answer.
    pub(crate) fn begin_cli(&self, arguments: &[&str]) -> Child {
        let mut command = self.cli_command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.unwrap_or_else(|error| panic!("{MISSING}: {error}"))
    }

    fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(&self.cli_arguments).args(["--no-auth-warning", "-e"]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Returns the names of all records.
    pub(crate) fn records(&self) -> Vec<String> {
        let names = self.cli(&["--scan", "--pattern", "*:{*}"]);
        let mut names: Vec<String> =
            names.lines().filter(|name| !name.contains(":lease:")).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Returns the number of calls of a command, named in lower case.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["info", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap_or_default().parse().expect("a count is a number"))
    }

    /// Returns the number of bytes that it has sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let stats = self.cli(&["info", "stats"]);
        let sent = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        sent.expect("Redis counts them").trim().parse().expect("a count is a number")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a free port below the range that the system assigns to outgoing connections. Otherwise another connection
/// could take the port before the server is started again.
pub(crate) fn free_port() -> u16 {
    let seed = RandomState::new().hash_one(std::process::id());
    let mut ports = (0..).map(|step: u64| 10_000 + u16::try_from(seed.wrapping_add(step * 7) % 20_000).unwrap_or(0));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("the range has no end")
}

/// Servers that form one cluster and share all slots.
pub(crate) struct Cluster(pub(crate) Vec<Redis>);

impl Cluster {
    /// Starts three nodes without replicas. The cluster serves requests only while all of them run.
    pub(crate) fn start() -> Self {
        let node = || {
            let bus = free_port().to_string();
            let mut node = Redis::absent().with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
            node = node.with(&["--cluster-node-timeout", "1000"]);
            node.go_on();
            (node, bus)
        };
        let nodes: Vec<(Redis, String)> = (0..3).map(|_| node()).collect();
        let first = &nodes[0].0;
        for ((node, bus), slots) in nodes.iter().zip([["0", "5461"], ["5462", "10922"], ["10923", "16383"]]) {
            node.cli(&["cluster", "addslotsrange", slots[0], slots[1]]);
            first.cli(&["cluster", "meet", "127.0.0.1", &node.port().to_string(), bus]);
        }
        let cluster = Self(nodes.into_iter().map(|(node, _)| node).collect());
        let begun = Instant::now();
        while !cluster.0.iter().all(|node| node.try_cli(&["cluster", "info"]).contains("cluster_state:ok")) {
            assert!(begun.elapsed() < DEADLINE, "the nodes must find one another");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        cluster
    }

    /// Starts a killed node again. It is empty and keeps its name and slots, which are stored in its folder.
    pub(crate) fn revive(&mut self, place: usize) {
        self.0[place].go_on();
    }

    /// Returns the value of `redis.url`.
    pub(crate) fn url(&self) -> String {
        self.0.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }
}

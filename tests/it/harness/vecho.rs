//! The real binary as a child process, with a clean environment and its own ports. It is killed on drop.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::stub::Stub;
use super::wait::eventually;

/// Upper bound of a start or a drain on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running `vecho`.
pub(crate) struct Vecho {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    home: PathBuf,
}

/// The result of a `vecho` that has exited.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its whole output on standard error.
    pub(crate) log: String,
}

impl Vecho {
    /// Starts vecho in front of a stub, with its defaults.
    pub(crate) fn start(stub: &Stub) -> Self {
        Self::start_with(&stub.base_url(), &[])
    }

    /// Starts vecho in front of any upstream. It inherits none of the test's environment variables except `PATH`.
    pub(crate) fn start_with(upstream: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_args(upstream, environment, &[])
    }

    /// Like [`Vecho::start_with`], with further command line arguments.
    pub(crate) fn start_args(upstream: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let home = fresh_home();
        let mut command = Self::command(environment);
        if !environment.iter().any(|(name, _)| *name == "HOME") {
            command.env("HOME", &home);
        }
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--upstream", upstream]);
        command.args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary must start");
        let stderr = child.stderr.take().expect("standard error is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (found, ready) = mpsc::channel();
        let written = Arc::clone(&log);
        let reader = Some(std::thread::spawn(move || follow(stderr, &written, &found)));
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on, a drop ends the child, even if it never becomes ready.
        let mut vecho = Self { child, public: unknown, admin: unknown, log, reader, home };
        let named = ready.recv_timeout(DEADLINE);
        (vecho.public, vecho.admin) = named.unwrap_or_else(|_| panic!("no addresses; the log:\n{}", vecho.log()));
        vecho
    }

    /// Returns the command for the binary in a clean environment: `PATH`, an empty `HOME`, and the given variables.
    pub(crate) fn command(environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vecho"));
        command.env_clear().env("HOME", env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(environment.iter().copied());
        command
    }

    /// Returns the base URL for applications, with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.public)
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its output on standard error so far.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Returns a URL on the ops port.
    pub(crate) fn ops_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its log contains a text.
    pub(crate) async fn logged(&self, text: &str) {
        let found = async || self.log().contains(text);
        eventually(&format!("{text:?} in the log"), found).await;
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let asked = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill must run");
        assert!(asked.success(), "process {id} must still run");
    }

    /// Sends it a SIGTERM and waits until it has exited.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has exited.
    pub(crate) fn ended(mut self) -> Ended {
        let status = wait(&mut self.child).unwrap_or_else(|| panic!("it must drain; its log:\n{}", read(&self.log)));
        // The reader thread may not have read the last lines yet.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading the log does not panic");
        }
        Ended { status, log: self.log() }
    }
}

impl Drop for Vecho {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Creates a new home folder, so a test never finds the files of another one.
fn fresh_home() -> PathBuf {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    let name = format!("home-{}-{}", std::process::id(), elapsed.as_nanos());
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&home).expect("the target folder is writable");
    home
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    None
}

/// Collects the log and reports the addresses as soon as a line names both.
fn follow(stderr: ChildStderr, log: &Mutex<String>, found: &Sender<(SocketAddr, SocketAddr)>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let (Some(public), Some(admin)) = (address(&line, "public="), address(&line, "admin=")) {
            let _ = found.send((public, admin));
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

/// Returns the address behind a name, at any position in the line.
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(name)?;
    let end = rest.find(|letter: char| !(letter.is_ascii_hexdigit() || ".:[]".contains(letter)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

fn read(log: &Mutex<String>) -> String {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

//! Server processes: started with a clean environment, watched through `/proc`, killed when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Outcome;
use crate::bench::Bench;

/// A server that does not announce its ports within this time has failed.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// One tick of `/proc/PID/stat`; Linux shows 100 a second to every program.
const TICK_NS: u64 = 10_000_000;
/// The image's setting: glibc keeps more freed blocks per size, since requests that wait together also end together.
const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=32");

/// Cores of a server with one worker in a pinned run. The load generator and the upstream share the second one.
const ONE_CORE: &str = "0";
/// Cores of a server with two workers. One of them shares its core with the load generator.
const TWO_CORES: &str = "0,1";

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Address of the public port.
    pub(crate) public: SocketAddr,
}

impl Server {
    /// Starts the reference server that `words` describe.
    pub(crate) fn reference(bench: &Bench, words: &[&str]) -> Outcome<Self> {
        let mut command = command(bench, ONE_CORE, &std::env::current_exe()?);
        command.args(words);
        start(command, &bench.out.join(format!("{}.log", words[0])))
    }

    /// Starts a server that sends the content of `file`, with one or two workers.
    pub(crate) fn fixed(bench: &Bench, file: &Path, workers: usize) -> Outcome<Self> {
        let mut command = command(bench, cores(workers), &std::env::current_exe()?);
        command.arg("static").arg(file).arg(workers.to_string());
        start(command, &bench.out.join("static.log"))
    }

    /// Starts vecho in front of `upstream` with one or two workers and further arguments. It has no home directory,
    /// therefore no data folder and no disk tier: only the memory tier is measured, and no data of an earlier run.
    pub(crate) fn vecho(bench: &Bench, upstream: SocketAddr, workers: usize, further: &[&str]) -> Outcome<Self> {
        let program = std::env::var("VECHO_BENCH_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_vecho").to_owned());
        let mut command = command(bench, cores(workers), Path::new(&program));
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", &workers.to_string()]);
        command.args(["--log-level", "info", "--upstream", &format!("http://{upstream}/v1")]);
        command.args(further);
        start(command, &bench.out.join("vecho.log"))
    }

    /// Returns the processor time so far, user and system together, in nanoseconds.
    ///
    /// The scheduler's nanoseconds omit threads that have ended. The ticks include them, but only to 10 ms. The finer
    /// number is used unless the ticks show that it omits something.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        let fine = self.scheduled_ns()?;
        let coarse = self.ticks_ns()?;
        Ok(if coarse > fine + 5 * TICK_NS { coarse } else { fine })
    }

    fn scheduled_ns(&self) -> Outcome<u64> {
        let mut sum_ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum_ns += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum_ns)
    }

    fn ticks_ns(&self) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The process name may contain spaces and brackets, so fields are counted from its closing bracket.
        let fields = text.rsplit_once(") ").ok_or("/proc/PID/stat has no name")?.1;
        // User and system time are the 12th and 13th field after the name.
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks * TICK_NS)
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Returns the largest resident memory so far, in bytes.
    pub(crate) fn peak_bytes(&self) -> Outcome<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        let line = found.ok_or_else(|| format!("/proc/PID/status has no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors do not matter: the scenario is over, and the client has reported a server that ended early.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const fn cores(workers: usize) -> &'static str {
    if workers == 1 { ONE_CORE } else { TWO_CORES }
}

fn command(bench: &Bench, cores: &str, program: &Path) -> Command {
    let mut command = if bench.pinned {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", cores]).arg(program);
        pinned
    } else {
        Command::new(program)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (name, value) = ALLOCATOR;
    command
        .env_clear()
        .env("PATH", path)
        .env(name, value)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn start(mut command: Command, log: &Path) -> Outcome<Server> {
    let mut child =
        command.spawn().map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
    let stderr = child.stderr.take().ok_or("a piped stderr must be there")?;
    let (found, ready) = mpsc::channel();
    let file = File::create(log)?;
    std::thread::spawn(move || follow(stderr, file, &found));
    // The guard exists before the wait, so a server that never becomes ready is killed too.
    let mut server = Server { child, public: SocketAddr::from(([127, 0, 0, 1], 0)) };
    server.public = ready.recv_timeout(READY_WITHIN).map_err(|_| format!("not ready; see {}", log.display()))?;
    Ok(server)
}

/// Copies a server's log into `file` and sends each address that the log announces.
fn follow(stderr: ChildStderr, mut file: File, found: &mpsc::Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(address) = public_address(&line) {
            // The receiver is dropped after the first address.
            let _ = found.send(address);
        }
        // A failed log write must not stop the reads: the server would block on a full pipe.
        drop(writeln!(file, "{line}"));
    }
}

fn public_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("public=")?;
    let word = rest.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next()?;
    word.parse().ok()
}

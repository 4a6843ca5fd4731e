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

/// A server that takes longer than this to name its ports has failed.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// One tick of `/proc/PID/stat`; Linux shows 100 a second to every program.
const TICK_NS: u64 = 10_000_000;
/// What the image sets: more freed blocks of a size kept at hand, since requests that wait together end together.
const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=32");

/// The cores of a pinned run.
#[derive(Clone, Copy)]
pub(crate) enum Core {
    /// The server under test has this one for itself.
    Server = 0,
    /// The load generator and the upstream share the other.
    Load = 1,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where it serves.
    pub(crate) public: SocketAddr,
}

impl Server {
    /// Starts the reference server that `words` describe.
    pub(crate) fn reference(bench: &Bench, core: Core, words: &[&str]) -> Outcome<Self> {
        let mut command = command(bench, core, &std::env::current_exe()?);
        command.args(words);
        start(command, &bench.out.join(format!("{}.log", words[0])))
    }

    /// Starts vecho in front of `upstream`, with further arguments. It has no home, and so no folder and no disk tier:
    /// what is measured is the memory tier, and nothing of an earlier run.
    pub(crate) fn vecho(bench: &Bench, upstream: &Self, further: &[&str]) -> Outcome<Self> {
        let program = std::env::var("VECHO_BENCH_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_vecho").to_owned());
        let mut command = command(bench, Core::Server, Path::new(&program));
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(["--log-level", "info", "--upstream", &format!("http://{}/v1", upstream.public)]);
        command.args(further);
        start(command, &bench.out.join("vecho.log"))
    }

    /// Processor time so far, user and system together, in nanoseconds.
    ///
    /// The scheduler's nanoseconds lose threads that have ended; the ticks keep them, to 10 ms. So the finer number
    /// counts unless the coarser one shows that it lost something.
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
        // The process's name may hold anything, so fields are counted from the bracket that closes it.
        let fields = text.rsplit_once(") ").ok_or("/proc/PID/stat has no name")?.1;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks * TICK_NS)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc/PID/status has no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is owed to a server whose scenario is over; one that ended by itself has been reported by its client.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(bench: &Bench, core: Core, program: &Path) -> Command {
    let mut command = if bench.pinned {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", &(core as usize).to_string()]).arg(program);
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
    // The guard comes first, so that a server that never gets ready is killed too.
    let mut server = Server { child, public: SocketAddr::from(([127, 0, 0, 1], 0)) };
    server.public = ready.recv_timeout(READY_WITHIN).map_err(|_| format!("not ready; see {}", log.display()))?;
    Ok(server)
}

/// Copies a server's log into `file` and tells the address once it is named.
fn follow(stderr: ChildStderr, mut file: File, found: &mpsc::Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(address) = public_address(&line) {
            // Nobody listens any more after the first one.
            let _ = found.send(address);
        }
        // A log that cannot be written is no reason to stop reading: the server would block on a full pipe.
        drop(writeln!(file, "{line}"));
    }
}

fn public_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("public=")?;
    let word = rest.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next()?;
    word.parse().ok()
}

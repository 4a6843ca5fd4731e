//! One upstream, and all proxies in front of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::timeout;

use crate::Outcome;
use crate::bench::Bench;
use crate::client::Connection;
use crate::process::Processes;
use crate::proxies::{Place, Proxy, allocated_bytes};
use crate::roles::upstream::Upstream;
use crate::shape::Shape;

/// A proxy that has not answered within this time has failed.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// Time for one attempt, and pause before the next.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
const ATTEMPT_EVERY: Duration = Duration::from_millis(2);
/// The text of the first request.
pub(crate) const FIRST: u64 = u64::MAX;

/// Folder of tmpfs, and start of the names of our folders in it, before the id of the process.
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "vecho-compare-";

/// Cores of the proxies of one stage.
#[derive(Clone, Copy)]
pub(crate) enum Cores {
    /// The first core; the second is for load generator and upstream.
    One,
    /// Two cores, which load generator and upstream use as well.
    Two,
}

/// Calls and inputs that the upstream received since its last reset.
#[derive(Deserialize, Clone, Copy)]
pub(crate) struct Counts {
    /// Requests.
    pub(crate) calls: u64,
    /// Texts in them.
    pub(crate) inputs: u64,
}

/// A proxy that answers.
pub(crate) struct Running {
    /// Its kind.
    pub(crate) proxy: Proxy,
    /// Its processes.
    pub(crate) processes: Processes,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Time from the start of its processes to its first answer.
    pub(crate) started_within: Duration,
    /// Its properties that requests must have.
    shape: Shape,
    /// Its files, removed after its processes have ended.
    folder: Folder,
}

/// An upstream, and the proxies in front of it.
pub(crate) struct Stage {
    /// All proxies that could be started.
    pub(crate) proxies: Vec<Running>,
    /// The others, with the reason.
    pub(crate) failures: Vec<(Proxy, String)>,
    upstream: Upstream,
}

impl Stage {
    /// Starts the upstream, and then one proxy after the other.
    pub(crate) async fn start(bench: &Bench, delay_ms: u64, cores: Cores) -> Outcome<Self> {
        let upstream = Upstream::start(delay_ms).await?;
        let mut stage = Self { proxies: Vec::new(), failures: Vec::new(), upstream };
        for proxy in Proxy::ALL {
            match Running::start(bench, proxy, cores, stage.upstream.public).await {
                Ok(running) => stage.proxies.push(running),
                Err(error) => stage.failures.push((proxy, error.to_string())),
            }
        }
        Ok(stage)
    }

    /// Returns what the upstream received since the last reset.
    pub(crate) async fn counts(&self) -> Outcome<Counts> {
        self.control("GET /count").await
    }

    /// Sets the upstream's counts to zero.
    pub(crate) async fn reset(&self) -> Outcome<()> {
        self.control("POST /reset").await.map(drop)
    }

    async fn control(&self, what: &str) -> Outcome<Counts> {
        let mut connection = Connection::open(self.upstream.public).await?;
        let request = format!("{what} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n");
        Ok(serde_json::from_slice(connection.exchange(request.as_bytes()).await?)?)
    }
}

impl Running {
    /// Starts a proxy and waits for its first correct answer.
    pub(crate) async fn start(bench: &Bench, proxy: Proxy, cores: Cores, upstream: SocketAddr) -> Outcome<Self> {
        let folder = Folder::new(&bench.out, proxy.name())?;
        let [port, second_port] = free_ports()?;
        let (workers, core_list) = match cores {
            Cores::One => (1, "0"),
            Cores::Two => (2, "0,1"),
        };
        let installed = installed();
        let place = Place { folder: folder.0.clone(), installed, upstream, port, second_port, workers };
        let commands = proxy.commands(&place)?;
        let log = bench.out.join(format!("compare-{}.log", proxy.name()));
        let output = File::create(&log)?;
        let begun = Instant::now();
        let mut running = Self {
            proxy,
            processes: Processes::default(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            started_within: Duration::ZERO,
            shape: Shape { headers: proxy.headers(upstream), ..Shape::default() },
            folder,
        };
        for mut command in commands {
            command.env("PATH", search_path());
            running.processes.start(bench.pinned.then_some(core_list), &command, output.try_clone()?)?;
        }
        running.wait_for_answer(begun).await.map_err(|error| format!("{error}; see {}", log.display()))?;
        running.started_within = begun.elapsed();
        Ok(running)
    }

    async fn wait_for_answer(&mut self, begun: Instant) -> Outcome<()> {
        loop {
            let attempt = timeout(ATTEMPT_WITHIN, self.ask(&[FIRST])).await;
            let error = match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            self.processes.check_alive()?;
            if begun.elapsed() > READY_WITHIN {
                return Err(format!("not ready: {error}").into());
            }
            tokio::time::sleep(ATTEMPT_EVERY).await;
        }
    }

    /// Returns the shape of its requests.
    pub(crate) fn shape(&self) -> Shape {
        self.shape.clone()
    }

    /// Requests these texts once and checks the answer.
    pub(crate) async fn ask(&self, ids: &[u64]) -> Outcome<()> {
        let mut request = Vec::new();
        self.shape.write_request(ids, 0, &mut request);
        let mut connection = Connection::open(self.address).await?;
        self.shape.check(ids, connection.exchange(&request).await?)
    }

    /// Returns the memory of its processes and of the files of its cache, which are on tmpfs, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.processes.memory_bytes() + self.cache_bytes()
    }

    /// Returns the largest memory of its processes so far and of the files of its cache, which only grow, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.processes.peak_bytes() + self.cache_bytes()
    }

    fn cache_bytes(&self) -> u64 {
        allocated_bytes(&self.folder.0.join("cache"))
    }
}

/// Removes the folders of runs that were killed; nginx's cache in them may take a gigabyte of memory.
pub(crate) fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(MEMORY) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            // A folder of another user stays.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Returns the folder that `scripts/setup-compare` fills.
pub(crate) fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/compare-env")
}

/// Returns the folders of programs. Debian's servers are in folders that are not in the path of every user.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Returns two free ports of the loopback address.
fn free_ports() -> Outcome<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    /// Creates a folder on tmpfs if the machine has one, otherwise in `other`.
    fn new(other: &Path, name: &str) -> Outcome<Self> {
        let memory = Path::new(MEMORY);
        let parent = if memory.is_dir() { memory } else { other };
        let folder = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Everything in it can be made again; a folder that cannot be removed only takes space.
        drop(fs::remove_dir_all(&self.0));
    }
}

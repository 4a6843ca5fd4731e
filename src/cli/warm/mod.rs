//! `vecho warm`: caches the vectors of texts in a file through the public port, like any application.

mod ask;
mod read;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use self::ask::{Stop, WarmClient, WarmCounts};
use self::read::{Batch, BatchBounds, Batches, Format, Next};
use super::credential::{self, Credential};
use super::health::reachable;
use super::http::{self, Port, read_whole};
use super::moving::{Failed, STANDARD};
use super::progress::{Progress, grouped, say};
use crate::app::{App, Surroundings};
use crate::config::Config;
use crate::process::clock::Clock;

/// Longest wait for a connection to the public port.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a lower tier to become available, and the interval between two checks.
const TIER_PATIENCE: Duration = Duration::from_secs(10);
const TIER_CHECK_EVERY: Duration = Duration::from_millis(50);
/// Number of faulty lines that are reported individually.
const MAX_TOLD: u64 = 100;
/// Number of batches read in advance.
const AHEAD_BATCHES: usize = 2;

/// Command line options of `vecho warm`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct WarmOptions {
    /// Texts: on each line a JSON string, or an object with `text` or `input`, which may be a token array; or plain
    /// texts, one a line, where the first line is no JSON; - for standard input
    file: PathBuf,
    /// Model that is asked
    #[arg(long)]
    model: String,
    /// Length of the vectors, where another than the model's usual one is wanted
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    dimensions: Option<u32>,
    /// Namespace of the cache, as in x-vecho-namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Inputs in one request
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=2_048))]
    batch: u32,
    /// Requests under way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    concurrency: u32,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// Fetches the vectors that are not cached yet. Starts a temporary vecho if none is running.
pub(super) async fn warm(config: Config, credential: &Credential, options: &WarmOptions) -> Result<(), Failed> {
    let file = open(&options.file)?;
    if is_running(&config).await? {
        if config.tls.is_some() {
            return Err("the public port speaks TLS, which this command does not".to_owned());
        }
        let port = Port::new(config.listen, None);
        return run(port, &config, credential, options, file).await?.ended;
    }
    let (own, config) = start(credential::of_nobody(config)).await?;
    let whose = credential::whose(&config, credential);
    let warmed = run(Port::new(own.public_addr(), None), &config, credential, options, file).await;
    let kept = stop(own, &config).await;
    let Warmed { answered, ended } = warmed?;
    if answered > 0 && !options.quiet {
        say(&format!("what is kept is {whose}"));
    }
    ended.and(kept)
}

/// Returns true if the public port accepts connections.
async fn is_running(config: &Config) -> Result<bool, Failed> {
    match timeout(CONNECT_PATIENCE, TcpStream::connect(reachable(config.listen))).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Port 0 is never in use.
        Ok(Err(_)) if config.listen.port() == 0 => Ok(false),
        Ok(Err(error)) => Err(format!("no answer from {}: {error}", config.listen)),
        Err(_) => Err(format!("no answer from {}", config.listen)),
    }
}

/// Starts a vecho with this configuration on random loopback ports.
async fn start(config: Config) -> Result<(App, Config), Failed> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config { listen: any, admin_listen: any, tls: None, ..config };
    let own = App::start(config.clone(), Surroundings::detached(Clock::System)).await;
    let own = own.map_err(|error| error.to_string())?;
    if has_lasting_tier(&own, &config).await {
        return Ok((own, config));
    }
    own.stop().await;
    Err("no vecho runs at `listen`, and without one there is no tier below memory that would keep anything".to_owned())
}

/// Waits until a lower tier is available: a start does not wait for a large folder or for Redis. Returns false on
/// timeout.
async fn has_lasting_tier(own: &App, config: &Config) -> bool {
    let is_up = async {
        loop {
            let tiers = tiers_of(own, config).await.unwrap_or_default();
            if ["disk", "redis"].iter().any(|tier| tiers[tier]["up"] == true) {
                break;
            }
            sleep(TIER_CHECK_EVERY).await;
        }
    };
    let is_wanted = config.disk.enabled || !config.redis.nodes.is_empty();
    is_wanted && timeout(TIER_PATIENCE, is_up).await.is_ok()
}

async fn stop(own: App, config: &Config) -> Result<(), Failed> {
    let tiers = tiers_of(&own, config).await.unwrap_or_default();
    let dropped: u64 = ["disk", "redis"].iter().filter_map(|tier| tiers[tier]["dropped"].as_u64()).sum();
    let lost = dropped + own.stop().await.unwritten as u64;
    if lost == 0 { Ok(()) } else { Err(format!("{} vectors were fetched and could not be kept", grouped(lost))) }
}

async fn tiers_of(own: &App, config: &Config) -> Option<Value> {
    let port = Port::new(own.admin_addr(), config.admin.token.as_ref());
    let stats = port.request(::http::Method::GET, "/api/performance/cache/stats", http::whole(""));
    let stats = read_whole(port.send(stats).await.ok()?.into_body()).await.ok()?;
    serde_json::from_slice::<Value>(&stats).ok().map(|mut stats| stats["tiers"].take())
}

/// An input file with its length, if known.
struct Opened {
    lines: Box<dyn BufRead + Send>,
    bytes: Option<u64>,
    /// `None` if the file name does not determine the format.
    format: Option<Format>,
}

fn open(file: &Path) -> Result<Opened, Failed> {
    if file == Path::new(STANDARD) {
        return Ok(Opened { lines: Box::new(BufReader::new(io::stdin())), bytes: None, format: None });
    }
    let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let bytes = opened.metadata().ok().filter(fs::Metadata::is_file).map(|data| data.len());
    let is_json = |extension: &str| ["json", "jsonl", "ndjson"].iter().any(|json| extension.eq_ignore_ascii_case(json));
    let format = file.extension().and_then(OsStr::to_str).filter(|extension| is_json(extension)).map(|_| Format::Json);
    Ok(Opened { lines: Box::new(BufReader::new(opened)), bytes, format })
}

async fn run(
    port: Port,
    config: &Config,
    credential: &Credential,
    options: &WarmOptions,
    file: Opened,
) -> Result<Warmed, Failed> {
    let asker = WarmClient::new(port, credential.headers(config), options)?;
    let progress = Progress::new(options.quiet, "texts", file.bytes);
    let bounds = BatchBounds { inputs: options.batch as usize, bytes: asker.max_batch_bytes(config) };
    let done = RefCell::new(Done { progress: &progress, tally: WarmCounts::default(), failed: 0, stopped: None });
    let concurrency = options.concurrency as usize;
    let read = batches_of(Batches::new(file.lines, bounds, file.format), concurrency * AHEAD_BATCHES);
    // After a fatal error no further batch is sent; batches in flight still finish.
    let read = read.take_while(|_| std::future::ready(done.borrow().stopped.is_none()));
    let work = read.for_each_concurrent(concurrency, |next| async {
        match next {
            Next::Note(text) => progress.say(text),
            Next::Fault { number, size, cause } => done.borrow_mut().fault(number, size, cause),
            Next::Batch(batch) => {
                let asked = asker.ask(&batch).await;
                done.borrow_mut().batch(&batch, asked);
            }
            Next::Unreadable(error) => done.borrow_mut().stopped = Some(format!("cannot read: {error}")),
        }
    });
    progress.alongside(work).await;
    Ok(done.into_inner().report())
}

/// Result of a file.
struct Warmed {
    /// Inputs whose vectors were already cached or were fetched.
    answered: u64,
    /// Error if some inputs are missing.
    ended: Result<(), Failed>,
}

/// Reads batches on a blocking thread.
fn batches_of(mut batches: Batches<Box<dyn BufRead + Send>>, ahead: usize) -> impl futures_util::Stream<Item = Next> {
    let (ready, read) = mpsc::channel(ahead);
    drop(spawn_blocking(move || {
        while let Some(next) = batches.next_batch() {
            let is_last = matches!(next, Next::Unreadable(_));
            if ready.blocking_send(next).is_err() || is_last {
                break;
            }
        }
    }));
    stream::unfold(read, |mut read| async { Some((read.recv().await?, read)) })
}

/// Work done so far.
struct Done<'p> {
    progress: &'p Progress,
    tally: WarmCounts,
    failed: u64,
    /// Reason to send no further requests.
    stopped: Option<Failed>,
}

impl Done<'_> {
    fn fault(&mut self, number: u64, size: u64, cause: &str) {
        self.tell(number, cause);
        self.progress.advance(size, 1);
    }

    fn tell(&mut self, number: u64, cause: &str) {
        self.failed += 1;
        match self.failed {
            ..=MAX_TOLD => self.progress.say(&format!("line {number}: {cause}")),
            n if n == MAX_TOLD + 1 => self.progress.say("there are more lines at fault; they are only counted"),
            _ => {}
        }
    }

    fn batch(&mut self, batch: &Batch, asked: ask::BatchResult) {
        self.tally.add(&asked.tally);
        for (number, cause) in &asked.failed {
            self.tell(*number, cause);
        }
        if let Some(Stop(cause)) = asked.stopped {
            self.stopped.get_or_insert(cause);
        }
        self.progress.advance(batch.size, batch.inputs.len() as u64);
    }

    fn report(self) -> Warmed {
        let WarmCounts { cached, fetched, billed } = self.tally;
        let answered = cached + fetched;
        let [cached, fetched, failed, billed] = [cached, fetched, self.failed, billed].map(grouped);
        self.progress.end(&format!(
            "{cached} were cached already, {fetched} were fetched, {failed} failed; {billed} tokens were billed"
        ));
        let ended = match (self.stopped, self.failed) {
            (Some(cause), _) => Err(cause),
            (None, 0) => Ok(()),
            (None, 1) => Err("1 line failed".to_owned()),
            (None, _) => Err(format!("{failed} lines failed")),
        };
        Warmed { answered, ended }
    }
}

/// Inputs, shared between concurrent requests.
type Inputs = Arc<[read::Input]>;

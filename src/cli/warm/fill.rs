//! Reads the file, sends its batches and reports the result.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::options::WarmOptions;
use super::read::{BatchBounds, Batches, FileItem, LineFormat, WarmBatch};
use super::send::{self, Stop, WarmClient, WarmCounts};
use super::temporary::{start, stop};
use crate::cli::client::Client;
use crate::cli::credential::{self, Credential};
use crate::cli::moving::{CommandError, STANDARD};
use crate::cli::progress::{ProgressDisplay, grouped, say};
use crate::config::Config;

/// Number of faulty lines that are reported individually.
const MAX_TOLD: u64 = 100;
/// Number of batches read in advance.
const AHEAD_BATCHES: usize = 2;

/// Fetches the vectors that are not cached yet. Starts a temporary vecho if none is running.
pub(in crate::cli) async fn warm(
    config: Config,
    credential: &Credential,
    options: &WarmOptions,
) -> Result<(), CommandError> {
    let file = open(&options.file)?;
    let client = Client::of_public_port(&config);
    if client.is_reachable().await.map_err(|error| error.to_string())? {
        return run(client, &config, credential, options, file).await?.ended;
    }
    let (own, config) = start(credential::of_nobody(config)).await?;
    let whose = credential::whose(&config, credential);
    let warmed = run(Client::of_public_port(&config), &config, credential, options, file).await;
    // The temporary vecho must be stopped in any case, so an error of the run is returned later.
    let kept = stop(own, &config).await;
    let Warmed { answered, ended } = warmed?;
    if answered > 0 && !options.quiet {
        say(&format!("the fetched vectors are {whose}"));
    }
    ended.and(kept)
}

/// An input file with its length, if known.
struct InputFile {
    lines: Box<dyn BufRead + Send>,
    bytes: Option<u64>,
    /// `None` if the file name does not determine the format.
    format: Option<LineFormat>,
}

fn open(file: &Path) -> Result<InputFile, CommandError> {
    if file == Path::new(STANDARD) {
        return Ok(InputFile { lines: Box::new(BufReader::new(io::stdin())), bytes: None, format: None });
    }
    // A pipe has no length, so its progress has no total.
    let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let bytes = opened.metadata().ok().filter(fs::Metadata::is_file).map(|data| data.len());
    let is_json = |extension: &str| ["json", "jsonl", "ndjson"].iter().any(|json| extension.eq_ignore_ascii_case(json));
    let format =
        file.extension().and_then(OsStr::to_str).filter(|extension| is_json(extension)).map(|_| LineFormat::Json);
    Ok(InputFile { lines: Box::new(BufReader::new(opened)), bytes, format })
}

async fn run(
    client: Client,
    config: &Config,
    credential: &Credential,
    options: &WarmOptions,
    file: InputFile,
) -> Result<Warmed, CommandError> {
    let client = WarmClient::new(client, credential.headers(config), options)?;
    let progress = ProgressDisplay::new(options.quiet, "texts", file.bytes);
    let bounds = BatchBounds { inputs: options.batch as usize, bytes: client.max_batch_bytes(config) };
    // All requests run in one task, and no borrow lasts across an await.
    let done = RefCell::new(Done { progress: &progress, counts: WarmCounts::default(), failed: 0, stopped: None });
    let concurrency = options.concurrency as usize;
    let read = batches_of(Batches::new(file.lines, bounds, file.format), concurrency * AHEAD_BATCHES);
    // After a fatal error no further batch is sent; batches in flight still finish.
    let read = read.take_while(|_| std::future::ready(done.borrow().stopped.is_none()));
    let work = read.for_each_concurrent(concurrency, |next| async {
        match next {
            FileItem::Note(text) => progress.say(text),
            FileItem::Fault { number, size, cause } => done.borrow_mut().fault(number, size, cause),
            FileItem::Batch(batch) => {
                let result = client.send(&batch).await;
                done.borrow_mut().batch(&batch, result);
            }
            FileItem::Unreadable(error) => done.borrow_mut().stopped = Some(format!("cannot read: {error}")),
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
    ended: Result<(), CommandError>,
}

/// Reads batches on a blocking thread.
fn batches_of(
    mut batches: Batches<Box<dyn BufRead + Send>>,
    ahead: usize,
) -> impl futures_util::Stream<Item = FileItem> {
    let (ready, read) = mpsc::channel(ahead);
    drop(spawn_blocking(move || {
        while let Some(next) = batches.next_batch() {
            let is_last = matches!(next, FileItem::Unreadable(_));
            // The receiver is gone if the work was stopped early.
            if ready.blocking_send(next).is_err() || is_last {
                break;
            }
        }
    }));
    stream::unfold(read, |mut read| async { Some((read.recv().await?, read)) })
}

/// Work done so far.
struct Done<'p> {
    progress: &'p ProgressDisplay,
    counts: WarmCounts,
    failed: u64,
    /// Reason to send no further requests.
    stopped: Option<CommandError>,
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

    fn batch(&mut self, batch: &WarmBatch, result: send::BatchResult) {
        self.counts.add(&result.counts);
        for (number, cause) in &result.failed {
            self.tell(*number, cause);
        }
        if let Some(Stop(cause)) = result.stopped {
            // Several requests may fail at once. The first cause is reported.
            self.stopped.get_or_insert(cause);
        }
        self.progress.advance(batch.size, batch.inputs.len() as u64);
    }

    fn report(self) -> Warmed {
        let WarmCounts { cached, fetched, billed } = self.counts;
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

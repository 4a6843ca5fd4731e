//! Reads the files, sends its batches and reports the result.

use std::cell::RefCell;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::batch_api;
use super::options::WarmOptions;
use super::read::{BatchBounds, Batches, FileItem, WarmBatch};
use super::send::{self, Stop, WarmClient, WarmCounts};
use super::source::{Inputs, Place, PlaceNames};
use super::temporary::{start, stop};
use crate::cli::client::Client;
use crate::cli::credential::{self, Credential};
use crate::cli::moving::CommandError;
use crate::cli::progress::{ProgressDisplay, counted, grouped, say, verb, were};
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
    if options.batch_api.batch_api {
        return Box::pin(batch_api::run(config, credential, options)).await;
    }
    let inputs = Inputs::new(options)?;
    let client = Client::of_public_port(&config);
    if client.is_reachable().await.map_err(|error| error.to_string())? {
        return run(client, &config, credential, options, inputs).await?.ended;
    }
    let (own, config) = start(credential::of_nobody(config)).await?;
    let whose = credential::whose(&config, credential);
    let warmed = run(Client::of_public_port(&config), &config, credential, options, inputs).await;
    // The temporary vecho must be stopped in any case, so an error of the run is returned later.
    let kept = stop(own, &config).await;
    let Warmed { answered, ended } = warmed?;
    if answered > 0 && !options.quiet {
        say(&format!("the fetched vectors are {whose}"));
    }
    ended.and(kept)
}

async fn run(
    client: Client,
    config: &Config,
    credential: &Credential,
    options: &WarmOptions,
    inputs: Inputs,
) -> Result<Warmed, CommandError> {
    let client = WarmClient::new(client, credential.headers(config), options)?;
    let progress = ProgressDisplay::new(options.quiet, "texts", inputs.bytes());
    let bounds = BatchBounds { inputs: options.batch as usize, bytes: client.max_batch_bytes(config) };
    // All requests run in one task, and no borrow lasts across an await.
    let names = PlaceNames::new(options);
    let done =
        RefCell::new(Done { progress: &progress, names, counts: WarmCounts::default(), failed: 0, stopped: None });
    let concurrency = options.concurrency as usize;
    let read = batches_of(Batches::new(inputs, bounds), concurrency * AHEAD_BATCHES);
    // After a fatal error no further batch is sent; batches in flight still finish.
    let read = read.take_while(|_| std::future::ready(done.borrow().stopped.is_none()));
    let work = read.for_each_concurrent(concurrency, |next| async {
        match next {
            FileItem::Note(text) => progress.say(&text),
            FileItem::Fault { place, size, cause } => done.borrow_mut().fault(place, size, cause),
            FileItem::Batch(batch) => {
                let result = client.send(&batch).await;
                done.borrow_mut().batch(&batch, result);
            }
            FileItem::Unreadable(cause) => done.borrow_mut().stopped = Some(cause),
        }
    });
    progress.alongside(work).await;
    Ok(done.into_inner().report())
}

/// Result of the files.
struct Warmed {
    /// Inputs whose vectors were already cached or were fetched.
    answered: u64,
    /// Error if some inputs are missing.
    ended: Result<(), CommandError>,
}

/// Reads batches on a blocking thread.
fn batches_of(mut batches: Batches<Inputs>, ahead: usize) -> impl futures_util::Stream<Item = FileItem> {
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
    names: PlaceNames,
    counts: WarmCounts,
    failed: u64,
    /// Reason to send no further requests.
    stopped: Option<CommandError>,
}

impl Done<'_> {
    fn fault(&mut self, place: Place, size: u64, cause: &str) {
        self.tell(place, cause);
        self.progress.advance(size, 1);
    }

    fn tell(&mut self, place: Place, cause: &str) {
        self.failed += 1;
        match self.failed {
            ..=MAX_TOLD => self.progress.say(&format!("{}: {cause}", self.names.of(place))),
            n if n == MAX_TOLD + 1 => self.progress.say("there are more lines at fault; they are only counted"),
            _ => {}
        }
    }

    fn batch(&mut self, batch: &WarmBatch, result: send::BatchResult) {
        self.counts.add(&result.counts);
        for (place, cause) in &result.failed {
            self.tell(*place, cause);
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
        let (failed, tokens) = (grouped(self.failed), counted(billed, "token"));
        self.progress.end(&format!(
            "{} cached already, {} fetched, {failed} failed; {tokens} {} billed",
            were(cached),
            were(fetched),
            verb(billed)
        ));
        let ended = match (self.stopped, self.failed) {
            (Some(cause), _) => Err(cause),
            (None, 0) => Ok(()),
            (None, failed) => Err(format!("{} failed", counted(failed, "line"))),
        };
        Warmed { answered, ended }
    }
}

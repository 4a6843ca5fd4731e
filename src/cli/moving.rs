//! `vecho export` and `vecho import`: transfers the cache of a running or stopped vecho to and from a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::client::{Cause, Client, REQUEST_TIMEOUT, read_whole, whole};
use super::progress::{ProgressDisplay, counted, grouped};
use crate::admin::{EXPORT_PATH, import_path};
use crate::app::{OfflineCache, OfflineError};
use crate::cache::export::{Ending, ExportItem, ExportReader};
use crate::cache::transfer::{Imported, Pieces};
use crate::config::Config;
use crate::process::errors::cause_of;
use crate::wire::error_fields;

/// Name for standard input or output.
pub(super) const STANDARD: &str = "-";
/// Bytes per read from a file.
const CHUNK_BYTES: usize = 64 * 1024;
const AHEAD_CHUNKS: usize = 4;
const MIB: u64 = 1 << 20;

/// Error message for the user.
pub(super) type CommandError = String;

/// Opens the folder of a stopped vecho.
type OpenOffline = fn(&Config) -> Result<OfflineCache, OfflineError>;

/// The cache to transfer.
pub(super) enum VechoInstance {
    /// A running vecho, through its ops port.
    Running(Box<Client>),
    /// A stopped vecho, through its folder on disk.
    Stopped(OfflineCache),
}

impl VechoInstance {
    /// Contacts the ops port of this configuration. If nothing listens there, `open` opens the folder of the disk tier.
    pub(super) async fn find(config: &Config, open: OpenOffline) -> Result<Self, CommandError> {
        let client = Client::of_ops_port(config);
        match client.request_head(Method::HEAD, EXPORT_PATH, REQUEST_TIMEOUT).await {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(Self::Running(Box::new(client))),
            Ok(answer) if answer.status() == StatusCode::FORBIDDEN => {
                Err("the ops port refuses: set the admin.token that it requires, or ask from its own machine where it has none".to_owned())
            }
            Ok(answer) => {
                Err(format!("the server at admin_listen is not vecho, or cannot do this ({})", answer.status()))
            }
            // Only a refused connection shows that no vecho runs. After other errors one may hold the folder.
            Err(error) if matches!(error.cause, Cause::Refused) => open(config)
                .map(Self::Stopped)
                .map_err(|error| format!("no vecho runs at admin_listen ({}), and {error}", config.admin_listen)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the approximate number of records, if known.
    async fn records(&self) -> Option<u64> {
        match self {
            Self::Stopped(folder) => Some(folder.records()),
            Self::Running(client) => {
                let stats = client.stats().await;
                // The tiers overlap, so the larger number is the better estimate.
                let entries = |tier: &str| stats["tiers"][tier]["entries"].as_u64();
                entries("memory").max(entries("disk"))
            }
        }
    }

    async fn export(&self) -> Result<Pieces<'static>, CommandError> {
        let client = match self {
            Self::Stopped(folder) => return Ok(folder.export().await),
            Self::Running(client) => client,
        };
        let answer = client.send(client.request(Method::GET, EXPORT_PATH, whole(""))).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer.status(), &read_whole(answer.into_body()).await?));
        }
        let body = answer.into_body().map_err(Into::into);
        // Frames without data are trailers, and count as empty pieces.
        Ok(Box::pin(BodyStream::new(body).map_ok(|frame: Frame<Bytes>| frame.into_data().unwrap_or_default())))
    }

    /// Imports a file, or the vectors of a job that began at this time.
    pub(super) async fn import(
        self,
        file: Pieces<'static>,
        job_began_ms: Option<u64>,
    ) -> Result<Imported, CommandError> {
        let client = match self {
            Self::Running(client) => client,
            Self::Stopped(folder) => {
                let imported = folder.import(file, job_began_ms).await;
                // The folder is closed in any case, and its own fault is reported first.
                return folder.close().map_err(|error| format!("the folder cannot be closed: {error}")).and(imported);
            }
        };
        let body = StreamBody::new(file.map_ok(Frame::data)).boxed_unsync();
        let answer = client.send(client.request(Method::POST, &import_path(job_began_ms), body)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let (status, body) = (answer.status(), read_whole(answer.into_body()).await?);
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| "the ops port's answer cannot be read".to_owned())
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CommandError {
    let said = error_fields(body).message;
    if said.is_empty() { format!("the ops port refuses ({status})") } else { said }
}

/// Writes the cache to `file`, or to `out` if it is `-`. The file gets its final name once it is complete.
pub(super) async fn export(config: &Config, file: &Path, quiet: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let instance = VechoInstance::find(config, OfflineCache::open_existing).await?;
    let progress = ProgressDisplay::new(quiet, "records", instance.records().await);
    let pieces = instance.export().await?;
    let records = if file == Path::new(STANDARD) {
        progress.alongside(write_checked(pieces, out, &progress)).await?
    } else {
        progress.alongside(export_to(file, pieces, &progress)).await?
    };
    progress.end(&format!("exported {} to {}", counted(records, "record"), file.display()));
    Ok(())
}

async fn export_to(file: &Path, pieces: Pieces<'static>, progress: &ProgressDisplay) -> Result<u64, CommandError> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let draft = draft_of(file);
    let mut out = open_draft(&draft).map_err(failed)?;
    let written = match write_checked(pieces, &mut out, progress).await {
        // The file is synced before the rename, so a crash cannot leave an incomplete file under the final name.
        Ok(records) => out.sync_all().and_then(|()| fs::rename(&draft, file)).map_err(failed).map(|()| records),
        Err(failed) => Err(failed),
    };
    if written.is_err() {
        // A draft that remains does no harm, since the next export overwrites it.
        fs::remove_file(&draft).ok();
    }
    written
}

/// Opens the draft exclusively. A leftover draft is overwritten; a draft that another export is writing is left alone.
fn open_draft(draft: &Path) -> io::Result<File> {
    // Vectors reveal information about their texts, so only the owner may read the file.
    let out = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(draft)?;
    match out.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::Error::other("another export writes it")),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The previous draft may have been renamed or removed after this open. The check does not follow a symbolic link at
    // the path: it compares the link's own inode, so the link's target stays untouched.
    if fs::symlink_metadata(draft)?.ino() != out.metadata()?.ino() {
        return Err(io::Error::other("another export wrote it just now"));
    }
    // The mode above applies only to a new file, and a leftover draft may have another one.
    out.set_permissions(fs::Permissions::from_mode(0o600))?;
    // The draft is emptied only now, when it is certain that no other export writes it.
    out.set_len(0)?;
    Ok(out)
}

fn draft_of(file: &Path) -> PathBuf {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".part");
    draft.into()
}

/// Writes all pieces and also parses them, to verify that the file is complete.
async fn write_checked(
    mut pieces: Pieces<'static>,
    out: &mut dyn Write,
    progress: &ProgressDisplay,
) -> Result<u64, CommandError> {
    let mut reader = ExportReader::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| format!("the export broke off: {}", cause_of(&*error)))?;
        out.write_all(&piece).map_err(|error| format!("cannot write: {error}"))?;
        reader.feed(&piece);
        let before = reader.records();
        drain(&mut reader)?;
        let read = reader.records() - before;
        progress.advance(read, read);
    }
    reader.fed();
    drain(&mut reader)?;
    out.flush().map_err(|error| format!("cannot write: {error}"))?;
    match reader.ending() {
        Ending::Whole => Ok(reader.records()),
        _ => Err("the export broke off: its end did not come".to_owned()),
    }
}

fn drain(reader: &mut ExportReader) -> Result<(), CommandError> {
    while let Some(piece) = reader.next_item().map_err(|error| error.to_string())? {
        if piece == ExportItem::Damaged {
            return Err("the export came damaged".to_owned());
        }
    }
    Ok(())
}

/// Imports a cache from `file` or from standard input.
pub(super) async fn import(config: &Config, file: &Path, quiet: bool) -> Result<(), CommandError> {
    let instance = VechoInstance::find(config, OfflineCache::open).await?;
    let (source, bytes): (Box<dyn Read + Send>, Option<u64>) = if file == Path::new(STANDARD) {
        (Box::new(io::stdin()), None)
    } else {
        let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let bytes = opened.metadata().ok().filter(fs::Metadata::is_file).map(|data| data.len());
        (Box::new(opened), bytes)
    };
    let progress = Arc::new(ProgressDisplay::new(quiet, "MiB", bytes));
    let imported = progress.alongside(instance.import(pieces_of(source, Arc::clone(&progress)), None)).await?;
    report(&imported, &progress)
}

/// Prints the result of an import.
pub(super) fn report(imported: &Imported, progress: &ProgressDisplay) -> Result<(), CommandError> {
    let Imported { imported, known, expired, purged, lossy, damaged, unwritten, whole } = *imported;
    let skipped = known + expired + purged + lossy;
    let imported = counted(imported, "record");
    let [skipped, known, expired, purged, damaged] = [skipped, known, expired, purged, damaged].map(grouped);
    progress.end(&format!(
        "imported {imported}, skipped {skipped} ({known} already there, {expired} expired, {purged} purged \
         meanwhile), {damaged} damaged"
    ));
    if lossy > 0 {
        let lossy = grouped(lossy);
        progress.say(&format!("also skipped: {lossy} with less precision than cache.codec allows"));
    }
    match (whole, unwritten) {
        (false, _) => Err("the file is truncated or damaged; only its intact records were imported".to_owned()),
        (true, 0) => Ok(()),
        (true, _) => Err(format!("a tier below memory is down or slow, and left out {}", counted(unwritten, "record"))),
    }
}

/// Reads the bytes of a file on a blocking thread. A read error ends the stream like a truncated file.
fn pieces_of(mut source: Box<dyn Read + Send>, progress: Arc<ProgressDisplay>) -> Pieces<'static> {
    let (chunks, read) = mpsc::channel(AHEAD_CHUNKS);
    drop(spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = chunk.is_err();
            // The receiver is gone if the import ended early.
            if chunks.blocking_send(chunk).is_err() || is_last {
                break;
            }
        }
    }));
    Box::pin(stream::unfold((read, progress, 0), |(mut read, progress, seen)| async move {
        let chunk: io::Result<Bytes> = read.recv().await?;
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        progress.advance(length, (seen + length) / MIB - seen / MIB);
        Some((chunk.map_err(Into::into), (read, progress, seen + length)))
    }))
}

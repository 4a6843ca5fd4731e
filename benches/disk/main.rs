//! Cost of the disk tier's store at one gigabyte: `cargo bench --profile dist --bench disk`; with `-- --quick`, at a
//! tenth of that.
//!
//! The times are from one run on one machine; nothing is compared or asserted. "warm" means that the files are in the
//! page cache, "cold" that they were dropped from it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is the product of this program")]

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use vecho::cache::AtRest;
use vecho::cache::disk::DiskStore;
use vecho::key::{Key, KeyBuilder, Tag};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Size of a stored vector of 1536 components, approximately.
const VALUE_BYTES: usize = 3_200;
const MIB: u64 = 1 << 20;
/// Number of records that the tier writes in one batch.
const BATCH: u32 = 320;
const LOOKUPS: u32 = 20_000;
const KEYS: u32 = 256;

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-bench-{}", std::process::id()));
    let done = run(&path, if quick { 32_000 } else { 320_000 });
    if let Err(error) = std::fs::remove_dir_all(&path) {
        eprintln!("{} is left behind: {error}", path.display());
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, entries: u32) -> Outcome<()> {
    println!("| what | figure |\n|---|---|");
    fill(path, entries)?;
    let resident = resident_bytes()?;
    let store = timed("open, closed well, warm", || open(path))?;
    let taken = resident_bytes()?.saturating_sub(resident);
    row("memory for the index", &format!("{:.1} MB, {} bytes an entry", megabytes(taken), taken / u64::from(entries)));
    store.close()?;
    drop(store);
    drop_from_cache(path)?;
    let store = timed("open, closed well, cold", || open(path))?;
    // The last segment then continues to grow and has no footer, as after a crash.
    store.put(key(0), &AtRest { bytes: Bytes::from(value(0)), until_ms: u64::MAX })?;
    drop(store);
    let store = timed("open, killed, warm", || open(path))?;
    drop(store);
    drop_from_cache(path)?;
    let store = Arc::new(timed("open, killed, cold", || open(path))?);
    row("entries found", &store.stats().entries.to_string());
    read(&store, entries)?;
    let begun = Instant::now();
    let mut bytes = 0;
    store.for_each(|_, _, value| -> io::Result<()> {
        bytes += value.len() as u64;
        Ok(())
    })?;
    row("handing out all of it", &format!("{:.0} MB/s", megabytes(bytes) / begun.elapsed().as_secs_f64()));
    Ok(())
}

fn fill(path: &Path, entries: u32) -> Outcome<()> {
    let store = open(path)?;
    let (begun, mut worst) = (Instant::now(), Duration::ZERO);
    for first in (0..entries).step_by(BATCH as usize) {
        let batch: Vec<(Key, AtRest)> = (first..entries.min(first + BATCH))
            .map(|n| (key(n), AtRest { bytes: Bytes::from(value(n)), until_ms: u64::MAX }))
            .collect();
        let batch_begun = Instant::now();
        store.append(batch.iter().map(|(key, entry)| (key, entry)))?;
        worst = worst.max(batch_begun.elapsed());
    }
    let rate = megabytes(store.stats().bytes) / begun.elapsed().as_secs_f64();
    row("entries written", &format!("{entries}, {:.0} MB", megabytes(store.stats().bytes)));
    row("writing", &format!("{rate:.0} MB/s, the slowest batch {} ms", worst.as_millis()));
    timed("close", || Ok(store.close()?))
}

/// Reads keys spread over the whole store: one and many at a time, on this thread and on others.
fn read(store: &Arc<DiskStore>, entries: u32) -> Outcome<()> {
    let spread = |n: u32| key(n.wrapping_mul(2_654_435_761) % entries);
    drop_from_cache(store.path())?;
    let few = LOOKUPS / 10;
    per_lookup("one key, cold", few, |n| Ok(store.get(&spread(n), 0)?.is_some()))?;
    per_lookup("one key, once read", few, |n| Ok(store.get(&spread(n), 0)?.is_some()))?;
    for n in 0..entries {
        store.get(&key(n), 0)?;
    }
    per_lookup("one key, warm", LOOKUPS, |n| Ok(store.get(&spread(n), 0)?.is_some()))?;
    per_lookup("one key that is not there", LOOKUPS, |n| Ok(!store.holds(&key(entries + n))))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let pool = Pool::start(store, 2);
    for count in [1, KEYS] {
        let keys = |n: u32| (0..count).map(|m| spread(n.wrapping_mul(count) + m)).collect::<Vec<_>>();
        let rounds = LOOKUPS / count;
        per_lookup(&format!("{count} keys, on the spot"), rounds, |n| Ok(read_all(store, &keys(n))?))?;
        runtime.block_on(async {
            let begun = Instant::now();
            for n in 0..rounds {
                let (store, keys) = (Arc::clone(store), keys(n));
                assert_found(tokio::task::spawn_blocking(move || read_all(&store, &keys)).await??);
            }
            shown(&format!("{count} keys, spawn_blocking"), begun.elapsed(), rounds);
            let begun = Instant::now();
            for n in 0..rounds {
                assert_found(pool.read(keys(n)).await??);
            }
            shown(&format!("{count} keys, threads of its own"), begun.elapsed(), rounds);
            Outcome::Ok(())
        })?;
    }
    Ok(())
}

fn read_all(store: &DiskStore, keys: &[Key]) -> io::Result<bool> {
    let found: Vec<Option<AtRest>> = keys.iter().map(|key| store.get(key, 0)).collect::<Result<_, _>>()?;
    Ok(found.iter().all(Option::is_some))
}

fn assert_found(found: bool) {
    assert!(found, "a look-up must find what it looks for");
}

/// Pool of threads that wait for keys to read, for comparison with `spawn_blocking`.
struct Pool(mpsc::Sender<Work>);

type Work = (Vec<Key>, oneshot::Sender<io::Result<bool>>);

impl Pool {
    fn start(store: &Arc<DiskStore>, threads: usize) -> Self {
        let (sender, receiver) = mpsc::channel::<Work>();
        let receiver = Arc::new(std::sync::Mutex::new(receiver));
        for _ in 0..threads {
            let (store, receiver) = (Arc::clone(store), Arc::clone(&receiver));
            std::thread::spawn(move || {
                loop {
                    let work = receiver.lock().map(|receiver| receiver.recv());
                    let Ok(Ok((keys, answer))) = work else { return };
                    // The receiver may have been dropped.
                    answer.send(read_all(&store, &keys)).ok();
                }
            });
        }
        Self(sender)
    }

    async fn read(&self, keys: Vec<Key>) -> Outcome<io::Result<bool>> {
        let (answer, answered) = oneshot::channel();
        self.0.send((keys, answer))?;
        Ok(answered.await?)
    }
}

fn open(path: &Path) -> Outcome<DiskStore> {
    Ok(DiskStore::open(path, 2048 * MIB)?)
}

fn key(n: u32) -> Key {
    KeyBuilder::new(None).part(Tag::Text, &n.to_le_bytes()).finish()
}

fn value(n: u32) -> Vec<u8> {
    let mut bytes = vec![0; VALUE_BYTES];
    key(n).stream().fill(&mut bytes);
    bytes
}

/// Drops the store's files from the page cache. GNU `dd` does this when it is told to read zero blocks of a file.
fn drop_from_cache(path: &Path) -> Outcome<()> {
    Command::new("sync").status()?;
    for file in std::fs::read_dir(path)? {
        let file = format!("if={}", file?.path().display());
        Command::new("dd").args([file.as_str(), "iflag=nocache", "count=0", "status=none"]).status()?;
    }
    Ok(())
}

fn resident_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc/self/status has no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn timed<T>(what: &str, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let begun = Instant::now();
    let done = act()?;
    row(what, &format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1e3));
    Ok(done)
}

fn per_lookup(what: &str, rounds: u32, look: impl Fn(u32) -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    for n in 0..rounds {
        assert_found(look(n)?);
    }
    shown(what, begun.elapsed(), rounds);
    Ok(())
}

fn shown(what: &str, elapsed: Duration, rounds: u32) {
    row(what, &format!("{:.1} us", elapsed.as_secs_f64() * 1e6 / f64::from(rounds)));
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

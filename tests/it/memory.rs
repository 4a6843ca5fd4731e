//! Memory as the operating system reports it: the limit holds, the cache's own count is right, and reported savings
//! are real.

#![cfg(target_os = "linux")]

mod bursts;
mod limited;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use vecho::flow::mock;
use vecho::wire;

use crate::harness::{Client, Vecho};

const MIB: u64 = 1024 * 1024;
const MODEL: &str = "memory-test";

/// Returns the resident memory of a process, from the kernel.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    counted_bytes(pid, "VmRSS:")
}

fn counted_bytes(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("the kernel counts it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
    kib * 1024
}

/// A thread that polls the memory of a process and keeps the maximum.
struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        Self { most, stop, thread }
    }

    fn most_bytes(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking does not panic");
        self.most.load(Ordering::Relaxed)
    }
}

/// A vecho with the built-in mock as upstream, and a client.
struct Bench {
    vecho: Vecho,
    client: Client,
    dimensions: usize,
}

impl Bench {
    fn start(dimensions: usize, environment: &[(&str, &str)]) -> Self {
        Self { vecho: Vecho::start_with("mock:", environment), client: Client::new(), dimensions }
    }

    /// Requests the texts of these numbers, and checks a few of the vectors.
    async fn ask(&self, numbers: Range<usize>) {
        let texts: Vec<String> = numbers.map(text).collect();
        let body = json!({
            "model": MODEL, "input": texts, "dimensions": self.dimensions, "encoding_format": "base64"
        });
        let answer = self.client.post(&format!("{}/embeddings", self.vecho.base_url()), &body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let vectors = answer.vectors();
        assert_eq!(vectors.len(), texts.len());
        for place in [0, texts.len() / 2, texts.len() - 1] {
            let input = wire::Input::Text(Cow::Borrowed(&texts[place]));
            let expected: Vec<f32> = mock::vector(MODEL, self.dimensions, &input).components().collect();
            assert!(vectors[place] == expected, "the vector of {}", texts[place]);
        }
    }

    async fn memory_tier(&self) -> Value {
        let url = format!("http://{}/api/performance/cache/stats", self.vecho.admin());
        self.client.get(&url).await.json()["tiers"]["memory"].clone()
    }

    async fn optimize(&self, target_mb: u64) -> Value {
        let url = format!("http://{}/api/performance/optimize-memory", self.vecho.admin());
        let answer = self.client.post(&url, &json!({ "target_memory_mb": target_mb })).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    }

    /// Returns the memory of all entries by the cache's own count, and that of the process by the kernel's, after
    /// free memory has been returned to the system.
    async fn settled(&self) -> Sizes {
        // A target of one MB below the current use returns freed memory and evicts at most a few entries.
        let resident_mb = self.resident_bytes() / MIB;
        self.optimize(resident_mb - 1).await;
        let tier = self.memory_tier().await;
        Sizes { counted: number(&tier["bytes"]), resident: self.resident_bytes() }
    }

    fn resident_bytes(&self) -> u64 {
        resident_bytes(self.vecho.pid())
    }
}

/// The memory of entries, counted by the cache and by the kernel, in bytes.
struct Sizes {
    counted: u64,
    resident: u64,
}

fn text(number: usize) -> String {
    format!("chunk {number}")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a count"))
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^53")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

#[tokio::test]
async fn resident_memory_stays_under_the_limit_under_load() {
    const LIMIT_MB: u64 = 96;
    // An unoptimised build needs more memory before the first entry, so the governor checks more often. Evicted
    // entries must be fetched again instead of being read from disk.
    let environment = [
        ("VECHO_MEMORY_LIMIT_MB", "96"),
        ("VECHO_MEMORY_CHECK_EVERY", "250ms"),
        ("VECHO_DISK_ENABLED", "false"),
        // The same setting as in the image.
        ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=32"),
    ];
    let bench = Bench::start(3072, &environment);
    let watch = Watch::start(bench.vecho.pid());
    // About 110 MB of vectors at two bytes per component. Little more than half the limit fits.
    for batch in 0..72 {
        bench.ask(batch * 256..(batch + 1) * 256).await;
    }
    let tier = bench.memory_tier().await;
    let (entries, bytes) = (number(&tier["entries"]), number(&tier["bytes"]));
    assert!(number(&tier["evictions"]) > 0, "{tier}");
    // The number of entries that fit depends on the memory that the allocator can return: 860 to 2,130 of 18,432 in
    // 20 runs.
    assert!((500..9_000).contains(&entries), "{tier}");
    assert!(bytes <= number(&tier["capacity_bytes"]), "{tier}");
    // Evicted entries are fetched again, the others are served from memory, and all vectors are right.
    for first in (0..72 * 256).step_by(3_072) {
        bench.ask(first..first + 8).await;
    }
    let most = watch.most_bytes();
    assert!(most <= LIMIT_MB * MIB, "{:.1} MB at most, {LIMIT_MB} MB allowed; {tier}", mb(most));

    let before = bench.resident_bytes();
    let done = bench.optimize(64).await;
    let after = bench.resident_bytes();
    let (saved, dropped) = (done["memory_saved_mb"].as_f64().expect("a number"), mb(before.saturating_sub(after)));
    let found = done["current_memory_mb"].as_f64().expect("a number");
    assert!(done["optimization_needed"] == true && saved > 1.0, "{done}");
    // The governor may have run between the measurement and the request. Then more memory has been released.
    assert!(saved <= dropped + 2.0, "reported {saved:.1} MB, from outside {dropped:.1} MB: {done}");
    assert!((found - mb(after) - saved).abs() <= 2.0, "{:.1} MB after: {done}", mb(after));
    // Memory beside the program's own pages, of which an unoptimised build has some 18 MB: the target less these, and
    // pages that are still in use in part.
    let left = counted_bytes(bench.vecho.pid(), "RssAnon:");
    assert!(mb(left) <= 50.0, "{:.1} MB after {done}", mb(left));
    let again = bench.optimize(1_000).await;
    assert_eq!((&again["optimization_needed"], &again["memory_saved_mb"]), (&json!(false), &json!(0.0)));
    bench.ask(0..8).await;
}

#[tokio::test]
async fn the_memory_tier_counts_the_real_size_of_its_entries() {
    // Enough entries to make the memory left by single requests negligible.
    const ENTRIES: usize = 20_480;
    let bench = Bench::start(1536, &[("VECHO_MEMORY_LIMIT_MB", "4000"), ("VECHO_CACHE_ANSWERS_PERCENT", "0")]);
    // The first requests allocate memory beside their entries that the process never returns.
    for first in (0..2_048).step_by(256) {
        bench.ask(first..first + 256).await;
    }
    let before = bench.settled().await;
    for first in (2_048..2_048 + ENTRIES).step_by(256) {
        bench.ask(first..first + 256).await;
    }
    let after = bench.settled().await;
    let (counted, resident) = (after.counted - before.counted, after.resident - before.resident);
    assert!(resident * 10 <= counted * 11, "{counted} bytes counted, {resident} bytes resident");
    assert!(resident * 10 >= counted * 8, "{counted} bytes counted, {resident} bytes resident");
}

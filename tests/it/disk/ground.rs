//! Shared parts of the disk tier's tests: a folder that outlives the processes that use it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::client::{Answer, raw};
use crate::harness::{Client, Stub, Vecho, eventually, ops};

/// Number of texts per request.
const CHUNK: usize = 32;

/// A new folder that is removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("disk-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A killed process with the same number may have left a folder.
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn text(&self) -> &str {
        self.0.to_str().expect("the path is text")
    }

    /// Returns the files that hold entries, oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let files =
            std::fs::read_dir(&self.0).expect("the folder is there").map(|file| file.expect("it is there").path());
        let mut found: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
        found.sort();
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
        std::fs::remove_file(&self.0).ok();
    }
}

/// An upstream and a folder, used by one vecho after the other.
pub(super) struct Ground {
    pub(super) stub: Stub,
    pub(super) folder: Folder,
    client: Client,
}

impl Ground {
    pub(super) fn new() -> Self {
        Self { stub: Stub::start(), folder: Folder::new(), client: Client::new() }
    }

    /// Starts a vecho and waits until its disk tier is open.
    pub(super) async fn start(&self) -> Vecho {
        let vecho = self.start_with(&[]);
        vecho.logged("the disk tier is open").await;
        vecho
    }

    /// Starts a vecho with further settings and does not wait for its disk tier.
    pub(super) fn start_with(&self, environment: &[(&str, &str)]) -> Vecho {
        let own = [("VECHO_DISK_PATH", self.folder.text()), ("VECHO_FALLBACK_MODE", "error")];
        Vecho::start_with(&self.stub.base_url(), &[&own[..], environment].concat())
    }

    pub(super) async fn embed(&self, vecho: &Vecho, body: &Value) -> Answer {
        self.client.post(&format!("{}/embeddings", vecho.base_url()), body).await
    }

    /// Requests texts in chunks and checks every vector. Returns the number of vectors that came from the disk.
    pub(super) async fn ask(&self, vecho: &Vecho, model: &str, texts: &[String]) -> usize {
        let mut from_disk = 0;
        for chunk in texts.chunks(CHUNK) {
            let answer = self.embed(vecho, &json!({"model": model, "input": chunk, "encoding_format": "base64"})).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_right(&answer, model, chunk);
            from_disk += count(&answer, "disk");
        }
        from_disk
    }

    /// Purges the entries that the query selects, through the ops port.
    pub(super) async fn purge(&self, vecho: &Vecho, query: &str) -> Value {
        let url = vecho.ops_url(&format!("/api/performance/cache{query}"));
        let answer = self.client.send(raw(http::Method::DELETE, &url, "")).await.expect("the answer must arrive");
        let purged = answer.json();
        assert_eq!(answer.status, if purged["pending"] == json!([]) { 200 } else { 202 }, "{answer:?}");
        purged
    }

    /// Returns the disk tier's part of the cache statistics.
    pub(super) async fn stats(&self, vecho: &Vecho) -> Value {
        let stats = self.client.get(&vecho.ops_url("/api/performance/cache/stats")).await.json();
        stats["tiers"]["disk"].clone()
    }
}

/// Waits until this number of entries is written.
pub(super) async fn written(vecho: &Vecho, entries: usize) {
    let admin = vecho.admin();
    let series = "vecho_cache_entries{tier=\"disk\"}";
    #[expect(clippy::cast_precision_loss, reason = "a test writes few")]
    let enough = async || ops::metric(admin, series).await >= entries as f64;
    eventually(&format!("{entries} entries on disk"), enough).await;
}

/// Returns the number of an answer's inputs that came from `source`.
pub(super) fn count(answer: &Answer, source: &str) -> usize {
    let counted = answer.sources().split(", ").find_map(|part| part.strip_prefix(source)?.strip_prefix('='));
    counted.map_or(0, |count| count.parse().expect("it is a number"))
}

pub(super) fn assert_right(answer: &Answer, model: &str, texts: &[String]) {
    let bits = |vectors: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        vectors.into_iter().map(|vector| vector.into_iter().map(f32::to_bits).collect()).collect()
    };
    let expected = texts.iter().map(|text| Stub::vector(model, None, text)).collect();
    assert!(bits(answer.vectors()) == bits(expected), "a wrong vector among {texts:?}");
}

/// Returns texts that are unique to this name.
pub(super) fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name} {n}")).collect()
}

pub(super) const TINY: &str = "tiny";
pub(super) const SMALL: &str = "text-embedding-3-small";

/// Returns the current number of entries on disk.
pub(super) async fn entries(ground: &Ground, vecho: &Vecho) -> usize {
    let entries = ground.stats(vecho).await["entries"].as_u64().expect("it is a number");
    usize::try_from(entries).expect("it is small")
}

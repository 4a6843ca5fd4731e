//! A real model behind vecho: its vectors arrive bit for bit, whether fetched, cached or mixed in one answer.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::harness::Vecho;
use crate::harness::client::{Answer, Client};
use crate::harness::script::MODEL_SERVER;

const MODEL: &str = "all-MiniLM-L6-v2";
const MAX_CHUNKS: usize = 60;

/// The model's server process, killed on drop.
struct ModelServer {
    child: Child,
    addr: SocketAddr,
}

impl ModelServer {
    fn start() -> Self {
        let mut child = MODEL_SERVER.command().stdout(Stdio::piped()).spawn().expect("the model server must start");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let addr = line.trim().strip_prefix("listening=").and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("the model server said {line:?}"));
        Self { child, addr }
    }

    fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    async fn inputs_embedded(&self) -> u64 {
        let answer = Client::new().get(&format!("http://{}/", self.addr)).await.json();
        answer["inputs_embedded"].as_u64().expect("a count")
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns this project's own documentation, one chunk per paragraph.
fn chunks() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_path_buf(), root.join("docs")];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut pages: Vec<_> = files.map(|entry| entry.expect("a folder can be read").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let texts = pages.iter().map(|page| std::fs::read_to_string(page).expect("a page is text"));
    let mut chunks: Vec<String> = texts.flat_map(|text| paragraphs(&text)).collect();
    chunks.sort();
    chunks.dedup();
    chunks.truncate(MAX_CHUNKS);
    assert!(chunks.len() >= 10, "the documentation has paragraphs");
    chunks
}

fn paragraphs(text: &str) -> Vec<String> {
    text.split("\n\n").map(str::trim).filter(|text| text.len() > 40).map(str::to_owned).collect()
}

async fn embed(base_url: &str, texts: &[String], encoding: &str) -> Answer {
    let body = json!({"model": MODEL, "input": texts, "encoding_format": encoding});
    let answer = Client::new().post(&format!("{base_url}/embeddings"), &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer
}

/// Returns everything that a client reads from an answer, with vectors as bits.
fn read(answer: &Answer) -> (Vec<Vec<u32>>, Vec<Option<u64>>, Value, Value) {
    let bits = |vector: &Vec<f32>| vector.iter().map(|component| component.to_bits()).collect();
    let body = answer.json();
    (answer.vectors().iter().map(bits).collect(), answer.indices(), body["model"].clone(), body["usage"].clone())
}

#[tokio::test]
async fn hits_partial_hits_and_misses_equal_the_models_own_answers_bit_for_bit() {
    let model = ModelServer::start();
    let vecho = Vecho::start_with(&model.base_url(), &[]);
    let texts = chunks();
    let half = &texts[..texts.len() / 2];
    for encoding in ["float", "base64"] {
        let direct = read(&embed(&model.base_url(), &texts, encoding).await);
        let direct_half = read(&embed(&model.base_url(), half, encoding).await);
        let before = model.inputs_embedded().await;
        assert_eq!(read(&embed(&vecho.base_url(), half, encoding).await), direct_half, "first half, {encoding}");
        assert_eq!(read(&embed(&vecho.base_url(), &texts, encoding).await), direct, "half known, {encoding}");
        assert_eq!(read(&embed(&vecho.base_url(), &texts, encoding).await), direct, "all known, {encoding}");
        let sent = model.inputs_embedded().await - before;
        let expected = if encoding == "float" { texts.len() } else { 0 };
        assert_eq!(sent, expected as u64, "each chunk is embedded once, for both encodings together");
    }
}

#[tokio::test]
async fn the_test_model_computes_meaningful_similarities() {
    let model = ModelServer::start();
    let texts = ["How do I empty the cache?", "Removing every stored entry", "A recipe for apple pie"];
    let vectors = embed(&model.base_url(), &texts.map(str::to_owned), "base64").await.vectors();
    let similarity = |a: usize, b: usize| -> f32 { vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum() };
    assert_eq!(vectors[0].len(), 384);
    assert!(similarity(0, 1) > similarity(0, 2) + 0.2, "{} and {}", similarity(0, 1), similarity(0, 2));
    assert_eq!(embed(&model.base_url(), &[texts[0].to_owned()], "float").await.vectors()[0], vectors[0]);
}

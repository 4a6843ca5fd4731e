//! HTTP/2 peers that cancel their requests as fast as they send them ("rapid reset").

#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::post;
use crate::harness::frames::{ENHANCE_YOUR_CALM, Frames, Pinged};
use crate::harness::ops::{metric, metric_becomes};
use crate::harness::tls::{Folder, Identity, send};
use crate::harness::{Behaviour, Stub, Vecho};
use crate::memory::resident_bytes;

const MIB: u64 = 1024 * 1024;
const PATH: &str = "/v1/embeddings";
/// Cancelled requests of a flood.
const MANY: usize = 5_000;
/// Cancelled requests between two pings. More than 20 that wait at once end the connection.
const FEW: usize = 5;

/// A vecho with TLS on its public port, and its memory before the flood.
struct Target {
    vecho: Vecho,
    identity: Identity,
    _folder: Folder,
    before_bytes: u64,
    /// Set at the end of the flood.
    is_over: AtomicBool,
}

impl Target {
    /// Starts it with one stored vector.
    async fn start(test: &str, stub: &Stub, more: &[(&str, &str)]) -> Self {
        let (folder, identity) = (Folder::new(test), Identity::new("localhost"));
        let files = [folder.write("cert.pem", &identity.cert_pem), folder.write("key.pem", &identity.key_pem)];
        let tls = [("VECHO_TLS_CERT_FILE", files[0].as_str()), ("VECHO_TLS_KEY_FILE", files[1].as_str())];
        let vecho = Vecho::start_with(&stub.base_url(), &[&tls[..], more].concat());
        let mut target = Self { vecho, identity, _folder: folder, before_bytes: 0, is_over: AtomicBool::new(false) };
        assert_eq!(target.embed("known").await, 200);
        target.before_bytes = resident_bytes(target.vecho.pid());
        target
    }

    async fn embed(&self, text: &str) -> u16 {
        let request = post(PATH, &json!({"model": "tiny", "input": text}));
        send(self.vecho.public(), &self.identity, request).await.expect("the handshake must succeed").status
    }

    async fn connect(&self) -> Frames {
        Frames::connect(self.vecho.public(), &self.identity).await
    }

    /// Sends [`MANY`] cancelled requests, a few at a time so that its connections last. Nobody can tell how many the
    /// server has accepted, so it may still end one, and the next one takes its place.
    async fn cancel_a_few_at_a_time(&self, body: impl Fn(usize) -> Option<String>) {
        let mut frames = self.connect().await;
        for number in 0..MANY {
            let cancelled = frames.cancelled_post(PATH, body(number).as_deref());
            frames.offer(&cancelled).await;
            if (number + 1) % FEW == 0 && frames.ping().await != Pinged::Alive {
                frames = self.connect().await;
            }
        }
    }

    /// Sends requests of another caller while the flood lasts. Returns their number, and the longest time that an
    /// answer took.
    async fn others(&self, text: impl Fn(usize) -> String) -> (usize, Duration) {
        let (answers, mut longest) = (AtomicUsize::new(0), Duration::ZERO);
        while !self.is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            assert_eq!(self.embed(&text(answers.fetch_add(1, Ordering::Relaxed))).await, 200);
            longest = longest.max(begun.elapsed());
        }
        (answers.into_inner(), longest)
    }

    /// Runs a flood and the requests of another caller at once, and checks that those are answered soon.
    async fn flooded(&self, flood: impl Future<Output = ()>, text: impl Fn(usize) -> String) {
        let flood = async {
            flood.await;
            self.is_over.store(true, Ordering::Relaxed);
        };
        let ((), (answers, longest)) = tokio::join!(flood, self.others(text));
        assert!(answers > 0 && longest < Duration::from_secs(5), "{answers} answers, the last after {longest:?}");
    }

    fn grown_mb(&self) -> u64 {
        resident_bytes(self.vecho.pid()).saturating_sub(self.before_bytes) / MIB
    }

    /// Stops it, and checks that its log names the flood in a line and a count at most.
    fn assert_quiet(self) -> Vec<String> {
        let log = self.vecho.stop().log;
        let lines = log.lines().filter(|line| line.contains("recv_reset") || line.contains("h2::"));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        assert!(lines.len() <= 2 && log.lines().count() < 20, "{log}");
        lines
    }
}

#[tokio::test]
async fn a_burst_of_cancelled_requests_closes_the_connection_with_one_log_line() {
    let stub = Stub::start();
    let target = Target::start("reset-bursts", &stub, &[]).await;
    let flood = async {
        for _ in 0..10 {
            let mut frames = target.connect().await;
            let burst: Vec<u8> = (0..MANY).flat_map(|_| frames.cancelled_post(PATH, None)).collect();
            frames.offer(&burst).await;
            // The peer may close before all of the burst is read, and then its last words may be lost.
            let pinged = frames.ping().await;
            assert!(matches!(pinged, Pinged::Ended(None | Some(ENHANCE_YOUR_CALM))), "{pinged:?}");
        }
    };
    target.flooded(flood, |number| format!("other {number}")).await;
    metric_becomes(target.vecho.admin(), "vecho_requests_in_flight", 0.0).await;
    assert!(target.grown_mb() < 16, "grown by {} MB", target.grown_mb());
    let lines = target.assert_quiet();
    assert!(lines[0].contains("WARN") && lines[1].contains("(and 9 more in the last minute)"), "{lines:?}");
}

#[tokio::test]
async fn cancelled_unfinished_requests_release_everything() {
    let stub = Stub::start();
    let target = Target::start("reset-unfinished", &stub, &[]).await;
    target.flooded(target.cancel_a_few_at_a_time(|_| None), |_| "known".to_owned()).await;
    for held in ["vecho_requests_in_flight", "vecho_body_bytes_in_flight", "vecho_flights"] {
        metric_becomes(target.vecho.admin(), held, 0.0).await;
    }
    assert_eq!(stub.calls().len(), 1, "no upstream call is made for an unfinished request");
    assert!(target.grown_mb() < 16, "grown by {} MB", target.grown_mb());
    target.assert_quiet();
}

#[tokio::test]
async fn fetches_of_cancelled_requests_are_bounded() {
    /// Each reserves a KiB of the eighth of a fifth of the memory limit that is for small requests.
    const MOST_FETCHES: f64 = 1_638.0;
    let stub = Stub::start();
    let settings = [("VECHO_MEMORY_LIMIT_MB", "64"), ("VECHO_DISK_ENABLED", "false")];
    let target = Target::start("reset-whole", &stub, &settings).await;
    stub.always(Behaviour::Gate);
    let fetches = async || metric(target.vecho.admin(), "vecho_flights").await;
    let body = |round: usize, number: usize| json!({"model": "tiny", "input": format!("{round} {number}")}).to_string();
    let flood = async {
        let mut rounds = 0;
        while fetches().await < MOST_FETCHES {
            assert!(rounds < 10, "only {} fetches", fetches().await);
            target.cancel_a_few_at_a_time(|number| Some(body(rounds, number))).await;
            rounds += 1;
        }
        assert!(fetches().await <= MOST_FETCHES, "{} fetches", fetches().await);
        target.cancel_a_few_at_a_time(|number| Some(body(rounds, number))).await;
    };
    target.flooded(flood, |_| "known".to_owned()).await;
    assert!(fetches().await <= MOST_FETCHES, "{} fetches", fetches().await);
    assert!(target.grown_mb() < 48, "grown by {} MB", target.grown_mb());
    stub.always(Behaviour::Normal);
    stub.release(MANY);
    metric_becomes(target.vecho.admin(), "vecho_flights", 0.0).await;
    target.assert_quiet();
}

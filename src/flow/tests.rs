//! What no test from outside can bring about for certain: what happens between two steps of one request.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::Semaphore;

use super::*;
use crate::bounded::Bounds;
use crate::config::Config;
use crate::epochs::Epochs;
use crate::key::{Key, KeyBuilder, Tag};
use crate::mock;
use crate::tiers::at_rest::ChecksumKeys;
use crate::tiers::{AtRest, Eventually, LowerStats, LowerTier, MemoryTier, Settled, Tier};
use crate::traces::TraceContext;
use crate::upstream::{Breaker, Caller, Client, Reply};
use crate::wire::{PathModel, Rendering, read_request};

/// How many inputs each call carried, in the order of the calls.
type Calls = Arc<Mutex<Vec<usize>>>;

/// A flow whose upstream answers once `gate` is closed at its other end.
fn flow(lower: Vec<Arc<dyn LowerTier>>, gate: mpsc::Receiver<()>) -> (Arc<Flow>, Calls) {
    let config = Config::from_pairs(&[("upstream.url", "mock:"), ("upstream.max_concurrent", "1")]);
    let live = Live::new(config.expect("it must be free of faults"));
    let (metrics, calls) = (Metrics::new("test"), Calls::default());
    let tracer = Tracer::start(&live, "test", &metrics).expect("traces are off");
    let client = Arc::new(Client::in_process(embedder(Arc::clone(&calls), gate), live.clone()));
    let breaker = Arc::new(Breaker::new(Arc::clone(&metrics)));
    let caller = Caller::new(client, breaker, live.clone(), (Arc::clone(&metrics), Throttled::default()));
    let memory = MemoryTier::new(Bounds { max_bytes: 1 << 20, max_entries: None });
    let flow = Flow {
        live: live.clone(),
        clock: Clock::manual(1_000),
        tiers: Stack::new(memory, lower, Arc::default(), ChecksumKeys::default()),
        leases: None,
        room: VectorRoom::new(1 << 20),
        flights: Flights::new(),
        batcher: Batcher::new(caller, live, 1 << 30, Arc::clone(&metrics)),
        spaces: Spaces::default(),
        vouchers: Vouchers::default(),
        rotation: Rotation::default(),
        throttled: Throttled::default(),
        tokenizer: Arc::default(),
        tasks: Tasks::new(),
        tracer,
        metrics,
    };
    (Arc::new(flow), calls)
}

fn embedder(calls: Calls, gate: mpsc::Receiver<()>) -> crate::upstream::InProcess {
    let gate = Mutex::new(gate);
    Arc::new(move |call| {
        let request = read_request(call.body, &BTreeSet::default(), PathModel::No).expect("it is a request");
        calls.lock().expect("nobody panics").push(request.inputs.len());
        gate.lock().expect("nobody panics").recv().expect_err("nothing is ever sent");
        let rendering = Rendering {
            vectors: request.inputs.iter().map(|input| mock::vector("m", 8, input).into()).collect(),
            slots: (0..).take(request.inputs.len()).collect(),
            encoding: request.encoding,
            model: "m".to_owned(),
            prompt_tokens: 1,
            members: Vec::new(),
            mocks: Vec::new(),
        };
        Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: rendering.to_bytes() }
    })
}

fn credential(name: &str) -> Key {
    KeyBuilder::new(None).part(Tag::Scope, name.as_bytes()).finish()
}

/// Asks for one text, with a credential that stands in none of the headers.
async fn ask(flow: &Arc<Flow>, text: &str, credential: Key) -> Tally {
    let (headers, body) = (HeaderMap::new(), format!(r#"{{"model":"m","input":"{text}","dimensions":8}}"#));
    let request = read_request(body.as_bytes(), &BTreeSet::default(), PathModel::No).expect("it is a request");
    let origin = Origin {
        uri: Uri::from_static("mock://vecho/v1/embeddings"),
        credential,
        caller: credential,
        scope: KeyBuilder::new(None).finish(),
        must_be_vouched: false,
        headers: &headers,
    };
    let (body, deadline) = (Bytes::from(body.clone()), tokio::time::Instant::now() + Duration::from_mins(1));
    let (controls, trace, charge) = (Controls::default(), TraceContext::default(), Arc::new(()));
    let ask = Ask { request, body, charge, deadline, origin, controls, trace };
    match flow.answer(&ask).await {
        Outcome::Answer(answer) => answer.tally,
        _ => panic!("there is no answer"),
    }
}

/// A tier that holds nothing, and takes its time to say so when it is asked for the first time.
#[derive(Debug)]
struct Slow {
    was_asked: AtomicBool,
    go_on: Semaphore,
}

impl LowerTier for Slow {
    fn tier(&self) -> Tier {
        Tier::Disk
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> Eventually<'a, Vec<Option<Bytes>>> {
        let is_first = !self.was_asked.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if is_first {
                drop(self.go_on.acquire().await);
            }
            vec![None; keys.len()]
        })
    }

    fn put(&self, _key: Key, _entry: AtRest) {}

    fn purged<'a>(&'a self, _epochs: &'a Arc<Epochs>, _name: &'a str) -> Eventually<'a, Settled> {
        Box::pin(std::future::ready(Settled::ForGood))
    }

    fn clear(&self) -> Eventually<'_, (u64, Settled)> {
        Box::pin(std::future::ready((0, Settled::ForGood)))
    }

    fn stats(&self) -> LowerStats {
        LowerStats::default()
    }

    fn close(&self, _patience: Duration) -> Eventually<'_, usize> {
        Box::pin(std::future::ready(0))
    }
}

#[tokio::test]
async fn what_landed_and_left_between_the_look_up_and_the_claim_is_not_paid_for_twice() {
    let slow = Arc::new(Slow { was_asked: AtomicBool::new(false), go_on: Semaphore::new(0) });
    let (open, gate) = mpsc::channel();
    drop(open);
    let (flow, calls) = flow(vec![Arc::<Slow>::clone(&slow)], gate);
    let late = ask(&flow, "x", credential("a"));
    let quick = async {
        let quick = ask(&flow, "x", credential("a")).await;
        slow.go_on.add_permits(1);
        quick
    };
    let (late, quick) = tokio::join!(biased; late, quick);
    assert_eq!((quick.upstream, late.upstream, late.memory), (1, 0, 1));
    assert_eq!(*calls.lock().expect("nobody panics"), [1]);
}

#[tokio::test]
async fn callers_of_one_credential_share_a_call_and_those_of_two_never_do() {
    for (other, expected) in [("a", vec![1, 2]), ("b", vec![1, 1, 1])] {
        let (close, gate) = mpsc::channel();
        let (flow, calls) = flow(Vec::new(), gate);
        let open_once_both_wait = async {
            let queued = &flow.metrics.upstream_queued_inputs;
            while queued.get() < 2 {
                tokio::task::yield_now().await;
            }
            drop(close);
        };
        tokio::join!(
            biased;
            ask(&flow, "first", credential("a")),
            ask(&flow, "x", credential("a")),
            ask(&flow, "y", credential(other)),
            open_once_both_wait,
        );
        assert_eq!(*calls.lock().expect("nobody panics"), expected, "{other}");
    }
}

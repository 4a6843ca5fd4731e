//! Tests of events between two steps of one request, which no test from outside can cause reliably.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::Semaphore;

use super::fetch::pack_in_slices;
use super::*;
use crate::cache::at_rest::ChecksumKeys;
use crate::cache::bounded::MapBounds;
use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::cache::{AtRest, Durability, LowerTier, MemoryTier, Record, Stack, Tier, TierStats, Times};
use crate::config::{Config, Live};
use crate::flow::mock;
use crate::key::{Key, KeyBuilder, Tag};
use crate::learned::{AcceptedCredentials, ModelIdentity, Spaces};
use crate::observe::logs::Throttled;
use crate::observe::metrics::{InputSource, Metrics};
use crate::observe::traces::{TraceContext, Tracer};
use crate::process::clock::Clock;
use crate::process::pace::tests::turns_during;
use crate::process::tasks::Tasks;
use crate::spend::SpendGuard;
use crate::upstream::{Batcher, Breaker, CallExecutor, CallInfo, Fetched, Router, UpstreamClient, UpstreamReply};
use crate::vector::packed::{Codec, Packed};
use crate::wire::{Input, PathModel, Rendering, Space, read_request};
use futures_util::future::BoxFuture;

const ADDRESS: &str = "mock://vecho/v1/embeddings";

/// Timeout of a test's request.
const LONGEST: Duration = Duration::from_secs(20);

/// Number of inputs of each call, in the order of the calls.
type Calls = Arc<Mutex<Vec<usize>>>;

/// Creates a flow with an upstream that answers once the other end of `gate` is closed.
fn flow(lower: Vec<Arc<dyn LowerTier>>, gate: mpsc::Receiver<()>) -> (Arc<Flow>, Calls) {
    let config = Config::from_pairs(&[("upstream.url", "mock:"), ("upstream.max_concurrent", "1")]);
    let live = Live::new(config.expect("it must be free of faults"));
    let (metrics, calls) = (Metrics::new("test"), Calls::default());
    let tracer = Tracer::start(&live, "test", &metrics).expect("traces are off");
    let client = Arc::new(UpstreamClient::in_process(embedder(Arc::clone(&calls), gate), live.clone()));
    let breaker = Arc::new(Breaker::new(Arc::clone(&metrics)));
    let spend = SpendGuard::new(live.clone(), Clock::manual(1_000), (Arc::clone(&metrics), Throttled::default()));
    let executor = CallExecutor::new(
        client,
        breaker,
        live.clone(),
        (Arc::clone(&metrics), Throttled::default(), Arc::clone(&spend)),
    );
    let memory = MemoryTier::new(MapBounds { max_bytes: 1 << 20, max_entries: None });
    let flow = Flow {
        live: live.clone(),
        clock: Clock::manual(1_000),
        tiers: Arc::new(Stack::new(memory, lower, Arc::default(), ChecksumKeys::default())),
        leases: None,
        vector_budget: VectorBudget::new(1 << 20),
        single_flight: SingleFlight::new(),
        batcher: Batcher::new(Router::single(executor), live, 1 << 30, Arc::clone(&metrics)),
        spaces: Spaces::default(),
        accepted_credentials: AcceptedCredentials::default(),
        proofs: SingleFlight::new(),
        rotation: Rotation::default(),
        spend,
        watch: Watch::default(),
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
        UpstreamReply { status: StatusCode::OK, headers: HeaderMap::new(), body: rendering.to_bytes() }
    })
}

fn scope() -> Key {
    KeyBuilder::new(None).finish()
}

fn credential(name: &str) -> Key {
    KeyBuilder::new(None).part(Tag::Scope, name.as_bytes()).finish()
}

/// Requests one text, with a credential that is not in the headers.
async fn ask(flow: &Arc<Flow>, text: &str, credential: Key) -> SourceCounts {
    answer(flow, text, credential, Controls::default()).await.source_counts
}

/// Requests one text, with controls. Panics if there is no answer within the timeout.
async fn answer(flow: &Arc<Flow>, text: &str, credential: Key, controls: Controls) -> Box<Answer> {
    let (headers, body) = (HeaderMap::new(), format!(r#"{{"model":"m","input":"{text}","dimensions":8}}"#));
    let request = read_request(body.as_bytes(), &BTreeSet::default(), PathModel::No).expect("it is a request");
    let origin = RequestOrigin {
        uri: Uri::from_static(ADDRESS),
        credential,
        caller: credential,
        owner: None,
        namespace: None,
        scope: scope(),
        needs_acceptance: false,
        headers: &headers,
    };
    let (body, deadline) = (Bytes::from(body.clone()), tokio::time::Instant::now() + Duration::from_mins(1));
    let (trace, charge) = (TraceContext::default(), Arc::new(()));
    let context = RequestContext { config: flow.live.load(), deadline, now_ms: flow.clock.now_ms(), controls, trace };
    let ask = EmbedJob { context, request, body, charge, origin };
    let outcome = tokio::time::timeout(LONGEST, flow.answer(&ask)).await;
    let FlowOutcome::Answer(answer) = outcome.unwrap_or_else(|_| panic!("no answer to {text} within {LONGEST:?}"))
    else {
        panic!("there is no answer to {text}");
    };
    answer
}

/// A tier that holds nothing, and delays its first answer.
#[derive(Debug)]
struct Slow {
    was_asked: AtomicBool,
    go_on: Semaphore,
}

impl LowerTier for Slow {
    fn tier(&self) -> Tier {
        Tier::Disk
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        let is_first = !self.was_asked.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if is_first {
                drop(self.go_on.acquire().await);
            }
            vec![None; keys.len()]
        })
    }

    fn put(&self, _key: Key, _entry: AtRest) {}

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, _: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        Box::pin(std::future::ready((0, Durability::ForGood)))
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(std::future::ready((0, Durability::ForGood)))
    }

    fn stats(&self) -> TierStats {
        TierStats::default()
    }

    fn close(&self, _timeout: Duration) -> BoxFuture<'_, usize> {
        Box::pin(std::future::ready(0))
    }
}

/// Creates a flow with an upstream that answers at once.
fn open_flow(lower: Vec<Arc<dyn LowerTier>>) -> (Arc<Flow>, Calls) {
    let (open, gate) = mpsc::channel();
    drop(open);
    flow(lower, gate)
}

/// Sends two requests for one text; the first is held after its look-up until the second has ended. Returns the tallies
/// of both, and the number of inputs of each call.
async fn fetch_completes_between_lookup_and_claim(
    late: Controls,
    quick: Controls,
) -> (SourceCounts, SourceCounts, Vec<usize>) {
    let slow = Arc::new(Slow { was_asked: AtomicBool::new(false), go_on: Semaphore::new(0) });
    let (flow, calls) = open_flow(vec![Arc::<Slow>::clone(&slow)]);
    let late = answer(&flow, "x", credential("a"), late);
    let quick = async {
        let quick = answer(&flow, "x", credential("a"), quick).await;
        slow.go_on.add_permits(1);
        quick
    };
    let (late, quick) = tokio::join!(biased; late, quick);
    let calls = calls.lock().expect("nobody panics").clone();
    (late.source_counts, quick.source_counts, calls)
}

#[tokio::test]
async fn a_fetch_that_completes_between_lookup_and_claim_is_not_repeated() {
    let plain = Controls::default();
    for beside in [plain, Controls { calls: super::Calls::Own, ..plain }] {
        let (late, quick, calls) = fetch_completes_between_lookup_and_claim(plain, beside).await;
        assert_eq!((quick.upstream, late.upstream, late.memory), (1, 0, 1), "{beside:?}");
        assert_eq!(calls, [1], "{beside:?}");
    }
}

#[tokio::test]
async fn no_cache_fetches_although_a_fetch_completed_between_lookup_and_claim() {
    let plain = Controls::default();
    let (late, _, calls) = fetch_completes_between_lookup_and_claim(Controls { no_cache: true, ..plain }, plain).await;
    assert_eq!((late.upstream, late.memory, calls), (1, 0, vec![1, 1]));
}

/// Creates the result of another fetch: a vector of this age, packed by `codec`, from a call or found stored.
fn completion(flow: &Flow, (age_ms, codec): (u64, Codec), is_fetched: bool) -> Served {
    let created_ms = flow.clock.now_ms() - age_ms;
    let times = Times { created_ms, fresh_until_ms: u64::MAX, stale_until_ms: u64::MAX };
    let vector = mock::vector("m", 8, &Input::Text("x".into()));
    let identity = ModelIdentity { model: "m".into(), dimension: 8, revision: 0 };
    let record = Arc::new(Record::new(Packed::pack(&vector, codec), identity, times, Some(1)));
    let call = CallInfo {
        headers: HeaderMap::new(),
        model: None,
        prompt_tokens: None,
        members: Vec::new(),
        inputs: 1,
        has_repetitions: false,
        trace: TraceContext::default(),
        target: None,
    };
    if is_fetched {
        Served { record, source: InputSource::Upstream, call: Some(Arc::new(call)) }
    } else {
        Served::stored(record, Tier::Memory)
    }
}

/// Answers a request for `x` that joins a fetch, which completes with this result after `meanwhile`.
async fn joined(flow: &Arc<Flow>, controls: Controls, served: Served, meanwhile: impl FnOnce()) -> Box<Answer> {
    let space = Space { model: Some("m".to_owned()), dimensions: Some(8), ..Space::default() };
    let space = space_key(&scope(), &Uri::from_static(ADDRESS), &space);
    let key = Input::Text("x".into()).key(&space);
    let lead = flow.single_flight.claim(&[key]).lead.expect("nobody else fetches it");
    let complete = async {
        meanwhile();
        lead.complete([(0, Ok(served))]);
    };
    let (answer, ()) = tokio::join!(biased; answer(flow, "x", credential("a"), controls), complete);
    answer
}

#[tokio::test]
async fn a_waiter_fetches_again_if_the_result_is_older_than_its_max_age() {
    for (max_age_ms, is_fetched, expected) in
        [(None, false, 0), (Some(500), false, 0), (Some(499), false, 1), (Some(499), true, 0)]
    {
        let (flow, calls) = open_flow(Vec::new());
        let served = completion(&flow, (500, Codec::Lossless), is_fetched);
        let answer = joined(&flow, Controls { max_age_ms, ..Controls::default() }, served, || {}).await;
        assert_eq!(answer.source_counts.upstream, expected, "{max_age_ms:?} {is_fetched}");
        assert_eq!(calls.lock().expect("nobody panics").len() as u64, expected, "{max_age_ms:?} {is_fetched}");
    }
}

#[tokio::test]
async fn a_waiter_with_no_cache_accepts_only_fetched_results() {
    for (is_fetched, expected) in [(true, 0), (false, 1)] {
        let (flow, _) = open_flow(Vec::new());
        let served = completion(&flow, (0, Codec::Lossless), is_fetched);
        let answer = joined(&flow, Controls { no_cache: true, ..Controls::default() }, served, || {}).await;
        assert_eq!(answer.source_counts.upstream, expected, "{is_fetched}");
    }
}

#[tokio::test]
async fn a_waiter_fetches_again_if_the_result_is_less_exact_than_configured() {
    for (codec, expected) in [(Codec::Lossless, 0), (Codec::Int8, 1)] {
        let (flow, _) = open_flow(Vec::new());
        let served = completion(&flow, (0, codec), true);
        let answer = joined(&flow, Controls::default(), served, || {}).await;
        assert_eq!(answer.source_counts.upstream, expected, "{codec:?}");
    }
}

#[tokio::test]
async fn a_hit_that_began_before_a_purge_or_refresh_has_the_earlier_validity() {
    let (flow, _) = open_flow(Vec::new());
    let served = || completion(&flow, (0, Codec::Lossless), false);
    let plain = joined(&flow, Controls::default(), served(), || {}).await.validity.expect("it is a hit");
    assert!(plain.generation == flow.tiers.generation() && plain.replacements == plain.space_state.replacements());
    let purge = || assert_eq!(flow.tiers.purge_memory(None), 0, "the vector was never stored");
    let purged = joined(&flow, Controls::default(), served(), purge).await.validity.expect("it is a hit");
    assert!(purged.generation != flow.tiers.generation());
    let refresh = || plain.space_state.note_replacement();
    let refreshed = joined(&flow, Controls::default(), served(), refresh).await.validity.expect("it is a hit");
    assert!(refreshed.replacements < refreshed.space_state.replacements());
}

#[tokio::test]
async fn other_tasks_run_while_many_vectors_are_packed() {
    let (flow, _) = open_flow(Vec::new());
    let call = completion(&flow, (0, Codec::F32), true).call.expect("it is fetched");
    let vector = mock::vector("m", 3_072, &Input::Text("x".into()));
    let fetched = Fetched { vector: vector.clone().into(), tokens: None, call };
    let mut fetched = vec![fetched; 2_048];
    let ((), turns) = turns_during(pack_in_slices(&mut fetched, Codec::Lossless)).await;
    assert!(turns >= 2, "{turns} turns");
    let packed = Packed::pack(&vector, Codec::Lossless);
    assert!(fetched.iter().all(|fetched| fetched.vector == packed));
}

#[tokio::test]
async fn requests_share_a_call_only_within_one_credential() {
    for (other, expected) in [("a", vec![1, 2]), ("b", vec![1, 1, 1])] {
        let (close, gate) = mpsc::channel();
        let (flow, calls) = flow(Vec::new(), gate);
        let open_once_both_wait = async {
            let queued = &flow.metrics.upstream.queued_inputs;
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

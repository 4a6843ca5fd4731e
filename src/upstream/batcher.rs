//! Packs misses into calls. A lane holds the misses that may share one: same space, same credential.
//!
//! There is no timer. Each piece of work brings a worker that waits for a permit and then takes whatever its lane
//! holds, up to the limits of a call. So an idle proxy adds no wait, and a busy one sends few, full calls.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::caller::{Question, Terms};
use super::turn::Turn;
use super::{Caller, Failure, Reply};
use crate::config::Live;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use crate::tokens;
use crate::vector::Vector;
use crate::wire::{Input, ReadAnswer};

/// Limits learned from refusals that are remembered at once.
const MAX_LEARNED: usize = 1_024;

/// Where a miss queues. Two misses share a call only when their lanes have the same id.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The hash of everything that has to be equal inside one call.
    pub id: Key,
    /// That everything.
    pub terms: Arc<Terms>,
}

/// One vector that came from the upstream.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The numbers.
    pub vector: Vector,
    /// The input's tokens: exactly where it was alone in its call or is an array of tokens, else its share of the
    /// call's sum by length.
    pub tokens: Option<u32>,
    /// The call that brought it.
    pub call: Arc<CallInfo>,
}

/// What one call's answer said beside its vectors.
#[derive(Debug)]
pub struct CallInfo {
    /// Its headers.
    pub headers: HeaderMap,
    /// The model that answered, as far as it said.
    pub model: Option<String>,
    /// Tokens of the whole call.
    pub prompt_tokens: Option<u64>,
    /// How many inputs it carried.
    pub inputs: usize,
}

/// The result for some of the inputs that were submitted.
#[derive(Debug)]
pub struct Portion {
    /// Which inputs, by their place in the submitted list.
    pub places: Range<usize>,
    /// Those inputs, handed back.
    pub inputs: Vec<Input<'static>>,
    /// Their vectors, or why there are none.
    pub result: Result<Vec<Fetched>, Arc<Failure>>,
}

/// Inputs of one request that travel together.
struct Piece {
    first_place: usize,
    inputs: Vec<Input<'static>>,
    deadline: Instant,
    results: mpsc::UnboundedSender<Portion>,
}

/// The queue of one lane; it exists while something is in it.
struct Queue {
    terms: Arc<Terms>,
    pieces: VecDeque<Piece>,
}

/// The most that one call may carry.
#[derive(Clone, Copy)]
struct CallLimits {
    max_inputs: usize,
    max_tokens: usize,
}

/// The lanes and the permits. Used by `Arc`.
pub struct Batcher {
    caller: Caller,
    permits: Arc<Semaphore>,
    queues: Mutex<HashMap<Key, Queue>>,
    /// Most inputs a call may carry on lanes whose upstream refused more.
    learned: Mutex<HashMap<Key, usize>>,
    live: Live,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// A batcher without work. `max_concurrent` bounds the calls under way.
    pub fn new(caller: Caller, live: Live, tasks: Tasks, metrics: Arc<Metrics>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(live.load().upstream.max_concurrent));
        Arc::new(Self { caller, permits, queues: Mutex::default(), learned: Mutex::default(), live, tasks, metrics })
    }

    /// Queues inputs, all of one kind; the results come in portions that together cover every place once.
    pub fn submit(
        self: &Arc<Self>,
        lane: &Lane,
        inputs: Vec<Input<'static>>,
        deadline: Instant,
    ) -> mpsc::UnboundedReceiver<Portion> {
        let (results, portions) = mpsc::unbounded_channel();
        self.metrics.upstream_queued_inputs.add(inputs.len());
        let pieces = cut(inputs, self.limits(&lane.id), |first_place, inputs| Piece {
            first_place,
            inputs,
            deadline,
            results: results.clone(),
        });
        let workers = pieces.len();
        self.enqueue(lane, pieces);
        for _ in 0..workers {
            let (batcher, id) = (Arc::clone(self), lane.id);
            self.tasks.spawn(async move { batcher.work(id).await });
        }
        portions
    }

    fn enqueue(&self, lane: &Lane, pieces: Vec<Piece>) {
        let mut queues = lock(&self.queues);
        let queue =
            queues.entry(lane.id).or_insert_with(|| Queue { terms: Arc::clone(&lane.terms), pieces: VecDeque::new() });
        queue.pieces.extend(pieces);
    }

    /// Waits for a permit and makes the next call of a lane, if an earlier worker left anything to do.
    async fn work(self: Arc<Self>, id: Key) {
        let turn = Turn::take(&self.permits).await;
        let Some((terms, batch)) = self.take(&id) else {
            return;
        };
        self.metrics.upstream_queued_inputs.sub(batch.iter().map(|piece| piece.inputs.len()).sum());
        self.call(id, terms, batch, turn).await;
    }

    /// Takes the head of a lane and what still fits beside it.
    fn take(&self, id: &Key) -> Option<(Arc<Terms>, Vec<Piece>)> {
        let limits = self.limits(id);
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(id)?;
        let (terms, mut batch) = (Arc::clone(&queue.terms), Vec::new());
        let (mut inputs, mut tokens) = (0, 0);
        while let Some(piece) = queue.pieces.front() {
            inputs += piece.inputs.len();
            tokens += estimated_tokens(&piece.inputs);
            let fits = inputs <= limits.max_inputs && tokens <= limits.max_tokens;
            if !fits && !batch.is_empty() {
                break;
            }
            batch.extend(queue.pieces.pop_front());
        }
        if queue.pieces.is_empty() {
            queues.remove(id);
        }
        (!batch.is_empty()).then_some((terms, batch))
    }

    /// Makes one call and hands out what came of it; a call that was too large is halved, one that was refused
    /// because of one of several requests is made again for each of them.
    async fn call(self: Arc<Self>, id: Key, terms: Arc<Terms>, batch: Vec<Piece>, mut turn: Turn) {
        let under_way = self.metrics.upstream_in_flight.enter();
        let result = self.ask(&terms, &batch, &mut turn).await;
        drop(under_way);
        let failure = match result {
            Ok((answer, reply)) => return hand_out(batch, answer, reply),
            Err(failure) => failure,
        };
        let inputs: usize = batch.iter().map(|piece| piece.inputs.len()).sum();
        if failure.says_too_large() && inputs > 1 {
            self.learn_limit(id, inputs.div_ceil(2));
            self.metrics.upstream_splits.inc();
            drop(turn);
            let (left, right) = halve(batch);
            self.call_apart(id, &terms, [left, right]);
        } else if failure.may_be_a_neighbours() && batch.len() > 1 {
            self.metrics.upstream_isolations.inc();
            drop(turn);
            self.call_apart(id, &terms, batch.into_iter().map(|piece| vec![piece]));
        } else {
            fail(batch, failure);
        }
    }

    fn call_apart(self: &Arc<Self>, id: Key, terms: &Arc<Terms>, batches: impl IntoIterator<Item = Vec<Piece>>) {
        for batch in batches {
            let (batcher, terms) = (Arc::clone(self), Arc::clone(terms));
            self.tasks.spawn(async move {
                let turn = Turn::take(&batcher.permits).await;
                // Boxed because a call may lead to calls.
                Box::pin(batcher.call(id, terms, batch, turn)).await;
            });
        }
    }

    async fn ask(&self, terms: &Terms, batch: &[Piece], turn: &mut Turn) -> Result<(ReadAnswer, Reply), Failure> {
        let question = Question {
            inputs: batch.iter().flat_map(|piece| &piece.inputs).collect(),
            requests: batch.len(),
            deadline: batch.iter().map(|piece| piece.deadline).max().unwrap_or_else(Instant::now),
        };
        self.caller.ask(terms, &question, turn).await
    }

    fn limits(&self, id: &Key) -> CallLimits {
        let config = self.live.load();
        let learned = lock(&self.learned).get(id).copied().unwrap_or(usize::MAX);
        CallLimits { max_inputs: config.batch.max_inputs.min(learned).max(1), max_tokens: config.batch.max_tokens }
    }

    fn learn_limit(&self, id: Key, max_inputs: usize) {
        let mut learned = lock(&self.learned);
        if learned.len() >= MAX_LEARNED {
            learned.clear();
        }
        let known = learned.entry(id).or_insert(usize::MAX);
        *known = max_inputs.min(*known);
    }
}

/// Cuts a list of inputs into runs that fit one call each.
fn cut<T>(inputs: Vec<Input<'static>>, limits: CallLimits, make: impl Fn(usize, Vec<Input<'static>>) -> T) -> Vec<T> {
    let (mut runs, mut run, mut first_place, mut tokens) = (Vec::new(), Vec::new(), 0, 0);
    for (place, input) in inputs.into_iter().enumerate() {
        let more = input.estimated_tokens();
        if !run.is_empty() && (run.len() >= limits.max_inputs || tokens + more > limits.max_tokens) {
            runs.push(make(first_place, std::mem::take(&mut run)));
            (first_place, tokens) = (place, 0);
        }
        tokens += more;
        run.push(input);
    }
    if !run.is_empty() {
        runs.push(make(first_place, run));
    }
    runs
}

fn estimated_tokens(inputs: &[Input<'_>]) -> usize {
    inputs.iter().map(Input::estimated_tokens).sum()
}

/// Two halves of a batch: by requests where there are several, else by inputs.
fn halve(mut batch: Vec<Piece>) -> (Vec<Piece>, Vec<Piece>) {
    if batch.len() > 1 {
        let right = batch.split_off(batch.len() / 2);
        return (batch, right);
    }
    let rights = batch
        .iter_mut()
        .map(|piece| {
            let middle = piece.inputs.len() / 2;
            Piece {
                first_place: piece.first_place + middle,
                inputs: piece.inputs.split_off(middle),
                deadline: piece.deadline,
                results: piece.results.clone(),
            }
        })
        .collect();
    (batch, rights)
}

fn hand_out(batch: Vec<Piece>, answer: ReadAnswer, reply: Reply) {
    let inputs: Vec<&Input<'_>> = batch.iter().flat_map(|piece| &piece.inputs).collect();
    let mut tokens = token_shares(&inputs, &answer).into_iter();
    let call = Arc::new(CallInfo {
        headers: reply.headers,
        model: answer.model,
        prompt_tokens: answer.prompt_tokens,
        inputs: answer.vectors.len(),
    });
    let mut vectors = answer.vectors.into_iter();
    for piece in batch {
        let mine = vectors.by_ref().zip(tokens.by_ref()).take(piece.inputs.len());
        let fetched = mine.map(|(vector, tokens)| Fetched { vector, tokens, call: Arc::clone(&call) }).collect();
        piece.send(Ok(fetched));
    }
}

/// What each input cost. A call tells only the sum.
fn token_shares(inputs: &[&Input<'_>], answer: &ReadAnswer) -> Vec<Option<u32>> {
    match (inputs, answer.prompt_tokens) {
        ([_], Some(total)) => vec![u32::try_from(total).ok()],
        ([Input::Tokens(_), ..], _) => inputs.iter().map(|input| Some(input.counted_tokens())).collect(),
        (_, Some(total)) => {
            let weights: Vec<usize> = inputs.iter().map(|input| input.estimated_tokens()).collect();
            tokens::apportion(total, &weights).into_iter().map(Some).collect()
        }
        (_, None) => vec![None; inputs.len()],
    }
}

fn fail(batch: Vec<Piece>, failure: Failure) {
    let failure = Arc::new(failure);
    for piece in batch {
        piece.send(Err(Arc::clone(&failure)));
    }
}

impl Piece {
    fn send(self, result: Result<Vec<Fetched>, Arc<Failure>>) {
        let places = self.first_place..self.first_place + self.inputs.len();
        // Who submitted the piece stays until every portion has come; if it is gone, the process is stopping.
        drop(self.results.send(Portion { places, inputs: self.inputs, result }));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

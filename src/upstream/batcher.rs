//! Packs misses into calls. A lane holds the misses that may share one: same space, same credential.
//!
//! There is no timer. Each piece of work brings a worker that waits for a permit and then takes whatever its lane
//! holds, up to the limits of a call. So an idle proxy adds no wait, and a busy one sends few, full calls. The first
//! worker of a submission is its submitter itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::caller::{Answered, Question, Terms};
use super::error::TooLarge;
use super::learned::LearnedLimits;
use super::portion::{Asker, CallLimits, Piece, Portion, cut, estimated_tokens, fail, halve, hand_out};
use super::room::{Room, Share};
use super::turn::Turn;
use super::{Caller, Failure, Why};
use crate::config::Live;
use crate::key::{Key, KeyMap};
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use crate::wire::Input;

/// Where a miss queues. Two misses share a call only when their lanes have the same id.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The hash of everything that has to be equal inside one call.
    pub id: Key,
    /// That everything.
    pub terms: Arc<Terms>,
}

/// The queue of one lane; it exists while something is in it.
struct Queue {
    terms: Arc<Terms>,
    pieces: VecDeque<Piece>,
}

/// The lanes and the permits. Used by `Arc`.
pub struct Batcher {
    caller: Caller,
    permits: Arc<Semaphore>,
    queues: Mutex<KeyMap<Queue>>,
    learned: LearnedLimits,
    /// Bounds the memory of answers under way.
    room: Arc<Room>,
    live: Live,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// A batcher without work. Answers under way may take a quarter of `memory_bytes`.
    pub fn new(caller: Caller, live: Live, memory_bytes: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(live.load().upstream.max_concurrent));
        let room = Room::new(memory_bytes / 4);
        let (queues, learned, tasks) = (Mutex::default(), LearnedLimits::default(), Tasks::new());
        Arc::new(Self { caller, permits, queues, learned, room, live, tasks, metrics })
    }

    /// Queues inputs, all of one kind; the results come in portions that together cover every place once. The work that
    /// is returned has to be done to its end beside waiting for them, since others' inputs may be in it.
    pub fn submit(
        self: &Arc<Self>,
        lane: &Lane,
        inputs: Vec<Input<'static>>,
        asker: &Asker,
    ) -> (mpsc::UnboundedReceiver<Portion>, impl Future<Output = ()> + Send + 'static) {
        let (results, portions) = mpsc::unbounded_channel();
        self.metrics.upstream_queued_inputs.add(inputs.len());
        let pieces = cut(inputs, self.limits(&lane.id), |first_place, inputs| Piece {
            first_place,
            queued: asker.trace.queue(inputs.len()),
            inputs,
            deadline: asker.deadline,
            trace: asker.trace.clone(),
            results: results.clone(),
        });
        let workers = pieces.len();
        self.enqueue(lane, pieces);
        for _ in 1..workers {
            self.tasks.spawn(Arc::clone(self).work(lane.id));
        }
        (portions, Arc::clone(self).work(lane.id))
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
        let Some((terms, mut batch)) = self.take(&id) else {
            return;
        };
        batch.iter_mut().for_each(Piece::leave_queue);
        self.metrics.upstream_queued_inputs.sub(batch.iter().map(|piece| piece.inputs.len()).sum());
        self.call(id, terms, batch, turn).await;
    }

    /// Takes the head of a lane and what still fits beside it, and drops what has waited too long.
    fn take(&self, id: &Key) -> Option<(Arc<Terms>, Vec<Piece>)> {
        let (limits, now) = (self.limits(id), Instant::now());
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(id)?;
        let (terms, mut batch, mut expired) = (Arc::clone(&queue.terms), Vec::new(), Vec::new());
        let (mut inputs, mut tokens) = (0, 0);
        while let Some(piece) = queue.pieces.front() {
            if piece.deadline <= now {
                expired.extend(queue.pieces.pop_front());
                continue;
            }
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
        drop(queues);
        if !expired.is_empty() {
            self.give_up(expired);
        }
        (!batch.is_empty()).then_some((terms, batch))
    }

    /// Nobody waits for these any more; that says nothing about the upstream.
    fn give_up(&self, expired: Vec<Piece>) {
        let inputs: usize = expired.iter().map(|piece| piece.inputs.len()).sum();
        self.metrics.upstream_queued_inputs.sub(inputs);
        fail(expired, Failure::unavailable(Why::Expired, "the request's time was over before its turn came"));
    }

    /// Makes one call and hands out what came of it; a call that was too large is halved, one that was refused
    /// because of one of several requests is made again for each of them.
    async fn call(self: Arc<Self>, id: Key, terms: Arc<Terms>, batch: Vec<Piece>, mut turn: Turn) {
        let under_way = self.metrics.upstream_in_flight.enter();
        let share = self.make_room(&terms, &batch).await;
        let result = self.ask(&terms, &batch, (&mut turn, &share)).await;
        drop((under_way, share));
        let failure = match result {
            Ok(answered) => return hand_out(batch, answered),
            Err(failure) => failure,
        };
        let inputs: usize = batch.iter().map(|piece| piece.inputs.len()).sum();
        if let Some(of_what) = failure.too_large_by().filter(|_| inputs > 1) {
            if of_what == TooLarge::Inputs {
                self.learned.note(id, inputs.div_ceil(2));
            }
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

    async fn ask(
        &self,
        terms: &Terms,
        batch: &[Piece],
        (turn, share): (&mut Turn, &Share),
    ) -> Result<Answered, Failure> {
        let question = Question {
            inputs: batch.iter().flat_map(|piece| &piece.inputs).collect(),
            requests: batch.len(),
            traces: batch.iter().map(|piece| &piece.trace).filter(|trace| trace.is_known()).collect(),
            deadlines: batch.iter().map(|piece| piece.deadline).collect(),
            share,
        };
        self.caller.ask(terms, &question, turn).await
    }

    /// Waits until the answer to a call has room beside the others under way, as large as it is likely to be.
    async fn make_room(&self, terms: &Terms, batch: &[Piece]) -> Share {
        let inputs: usize = batch.iter().map(|piece| piece.inputs.len()).sum();
        self.room.take((inputs * terms.answer_bytes()) as u64).await
    }

    fn limits(&self, id: &Key) -> CallLimits {
        let config = self.live.load();
        let max_inputs = config.batch.max_inputs.min(self.learned.of(id)).max(1);
        CallLimits { max_inputs, max_tokens: config.batch.max_tokens }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

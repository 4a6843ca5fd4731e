//! Packs misses into calls. A lane holds the misses that may share one: same space, same credential.
//!
//! There is no timer. Each piece of work brings a worker, which waits for a permit and then takes as much from its lane
//! as a call may carry. So an idle proxy adds no wait, and a busy one sends few, full calls. The first worker of a
//! submission is the submitting future itself. A request that is larger than a call is cut when it is taken, so each
//! part has the size that is right at that time. The worker that cut it continues with the rest. As long as inputs of a
//! submission wait, one of its workers does; a worker whose inputs share the call of another one ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::call::Call;
use super::job::{BodyForm, CallJob, body_for, content_of};
use super::lane_queue::LaneQueue;
use super::lane_worker::{HastenedSubmission, Hastening, LaneWorker, NoTurn};
use super::memory_budget::MemoryBudget;
use super::pacing::PaceTurn;
use super::permit::{CallPermit, Claim, Permits};
use super::piece::{Missing, Piece, Report, Submission, Waiter, fail};
use super::sizing::{CallBounds, PartTurn, Sizes};
use super::{Answered, Failure, LaneProperties, Router, UnavailableReason};
use crate::config::{Live, Priority};
use crate::key::{Key, KeyMap};
use crate::observe::metrics::Metrics;
use crate::process::shared_fields::SharedFields;
use crate::process::tasks::Tasks;
use crate::wire::Space;

/// Lane in which a miss waits. Two misses share a call only if their lanes have the same id.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Hash of everything that must be equal within one call.
    pub id: Key,
    /// Lanes with the same hash here learn together how large and how many calls may be. It differs from the id if
    /// several tokens have one owner.
    pub learns_as: Key,
    /// The values behind the hash, which every call of the lane is made from.
    pub properties: Arc<LaneProperties>,
}

/// The lanes and the permits. Used by `Arc`.
pub struct Batcher {
    pub(super) router: Router,
    pub(super) permits: Arc<Permits>,
    pub(super) queues: Mutex<KeyMap<LaneQueue>>,
    /// Number of submissions, each of which has its number as its ticket.
    submissions: AtomicU64,
    sizes: Sizes,
    /// Limits the memory of answers under way.
    budget: Arc<MemoryBudget>,
    pub(super) live: Live,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
}

/// Work that a worker took from its lane.
struct Taken {
    job: CallJob,
    /// True if the rest of a cut request is left in the lane, and another worker may send it at the same time.
    another_may_take_rest: bool,
    /// True if such a rest is left, and this worker must send it next.
    must_take_rest: bool,
}

/// Work for one lane that has not begun. Its future takes kilobytes, so it is created where it is polled and not moved.
#[must_use = "the inputs are fetched by it"]
pub struct Work {
    batcher: Arc<Batcher>,
    worker: LaneWorker,
}

impl Work {
    /// Returns the number of the submission.
    pub const fn submission(&self) -> Submission {
        self.worker.ticket
    }

    /// Makes the calls.
    pub async fn run(self) {
        self.batcher.work(self.worker).await;
    }
}

impl Batcher {
    /// Creates a batcher without work. Answers under way may take `budget_bytes`.
    pub fn new(router: Router, live: Live, budget_bytes: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        let permits = Permits::new(live.load().upstream.max_concurrent);
        let budget = MemoryBudget::new(budget_bytes);
        let (queues, sizes, tasks) = (Mutex::default(), Sizes::default(), Tasks::new());
        Arc::new(Self { router, permits, queues, submissions: AtomicU64::new(0), sizes, budget, live, tasks, metrics })
    }

    /// Returns the memory that all answers under way may take together, in bytes.
    pub fn answer_bytes(&self) -> u64 {
        self.budget.total()
    }

    /// Returns the places where calls are made.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// Divides the configured rate limits among the replicas that reach a store.
    pub async fn share_pace(self: Arc<Self>, store: Arc<dyn SharedFields>) {
        self.router.share_pace(store).await;
    }

    /// Returns the longest duration of the recent calls of a lane, if any is known.
    pub fn recent_call_time(&self, lane: &Lane) -> Option<Duration> {
        self.sizes.of(lane.learns_as).recent_call_time()
    }

    /// Returns true if the host or the space counts as unavailable, so vecho makes no calls of its own.
    pub fn is_unavailable(&self, properties: &LaneProperties) -> bool {
        self.router.is_unavailable(properties, &self.live.load())
    }

    /// Queues inputs, all of one kind. The results arrive piece by piece and together cover every place once. The
    /// caller must do the returned work to its end while it waits, since it may serve inputs of other requests.
    pub fn submit(
        self: &Arc<Self>,
        lane: &Lane,
        missing: Missing,
        waiter: Waiter,
    ) -> (mpsc::UnboundedReceiver<Report>, Work) {
        let (results, reports) = mpsc::unbounded_channel();
        let inputs = missing.inputs.len();
        // Counted from here until `out_of_queue` or `give_up`.
        self.metrics.upstream.queued_inputs.add(inputs);
        let queued = waiter.trace.queue(inputs);
        let claim = Claim { caller: waiter.caller, model: lane.properties.model, priority: waiter.priority };
        let (ticket, deadline) = (self.submissions.fetch_add(1, Ordering::Relaxed), waiter.deadline);
        let left = Arc::new(Notify::new());
        let piece = Piece { ticket, first_place: 0, missing, waiter, queued, left: Arc::clone(&left), results };
        let properties = Arc::clone(&lane.properties);
        let tokens = piece.load().tokens;
        let worker = LaneWorker { lane: lane.id, properties, claim, ticket, tokens, deadline, left, hastens: None };
        // The piece is queued before its worker starts, so a worker that already has a permit can merge it.
        self.enqueue(lane, piece);
        (reports, Work { batcher: Arc::clone(self), worker })
    }

    /// Adds an interactive worker to a submission of another request, for a request that waits for it, at most until
    /// `deadline`. Returns `None` if none of its inputs wait in the lane.
    pub fn hasten(
        self: &Arc<Self>,
        lane: &Lane,
        submission: Submission,
        deadline: Instant,
    ) -> Option<HastenedSubmission> {
        let (caller, tokens, left) = {
            let queues = lock(&self.queues);
            let piece = queues.get(&lane.id)?.pieces.iter().find(|piece| piece.ticket == submission)?;
            (piece.waiter.caller, piece.load().tokens, Arc::clone(&piece.left))
        };
        let claim = Claim { caller, model: lane.properties.model, priority: Priority::Interactive };
        let (hastened, hastens) = HastenedSubmission::new();
        let (properties, hastens) = (Arc::clone(&lane.properties), Some(hastens));
        let (lane, ticket) = (lane.id, submission);
        let worker = LaneWorker { lane, properties, claim, ticket, tokens, deadline, left, hastens };
        self.spawn_worker(worker);
        Some(hastened)
    }

    fn enqueue(&self, lane: &Lane, piece: Piece) {
        let size = self.sizes.of(lane.learns_as);
        let mut queues = lock(&self.queues);
        let queue = queues.entry(lane.id).or_insert_with(|| LaneQueue {
            size,
            properties: Arc::clone(&lane.properties),
            pieces: VecDeque::new(),
        });
        queue.pieces.push_back(piece);
    }

    /// Waits for a permit and makes the next call of a lane, if an earlier worker left any work. Continues with the
    /// rest of a request that it had to cut.
    async fn work(self: Arc<Self>, mut worker: LaneWorker) {
        loop {
            // The turn and the permit come before the inputs: those that arrive during the wait share the call.
            let turn = match self.turn(&worker).await {
                Ok(turn) => turn,
                // A hastened submission has a worker of its own.
                Err(NoTurn::Late(wait)) if worker.hastens.is_none() => return self.refuse(&worker, wait),
                Err(_) => return,
            };
            let mut permit = self.permits.take(worker.claim).await;
            // The wait for a permit may be long.
            if turn.as_ref().is_some_and(PaceTurn::is_held_back) {
                continue;
            }
            permit.set_turn(turn);
            let room = permit.room().min(self.router.largest_call(&worker.properties, worker.order()));
            let Some(taken) = self.take(&worker, room) else { return };
            let Taken { job, another_may_take_rest, must_take_rest } = taken;
            if another_may_take_rest || must_take_rest {
                worker.tokens = worker.tokens.saturating_sub(job.load().tokens);
            }
            // The other worker sends the rest beside this call, and waits for a permit of its own.
            if another_may_take_rest && worker.hastens.is_none() {
                self.spawn_worker(worker.clone());
            }
            // Counts the part until its call ends; `take` compares the count with the width of the lane.
            let _part = job.is_part.then(|| Arc::clone(&job.lane).enter_part());
            // Boxed, because many workers wait for a permit, and each would hold the memory of a call.
            Box::pin(self.call(job, permit)).await;
            if !must_take_rest && worker.hastens.is_none() {
                return;
            }
        }
    }

    fn spawn_worker(self: &Arc<Self>, worker: LaneWorker) {
        // Boxed because a worker may spawn another one.
        let work: futures_util::future::BoxFuture<'static, ()> = Box::pin(Arc::clone(self).work(worker));
        self.tasks.spawn(work);
    }

    /// Returns the limits of the next call of a lane, which has room for this many tokens.
    pub(super) fn bounds(&self, queue: &LaneQueue, room: usize) -> CallBounds {
        let bounds = queue.size.bounds(&self.live.load().batch, queue.properties.is_known);
        CallBounds { max_tokens: bounds.max_tokens.min(room), ..bounds }
    }

    /// Takes the inputs of the worker's next call, which has room for this many tokens. Drops pieces that have waited
    /// too long.
    fn take(&self, worker: &LaneWorker, room: usize) -> Option<Taken> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(&worker.lane)?;
        let is_wanted = worker.hastens.as_ref().is_none_or(Hastening::is_wanted);
        if !is_wanted || !queue.has(worker.ticket) {
            return None;
        }
        let (lane, properties) = (Arc::clone(&queue.size), Arc::clone(&queue.properties));
        let (bounds, mut expired) = (self.bounds(queue, room), Vec::new());
        let (batch, is_cut) = queue.take(worker.ticket, &bounds, (Instant::now(), &mut expired));
        if queue.pieces.is_empty() {
            queues.remove(&worker.lane);
        }
        // The lock protects the queues only, so expired pieces are failed after it.
        drop(queues);
        self.give_up(expired);
        if batch.is_empty() {
            return None;
        }
        // The last part of a cut request fits whole. Its first place shows that other parts preceded it.
        let is_part = is_cut || batch.iter().any(|piece| piece.first_place > 0);
        // The added one is this part, which `work` counts later.
        let another_may_take_rest = is_cut && lane.parts() + 1 < bounds.width;
        let attempts = self.live.load().retry.max_attempts;
        let job = CallJob { id: worker.lane, properties, lane, batch, is_part, attempts };
        let must_take_rest = is_cut && !another_may_take_rest;
        Some(Taken { job: self.out_of_queue(job), another_may_take_rest, must_take_rest })
    }

    fn out_of_queue(&self, mut job: CallJob) -> CallJob {
        job.batch.iter_mut().for_each(Piece::leave_queue);
        self.metrics.upstream.queued_inputs.sub(job.batch.iter().map(|piece| piece.inputs().len()).sum());
        job
    }

    /// Fails pieces that no request waits for any more. This proves nothing about the upstream.
    fn give_up(&self, expired: Vec<Piece>) {
        if !expired.is_empty() {
            let detail = "the request's time was over before its turn came";
            self.fail_queued(expired, Failure::unavailable(UnavailableReason::Expired, detail));
        }
    }

    pub(super) fn fail_queued(&self, mut pieces: Vec<Piece>, failure: Failure) {
        pieces.iter_mut().for_each(Piece::leave_queue);
        let inputs: usize = pieces.iter().map(|piece| piece.inputs().len()).sum();
        self.metrics.upstream.queued_inputs.sub(inputs);
        fail(pieces, failure);
    }

    /// Makes the call of a job in one of its two forms.
    pub(super) async fn make(
        &self,
        job: &CallJob,
        form: BodyForm,
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        let _counted = self.metrics.upstream.in_flight.enter();
        let (lane, load, is_part) = (&*job.lane, job.load(), job.is_part);
        // The turn is taken before the memory below. In the other order, the holder of a turn could wait for memory
        // that is held here: a deadlock.
        let mut turn = if is_part { Some(lane.turn(permit).await) } else { None };
        // A part that waits for its turn is not in flight, so it does not distort the measured load.
        let under_way = lane.enter();
        // Waits until an answer of the expected size fits in memory beside the others under way.
        let reservation =
            self.budget.take((load.inputs * job.properties.answer_bytes()) as u64, job.claim().caller).await;
        let (batch, attempts) = (&*job.batch, job.attempts);
        let (body, inputs, encoding, has_repetitions) = content_of(job, form);
        let written = &|space: &Space, encoding| body_for(job, form, (space, encoding));
        let reservation = &reservation;
        let mut call = Call {
            body,
            inputs,
            encoding,
            has_repetitions,
            batch,
            lane,
            reservation,
            attempts,
            waits: true,
            is_part,
            written,
        };
        // A part beside other calls gets one attempt, because its next one is sent alone.
        let is_beside = matches!(turn, Some(PartTurn::BesideOthers { .. })) && lane.is_busy();
        call.attempts = if is_beside { 1 } else { attempts };
        let mut made = self.router.execute(&job.properties, &call, permit).await;
        if is_beside && made.as_ref().is_err_and(Failure::may_be_of_the_load) {
            // The server may accept only one call at a time, or be overloaded.
            lane.take_turns();
            // The shared turn ends before an exclusive one is requested, or this part would wait for itself.
            // Memory is released too, because the turn comes before the memory, as above.
            drop(turn.take());
            reservation.give_up();
            turn = Some(lane.turn(permit).await);
            reservation.take_again().await;
            call.attempts = attempts;
            made = self.router.execute(&job.properties, &call, permit).await;
        }
        drop(turn);
        if let Ok(answered) = &made {
            let target = self.live.load().batch.target_time;
            lane.answered(load, answered.took, target, &under_way);
            if is_part {
                lane.part_answered(load.inputs, answered.took);
            }
        }
        made.map_err(|failure| Failure { is_own: form == BodyForm::Own, ..failure })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One call, and the calls that replace it when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::TooLarge;
use super::job::{BodyForm, CallJob};
use super::permit::CallPermit;
use super::piece::{Piece, fail, halve, hand_out, hand_out_own};
use super::sizing::LaneSize;
use super::{Answered, Batcher, Class, Failure};

/// Maximum number of times that a refused request is halved.
const MOST_HALVINGS: u32 = 4;

/// The same limit for tokens. It exceeds the maximum of one input.
const MANY_TOKENS: usize = 8_192;

/// From this number of inputs on, a refusal without a stated cause may be about their number.
const MANY_INPUTS: usize = 64;

/// The calls that replace a failed one. Their results together reveal the cause of the failure.
struct ReplacementCalls {
    lane: Arc<LaneSize>,
    of: Replaced,
    open: AtomicUsize,
    has_failed: AtomicBool,
}

/// A failed call that is replaced by smaller ones.
#[derive(Clone, Copy)]
enum Replaced {
    /// It merged several requests with this many inputs in total.
    Merged(usize),
    /// Its size was refused, and each half has this many inputs.
    TooMany(usize),
    /// It had too many tokens or bytes, which proves nothing about the number of inputs.
    TooLarge,
}

impl ReplacementCalls {
    fn new(lane: &Arc<LaneSize>, of: Replaced, calls: usize) -> Arc<Self> {
        let (open, has_failed) = (AtomicUsize::new(calls), AtomicBool::new(false));
        Arc::new(Self { lane: Arc::clone(lane), of, open, has_failed })
    }

    fn ended(&self, is_well: bool) {
        if !is_well {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        // `AcqRel` makes the failures of all earlier calls visible to the last one.
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let all_well = !self.has_failed.load(Ordering::Relaxed);
        match self.of {
            Replaced::Merged(inputs) => self.lane.merge_failed(inputs, all_well),
            // A refusal of one text may be worded as if it concerned all.
            Replaced::TooMany(half) if all_well => self.lane.refused_above(half),
            Replaced::TooMany(_) | Replaced::TooLarge => {}
        }
    }
}

impl Batcher {
    /// Makes one call and distributes its results. Returns true if all of it was answered.
    pub(super) async fn call(self: &Arc<Self>, job: CallJob, mut permit: CallPermit) -> bool {
        let bounds = job.lane.bounds(&self.live.load().batch, job.properties.is_known);
        let form = job.form(bounds.own_only);
        match self.make(&job, form, &mut permit).await {
            Ok(answered) => {
                answer(job.batch, form, answered);
                true
            }
            Err(failure) => self.after_failure(job, failure, permit).await,
        }
    }

    async fn after_failure(self: &Arc<Self>, job: CallJob, failure: Failure, permit: CallPermit) -> bool {
        let load = job.load();
        // The size or the rate limit was exceeded, so halves may succeed. A single input cannot be halved.
        if let Some(of_what) = failure.too_large_by().filter(|_| load.inputs > 1) {
            self.metrics.upstream.splits.inc();
            // Each half waits for a permit of its own.
            drop(permit);
            self.call_halves(job, of_what);
            false
        } else if job.batch.len() > 1 && failure.is_of_the_merge() {
            // One request, or the load, may be the cause, so each request is sent separately.
            self.metrics.upstream.isolations.inc();
            drop(permit);
            self.isolate(job);
            false
        } else if job.batch.len() > 1 {
            // The cause concerns all requests alike, such as a failed connection or an unknown credential.
            fail(job.batch, failure);
            false
        } else {
            self.after_own_failure(job, failure, permit).await
        }
    }

    /// Handles the failure of a call for one request. The caller's own request is the last resort.
    async fn after_own_failure(self: &Arc<Self>, mut job: CallJob, failure: Failure, mut permit: CallPermit) -> bool {
        let Some(piece) = job.batch.pop() else { return true };
        let load = piece.load();
        let limit = job.lane.accepted_inputs();
        // A refusal of the caller's own bytes is final, unless their size may be the cause.
        if failure.is_own {
            let is_large = load.inputs >= MANY_INPUTS || load.tokens > MANY_TOKENS;
            let may_be_size = failure.outage.is_none() && failure.may_be_of_the_size() && !job.lane.has_passed(load);
            if load.inputs > 1 && is_large && may_be_size {
                return self.divide(job.with(vec![piece]), failure, &mut permit).await;
            }
        } else if job.should_retry_as_original(&piece, (&failure, limit)) {
            return self.retry_as_original(job.with(vec![piece]), failure, &mut permit).await;
        }
        fail(vec![piece], failure);
        false
    }

    /// Sends the caller's own request, once for all of its pieces, and uses its answer.
    async fn retry_as_original(&self, mut job: CallJob, failure: Failure, permit: &mut CallPermit) -> bool {
        job.attempts = 1;
        let own = Arc::clone(&job.batch[0].missing.own);
        // The holder of the lock may have to wait for a permit, so this permit is given back while
        // waiting for the lock.
        let mut result = match own.original_request_result.try_lock() {
            Ok(result) => result,
            Err(_) => permit.aside(own.original_request_result.lock()).await,
        };
        // Another piece of the same request may have sent it during the wait for the lock.
        let answer = match result.clone() {
            Some(answer) => answer,
            None => result.insert(self.make(&job, BodyForm::Own, permit).await.map(Arc::new)).clone(),
        };
        drop(result);
        let Some(piece) = job.batch.pop() else { return true };
        match answer {
            Ok(answered) => {
                // If the first call failed at the server, this success proves nothing about the form.
                if matches!(failure.class, Class::Refused | Class::InvalidAnswer(..)) {
                    job.lane.prefer_own();
                }
                hand_out_own(piece, &answered);
                true
            }
            Err(failure) => {
                fail(vec![piece], failure);
                false
            }
        }
    }

    /// Sends a refused request in smaller parts, since it may have been refused for its size. Otherwise the caller gets
    /// the refusal of its own bytes.
    async fn divide(&self, mut job: CallJob, refusal: Failure, permit: &mut CallPermit) -> bool {
        let Some(mut piece) = job.batch.pop() else { return true };
        let (mut limit, mut halvings, mut has_passed) = (piece.inputs().len().div_ceil(2), 1, false);
        job.attempts = 1;
        self.metrics.upstream.splits.inc();
        loop {
            let rest = (piece.inputs().len() > limit).then(|| piece.split_off(limit));
            let part = job.with(vec![piece]);
            match self.make(&part, BodyForm::Written, permit).await {
                Ok(answered) => {
                    has_passed = true;
                    hand_out(part.batch, answered);
                    let Some(rest) = rest else {
                        // All parts were answered, so the size was the cause.
                        job.lane.refused_above(limit);
                        return true;
                    };
                    piece = rest;
                }
                Err(failure) => {
                    let Some(first) = part.batch.into_iter().next() else { return false };
                    piece = first;
                    // The next round cuts the same inputs again, into smaller parts.
                    if let Some(rest) = rest {
                        piece.rejoin(rest);
                    }
                    // After a part of this size was answered, smaller parts would not help either.
                    if has_passed || limit == 1 || halvings == MOST_HALVINGS || !failure.may_be_of_the_size() {
                        fail(vec![piece], refusal);
                        return false;
                    }
                    (limit, halvings) = (limit.div_ceil(2), halvings + 1);
                }
            }
        }
    }

    fn call_halves(self: &Arc<Self>, mut job: CallJob, of_what: TooLarge) {
        let half = job.load().inputs.div_ceil(2);
        let of = match of_what {
            TooLarge::Inputs => Replaced::TooMany(half),
            TooLarge::Size if job.batch.len() > 1 => Replaced::Merged(job.load().inputs),
            TooLarge::Size => Replaced::TooLarge,
        };
        let (batch, replacements) = (std::mem::take(&mut job.batch), ReplacementCalls::new(&job.lane, of, 2));
        for half in halve(batch) {
            self.call_apart(job.with(half), Arc::clone(&replacements));
        }
    }

    /// Sends each request of a merged call separately.
    fn isolate(self: &Arc<Self>, mut job: CallJob) {
        let inputs = job.load().inputs;
        let batch = std::mem::take(&mut job.batch);
        let replacements = ReplacementCalls::new(&job.lane, Replaced::Merged(inputs), batch.len());
        // The merged call counts as the first attempt of each.
        job.attempts = (job.attempts - 1).max(1);
        for piece in batch {
            self.call_apart(job.with(vec![piece]), Arc::clone(&replacements));
        }
    }

    fn call_apart(self: &Arc<Self>, job: CallJob, replacements: Arc<ReplacementCalls>) {
        let batcher = Arc::clone(self);
        self.tasks.spawn(async move {
            let permit = batcher.permits.take(job.claim()).await;
            // Boxed because a call may lead to further calls.
            replacements.ended(Box::pin(batcher.call(job, permit)).await);
        });
    }
}

fn answer(batch: Vec<Piece>, form: BodyForm, answered: Answered) {
    match form {
        BodyForm::Written => hand_out(batch, answered),
        BodyForm::Own => batch.into_iter().for_each(|piece| hand_out_own(piece, &answered)),
    }
}

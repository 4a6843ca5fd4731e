//! Counts the tokens of texts if no call reported them. The tables for that take memory which is never freed again. So
//! memory is made available before they are loaded. If that fails, tokens are estimated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::process::governor::Governor;
use crate::wire::{Input, tokens};

/// Memory of the tables and of the thread that counts, including what loading them takes temporarily.
const TABLE_BYTES: u64 = 20 << 20;

/// Denominator of the largest fraction of the memory limit that the tables may take. Requests under way need the rest.
const LARGEST_SHARE: u64 = 4;

/// After a refusal, memory is not requested again for this long.
const ASK_AGAIN_AFTER_MS: u64 = 60_000;

/// Longest wait for the counts of others, if the count is for usage alone. Beyond it the tokens are estimated, so that the
/// long texts of one caller do not hold up the hits of another.
const TURN_WITHIN: Duration = Duration::from_secs(1);

/// Tokenizer with tables that are loaded on demand. One thread counts, because each thread that counts keeps recent
/// words, and so that long texts delay no connection.
#[derive(Debug)]
pub struct Tokenizer {
    jobs: Mutex<Option<mpsc::Sender<CountJob>>>,
    /// Held by the request whose inputs are counted. The others wait without copies of their inputs.
    turn: Arc<Semaphore>,
    tables: Arc<Tables>,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self { jobs: Mutex::default(), turn: Arc::new(Semaphore::new(1)), tables: Arc::default() }
    }
}

/// The tables, and the memory for them.
#[derive(Debug, Default)]
struct Tables {
    is_loaded: AtomicBool,
    no_room_until_ms: AtomicU64,
    governor: OnceLock<Weak<Governor>>,
}

/// Reason why inputs were not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// The tables do not fit in memory, or the machine has no thread left.
    NoRoom,
    /// Other requests were measured for too long.
    Late,
}

/// Measures one input with the tables.
type Measure = fn(&Input<'_>) -> u32;

fn counted_tokens(input: &Input<'_>) -> u32 {
    input.counted_tokens()
}

fn allowed_len(input: &Input<'_>) -> u32 {
    input.allowed_len()
}

/// Inputs to measure.
#[derive(Debug)]
struct CountJob {
    inputs: Vec<Input<'static>>,
    measure: Measure,
    now_ms: u64,
    tell: oneshot::Sender<Option<Vec<u32>>>,
    /// Returned when the inputs are dropped, even if the request has gone away before.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Tokenizer {
    /// Registers the governor, which is asked for memory from now on. Without a governor there is always enough.
    pub fn set_governor(&self, governor: &Arc<Governor>) {
        // There is one governor, so a second call changes nothing.
        let _ = self.tables.governor.set(Arc::downgrade(governor));
    }

    /// Returns the tokens of each input, or `None` if the tables do not fit in memory or other requests are counted for
    /// too long.
    pub async fn count(&self, inputs: &[&Input<'_>], now_ms: u64) -> Option<Vec<u32>> {
        self.measure(inputs, (counted_tokens, now_ms), Instant::now() + TURN_WITHIN).await.ok()
    }

    /// Returns [`Input::allowed_len`] of each input. Waits for other requests until the deadline: a guess would send an
    /// input that must not be sent.
    pub async fn allowed_lens(
        &self,
        inputs: &[&Input<'_>],
        now_ms: u64,
        deadline: Instant,
    ) -> Result<Vec<u32>, Unmeasured> {
        let measured = self.measure(inputs, (allowed_len, now_ms), deadline);
        timeout_at(deadline, measured).await.unwrap_or(Err(Unmeasured::Late))
    }

    async fn measure(
        &self,
        inputs: &[&Input<'_>],
        (measure, now_ms): (Measure, u64),
        turn_until: Instant,
    ) -> Result<Vec<u32>, Unmeasured> {
        // Token arrays have their length, which needs neither the tables nor a turn.
        if inputs.iter().all(|input| matches!(input, Input::Tokens(_))) {
            return Ok(inputs.iter().map(|input| measure(input)).collect());
        }
        let turn =
            timeout_at(turn_until, Arc::clone(&self.turn).acquire_owned()).await.map_err(|_| Unmeasured::Late)?;
        let turn = turn.expect("the semaphore must stay open");
        let inputs = inputs.iter().map(|input| input.to_owned_input()).collect();
        let measured = self.submit((inputs, measure), now_ms, Some(turn)).ok_or(Unmeasured::NoRoom)?;
        measured.await.ok().flatten().ok_or(Unmeasured::NoRoom)
    }

    /// Like [`Tokenizer::count`], for threads that may block.
    pub fn count_blocking(&self, inputs: Vec<Input<'static>>, now_ms: u64) -> Option<Vec<u32>> {
        self.submit((inputs, counted_tokens), now_ms, None)?.blocking_recv().ok().flatten()
    }

    /// Hands inputs to the thread. Returns `None` if the machine has no thread left.
    fn submit(
        &self,
        (inputs, measure): (Vec<Input<'static>>, Measure),
        now_ms: u64,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Option<oneshot::Receiver<Option<Vec<u32>>>> {
        let (tell, told) = oneshot::channel();
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_none() {
            *jobs = self.start();
        }
        // A thread that has panicked takes nothing any more; the next call starts another one.
        if jobs.as_ref()?.send(CountJob { inputs, measure, now_ms, tell, _turn: turn }).is_err() {
            *jobs = None;
        }
        Some(told)
    }

    /// Starts the thread. It ends when the tokenizer is dropped.
    fn start(&self) -> Option<mpsc::Sender<CountJob>> {
        let ((jobs, queue), tables) = (mpsc::channel::<CountJob>(), Arc::clone(&self.tables));
        let work = move || {
            for job in queue {
                // A request that has gone away needs no counts.
                if !job.tell.is_closed() {
                    let _ = job.tell.send(tables.measure(&job.inputs, job.measure, job.now_ms));
                }
            }
        };
        thread::Builder::new().name("vecho-tokenizer".to_owned()).spawn(work).ok().map(|_| jobs)
    }
}

impl Tables {
    fn measure(&self, inputs: &[Input<'_>], measure: Measure, now_ms: u64) -> Option<Vec<u32>> {
        let has_texts = inputs.iter().any(|input| matches!(input, Input::Text(_)));
        // A single thread counts, so the flag needs no stronger ordering.
        if has_texts && !self.is_loaded.load(Ordering::Relaxed) {
            if !self.has_room(now_ms) {
                return None;
            }
            tokens::load();
            self.is_loaded.store(true, Ordering::Relaxed);
        }
        Some(inputs.iter().map(measure).collect())
    }

    fn has_room(&self, now_ms: u64) -> bool {
        if now_ms < self.no_room_until_ms.load(Ordering::Relaxed) {
            return false;
        }
        let governor = self.governor.get().and_then(Weak::upgrade);
        let may_take = |governor: &Governor| governor.status().limit_bytes / LARGEST_SHARE >= TABLE_BYTES;
        let has_room = governor.is_none_or(|governor| may_take(&governor) && governor.make_room(TABLE_BYTES));
        if !has_room {
            let before = self.no_room_until_ms.swap(now_ms.saturating_add(ASK_AGAIN_AFTER_MS), Ordering::Relaxed);
            // Zero means that no earlier refusal was logged.
            if before == 0 {
                tracing::warn!(
                    table_bytes = TABLE_BYTES,
                    "memory.limit_mb leaves no room for the tokenizer's tables; the tokens of hits are estimated, and \
                     limits.long_input has no effect on texts"
                );
            }
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;
    use crate::process::governor::Meter;

    /// Meter of a process of fixed size; it counts its queries.
    struct Fixed(u64, AtomicU64);

    impl Meter for Fixed {
        fn resident_bytes(&self) -> u64 {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0
        }

        fn give_back(&self) {}
    }

    fn governed(resident_mb: u64) -> (Tokenizer, Arc<Governor>, Arc<Fixed>) {
        let meter = Arc::new(Fixed(resident_mb << 20, AtomicU64::new(0)));
        let governor = Arc::new(Governor::new(Arc::<Fixed>::clone(&meter), 128 << 20, Vec::new()));
        let tokenizer = Tokenizer::default();
        tokenizer.set_governor(&governor);
        (tokenizer, governor, meter)
    }

    fn is_loaded(tokenizer: &Tokenizer) -> bool {
        tokenizer.tables.is_loaded.load(Ordering::Relaxed)
    }

    #[test]
    fn texts_are_counted_if_the_tables_fit_and_token_arrays_always() {
        let (text, tokens) = (Input::Text("Hello world".into()), Input::Tokens(vec![1, 2, 3]));
        let (tokenizer, _governor, _) = governed(50);
        assert_eq!(tokenizer.count_blocking(vec![text], 1), Some(vec![2]));
        assert!(is_loaded(&tokenizer));
        let (tokenizer, _governor, _) = governed(110);
        assert_eq!(tokenizer.count_blocking(vec![tokens], 1), Some(vec![3]));
        assert!(!is_loaded(&tokenizer));
    }

    #[test]
    fn missing_memory_is_requested_once_a_minute() {
        let (tokenizer, _governor, meter) = governed(110);
        let count = |now_ms| tokenizer.count_blocking(vec![Input::Text("Hello world".into())], now_ms);
        assert_eq!((count(1), count(ASK_AGAIN_AFTER_MS)), (None, None));
        let asked = meter.1.swap(0, Ordering::Relaxed);
        assert!(asked > 0);
        assert_eq!(count(ASK_AGAIN_AFTER_MS + 1), None);
        assert_eq!(meter.1.load(Ordering::Relaxed), asked);
        assert!(!is_loaded(&tokenizer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_count_of_another_request_leads_to_an_estimate_and_not_to_a_long_wait() {
        let tokenizer = Tokenizer::default();
        let turn = Arc::clone(&tokenizer.turn).acquire_owned().await.expect("it is never closed");
        let (text, tokens) = (Input::Text("Hello world".into()), Input::Tokens(vec![1, 2, 3]));
        let begun = tokio::time::Instant::now();
        assert_eq!(tokenizer.count(&[&tokens], 1).await, Some(vec![3]), "token arrays wait for nothing");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(tokenizer.count(&[&text], 1).await, None);
        // The timer counts whole milliseconds.
        let expected = TURN_WITHIN..=TURN_WITHIN + Duration::from_millis(1);
        assert!(expected.contains(&begun.elapsed()), "{:?}", begun.elapsed());
        drop(turn);
        assert_eq!(tokenizer.count(&[&text], 1).await, Some(vec![2]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_length_of_an_input_is_awaited_until_the_deadline() {
        let tokenizer = Tokenizer::default();
        let turn = Arc::clone(&tokenizer.turn).acquire_owned().await.expect("it is never closed");
        let text = Input::Text("Hello world".into());
        let deadline = Instant::now() + 60 * TURN_WITHIN;
        assert_eq!(tokenizer.allowed_lens(&[&text], 1, deadline).await, Err(Unmeasured::Late));
        assert!(Instant::now() >= deadline);
        let inputs = [&text];
        let mut lens = pin!(tokenizer.allowed_lens(&inputs, 1, deadline + 60 * TURN_WITHIN));
        assert!(timeout(10 * TURN_WITHIN, &mut lens).await.is_err(), "it still waits for its turn");
        // The thread that counts takes real time.
        tokio::time::resume();
        drop(turn);
        assert_eq!(lens.await, Ok(vec![u32::MAX]));
    }

    #[tokio::test]
    async fn counting_goes_on_after_a_request_has_gone_away() {
        let tokenizer = Tokenizer::default();
        let (gone, text) = (Input::Text("gone".into()), Input::Text("Hello world".into()));
        let mut count = Box::pin(async { tokenizer.count(&[&gone], 1).await });
        drop(futures_util::poll!(&mut count));
        drop(count);
        assert_eq!(tokenizer.count(&[&text], 1).await, Some(vec![2]));
    }
}

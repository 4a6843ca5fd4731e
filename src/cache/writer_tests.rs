//! Tests of the write queue.

use std::task::Poll;

use futures_util::poll;
use tokio::time::advance;

use super::*;
use crate::key::{KeyBuilder, Tag};

/// Batches of a writer that takes whatever is there.
const AT_ONCE: BatchLimits = BatchLimits { full_bytes: 1_000, linger: Duration::ZERO };
/// Batches that are gathered.
const GATHERED: BatchLimits = BatchLimits { full_bytes: 1_000, linger: LINGER };
const LINGER: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_millis(1);

fn key(n: u8) -> Key {
    KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
}

fn entry(text: &'static str) -> AtRest {
    AtRest { bytes: Bytes::from_static(text.as_bytes()), until_ms: 1 }
}

fn keys(batch: &WriteBatch) -> Vec<Key> {
    batch.entries.iter().map(|(key, _)| *key).collect()
}

/// Counts the batches that a writer takes until the queue is empty.
async fn write_all(queue: &WriteQueue) -> usize {
    let mut batches = 0;
    let writing = async {
        loop {
            let batch = queue.next().await;
            batches += 1;
            queue.done(&batch);
        }
    };
    tokio::select! {
        () = writing => {}
        () = queue.drained() => {}
    }
    batches
}

#[tokio::test]
async fn queued_entries_are_found_until_they_are_written() {
    let queue = WriteQueue::new(10_000, AT_ONCE);
    assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
    assert_eq!(queue.get(&key(1)).as_deref(), Some(&b"one"[..]));
    let batch = queue.next().await;
    assert_eq!(batch.entries, [(key(1), entry("one"))]);
    assert!(queue.get(&key(1)).is_some() && queue.holds(&key(1)) && !queue.is_empty());
    queue.done(&batch);
    assert!(queue.get(&key(1)).is_none() && !queue.holds(&key(1)) && queue.is_empty());
    queue.drained().await;
}

#[tokio::test]
async fn an_entry_replaced_during_its_write_is_written_again() {
    let queue = WriteQueue::new(10_000, AT_ONCE);
    queue.push(key(1), entry("old"));
    let batch = queue.next().await;
    queue.push(key(1), entry("new"));
    queue.done(&batch);
    assert_eq!(queue.get(&key(1)).as_deref(), Some(&b"new"[..]));
    assert_eq!(queue.next().await.entries, [(key(1), entry("new"))]);
}

#[tokio::test]
async fn only_the_later_of_two_queued_values_is_written() {
    let queue = WriteQueue::new(10_000, AT_ONCE);
    queue.push(key(1), entry("old"));
    queue.push(key(1), entry("new"));
    let batch = queue.next().await;
    assert_eq!(batch.entries, [(key(1), entry("new"))]);
    queue.done(&batch);
    assert!(queue.is_empty());
    let waiting = queue.lock();
    assert_eq!((waiting.bytes, waiting.order_bytes), (0, 0));
}

#[tokio::test]
async fn repeated_entries_do_not_grow_the_queue() {
    let queue = WriteQueue::new(10_000, AT_ONCE);
    for _ in 0..1_000 {
        assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
    }
    let room = || {
        let waiting = queue.lock();
        (waiting.order.len(), waiting.order_bytes, waiting.entries.len(), waiting.bytes)
    };
    let one = OVERHEAD_BYTES + 3;
    assert_eq!(room(), (1, one, 1, one));
    let batch = queue.next().await;
    for _ in 0..1_000 {
        assert_eq!(queue.push(key(1), entry("two")), Queued::Waiting);
    }
    queue.done(&batch);
    assert_eq!(room(), (1, one, 1, one));
    assert_eq!(queue.next().await.entries, [(key(1), entry("two"))]);
}

#[test]
fn entries_beyond_the_bound_are_dropped_and_counted() {
    let queue = WriteQueue::new(OVERHEAD_BYTES + 3, GATHERED);
    assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
    assert_eq!(queue.push(key(2), entry("two")), Queued::Dropped);
    assert_eq!((queue.len(), queue.dropped()), (1, 1));
}

#[tokio::test]
async fn a_cleared_queue_is_drained_and_accepts_entries_again() {
    let queue = WriteQueue::new(OVERHEAD_BYTES + 3, GATHERED);
    queue.push(key(1), entry("one"));
    let mut drained = Box::pin(queue.drained());
    assert!(poll!(&mut drained).is_pending());
    queue.clear();
    assert!(poll!(&mut drained).is_ready());
    assert_eq!((queue.len(), queue.dropped()), (0, 0), "what is cleared is not lost");
    assert_eq!(queue.push(key(2), entry("two")), Queued::Waiting);
    assert_eq!(queue.next().await.entries, [(key(2), entry("two"))]);
}

#[tokio::test]
async fn entries_that_left_the_queue_stay_unwanted_if_their_key_is_put_again() {
    let wanted = |queue: &WriteQueue, batch: &WriteBatch| queue.wanted(batch).map(|(key, _)| *key).collect::<Vec<_>>();
    let leave: [fn(&WriteQueue); 2] = [WriteQueue::clear, |queue| queue.remove(&[key(1)])];
    for leave in leave {
        let queue = WriteQueue::new(10_000, AT_ONCE);
        queue.push(key(1), entry("old"));
        let gone = queue.next().await;
        assert_eq!((wanted(&queue, &gone), queue.removed(&gone)), (vec![key(1)], vec![]));
        leave(&queue);
        assert_eq!((wanted(&queue, &gone), queue.removed(&gone)), (vec![], vec![key(1)]));
        queue.push(key(1), entry("new"));
        assert_eq!((wanted(&queue, &gone), queue.removed(&gone)), (vec![], vec![]));
        queue.done(&gone);
        let batch = queue.next().await;
        assert_eq!((batch.entries.clone(), wanted(&queue, &batch)), (vec![(key(1), entry("new"))], vec![key(1)]));
    }
}

#[tokio::test]
async fn abandoned_entries_leave_the_queue_and_count_as_dropped() {
    let queue = WriteQueue::new(10_000, BatchLimits { full_bytes: 1, ..GATHERED });
    for n in 0..5 {
        queue.push(key(n), entry("x"));
    }
    let batch = queue.next().await;
    assert_eq!(batch.entries.len(), 1, "a batch ends with the entry that fills it");
    queue.give_up(&batch);
    assert_eq!((queue.len(), queue.dropped()), (4, 1));
    queue.give_up_all();
    assert_eq!((queue.len(), queue.dropped()), (0, 5));
    queue.lose(2);
    assert_eq!(queue.dropped(), 7);
}

#[tokio::test(start_paused = true)]
async fn entries_that_arrive_within_the_linger_time_are_one_batch() {
    let queue = WriteQueue::new(10_000, GATHERED);
    let mut next = Box::pin(queue.next());
    for n in 0..5 {
        assert!(poll!(&mut next).is_pending());
        queue.push(key(n), entry("x"));
        assert!(poll!(&mut next).is_pending(), "it waits for further entries");
        advance(TICK).await;
    }
    let Poll::Ready(batch) = poll!(&mut next) else { panic!("the first entry must not wait for longer") };
    assert_eq!(keys(&batch), (0..5).map(key).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_linger_time_begins_with_the_first_entry_even_if_the_writer_is_busy() {
    let queue = WriteQueue::new(10_000, GATHERED);
    queue.push(key(1), entry("x"));
    let written = queue.next().await;
    queue.push(key(2), entry("x"));
    advance(LINGER).await;
    queue.push(key(3), entry("x"));
    queue.done(&written);
    let Poll::Ready(batch) = poll!(Box::pin(queue.next())) else { panic!("it has waited for long enough") };
    assert_eq!(keys(&batch), [key(2), key(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let queue = WriteQueue::new(10_000, BatchLimits { full_bytes: 2 * (OVERHEAD_BYTES + 1), ..GATHERED });
    let mut next = Box::pin(queue.next());
    queue.push(key(1), entry("x"));
    assert!(poll!(&mut next).is_pending());
    for n in 2..5 {
        queue.push(key(n), entry("x"));
    }
    let Poll::Ready(batch) = poll!(&mut next) else { panic!("it is full") };
    assert_eq!(keys(&batch), [key(1), key(2)]);
    let Poll::Ready(batch) = poll!(Box::pin(queue.next())) else { panic!("the next one is full, too") };
    assert_eq!(keys(&batch), [key(3), key(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_small_queue_is_written_before_it_is_full() {
    let queue = WriteQueue::new(8 * (OVERHEAD_BYTES + 1), BatchLimits { full_bytes: 1 << 20, ..GATHERED });
    let mut next = Box::pin(queue.next());
    queue.push(key(1), entry("x"));
    assert!(poll!(&mut next).is_pending());
    queue.push(key(2), entry("x"));
    assert!(poll!(&mut next).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_drain_writes_at_once_and_only_while_it_is_awaited() {
    let queue = WriteQueue::new(10_000, GATHERED);
    let begun = Instant::now();
    let mut next = Box::pin(queue.next());
    queue.push(key(1), entry("x"));
    assert!(poll!(&mut next).is_pending());
    let mut drained = Box::pin(queue.drained());
    assert!(poll!(&mut drained).is_pending());
    let Poll::Ready(batch) = poll!(&mut next) else { panic!("somebody waits for it") };
    queue.done(&batch);
    assert!(poll!(&mut drained).is_ready());
    drop((next, drained));
    queue.push(key(2), entry("x"));
    let mut given_up = Box::pin(queue.drained());
    assert!(poll!(&mut given_up).is_pending());
    drop(given_up);
    assert!(poll!(Box::pin(queue.next())).is_pending(), "nobody waits any more");
    assert_eq!((write_all(&queue).await, begun.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn many_entries_are_few_batches() {
    let queue = WriteQueue::new(1 << 20, BatchLimits { full_bytes: 1 << 16, ..GATHERED });
    let begun = Instant::now();
    let pushing = async {
        for n in 0..100 {
            queue.push(key(n), entry("x"));
            // Ten entries each millisecond.
            if n % 10 == 9 {
                advance(TICK).await;
            }
        }
    };
    let mut batches = 0;
    let writing = async {
        let mut written = 0;
        while written < 100 {
            let batch = queue.next().await;
            (batches, written) = (batches + 1, written + batch.entries.len());
            queue.done(&batch);
        }
    };
    tokio::join!(writing, pushing);
    assert!(batches <= 3 && begun.elapsed() <= 3 * LINGER, "{batches} in {:?}", begun.elapsed());
}

/// Returns true if a push has left a wake-up for the writer.
fn wakes(queue: &WriteQueue) -> bool {
    use futures_util::FutureExt as _;
    queue.ready.notified().now_or_never().is_some()
}

#[test]
fn only_the_first_entry_of_a_batch_and_the_one_that_fills_it_wake_the_writer() {
    let queue = WriteQueue::new(10_000, GATHERED);
    let woken: Vec<bool> = (0..20)
        .map(|n| {
            queue.push(key(n), entry("x"));
            wakes(&queue)
        })
        .collect();
    let filling = GATHERED.full_bytes.div_ceil(OVERHEAD_BYTES + 1) - 1;
    let expected: Vec<bool> = (0..20).map(|n| n == 0 || n == filling).collect();
    assert_eq!(woken, expected);
}

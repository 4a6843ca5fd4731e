//! Worker threads. Each has a runtime of its own, and a connection stays on the worker that it was assigned to.
//!
//! A runtime that moves tasks between threads polls sockets on one thread at a time. With a thousand busy connections
//! some of them then wait for many rounds of the others. Workers that share nothing serve their connections in turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads for blocking work, such as reads from disk, of all workers together, as far as each has at least
/// `MIN_BLOCKING_THREADS`; tokio's default for one runtime.
const MAX_BLOCKING_THREADS: usize = 512;

/// Threads for blocking work that each worker has in any case.
const MIN_BLOCKING_THREADS: usize = 8;

/// The workers of the process. Cheap to clone; clones refer to the same workers.
#[derive(Clone, Debug)]
pub struct Workers(Arc<WorkerThreads>);

#[derive(Debug)]
struct WorkerThreads {
    workers: Vec<Worker>,
    /// Ends the threads when the last handle and the last assignment are dropped.
    _stop: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    assigned: AtomicUsize,
}

impl Workers {
    /// Makes the current runtime the only worker. Panics outside a runtime.
    pub fn current() -> Self {
        let workers = vec![Worker::new(Handle::current())];
        Self(Arc::new(WorkerThreads { workers, _stop: CancellationToken::new().drop_guard() }))
    }

    /// Makes the current runtime the first worker and starts a thread for each further one. Panics outside a runtime.
    /// The error is that of the operating system, which has no thread or no file descriptor left.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads =
            WorkerThreads { workers: vec![Worker::new(Handle::current())], _stop: stop.clone().drop_guard() };
        for number in 1..count {
            threads.workers.push(Worker::new(start_thread(number, count, stop.clone())?));
        }
        Ok(Self(Arc::new(threads)))
    }

    /// Assigns a connection to the worker that has the fewest.
    pub fn assign(&self) -> Assignment {
        let fewest = |(_, worker): &(usize, &Worker)| worker.assigned.load(Ordering::Relaxed);
        // Of equal workers the last one is chosen, because the first also accepts and runs the background tasks.
        let chosen = self.0.workers.iter().enumerate().rev().min_by_key(fewest);
        let (number, worker) = chosen.expect("there must be a worker");
        worker.assigned.fetch_add(1, Ordering::Relaxed);
        Assignment { threads: Arc::clone(&self.0), number }
    }
}

/// Builds the runtime of one of `workers` workers. The current thread drives it.
pub fn runtime(workers: usize) -> io::Result<Runtime> {
    let blocking = (MAX_BLOCKING_THREADS / workers.max(1)).max(MIN_BLOCKING_THREADS);
    Builder::new_current_thread().enable_all().max_blocking_threads(blocking).build()
}

/// Starts one worker and returns its runtime, which the thread itself builds: a runtime cannot be dropped inside
/// another one, as it would be if the thread could not start.
fn start_thread(number: usize, count: usize, stop: CancellationToken) -> io::Result<Handle> {
    let (tell, told) = mpsc::channel();
    let work = move || {
        let runtime = match runtime(count) {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error))),
        };
        drop(tell.send(Ok(runtime.handle().clone())));
        runtime.block_on(stop.cancelled());
        // A blocking thread that hangs on a disk must not keep the worker.
        runtime.shutdown_background();
    };
    thread::Builder::new().name(format!("vecho-worker-{number}")).spawn(work)?;
    told.recv().map_err(io::Error::other)?
}

impl Worker {
    const fn new(runtime: Handle) -> Self {
        Self { runtime, assigned: AtomicUsize::new(0) }
    }
}

/// Place of a connection on a worker, until dropped.
#[derive(Debug)]
pub struct Assignment {
    threads: Arc<WorkerThreads>,
    number: usize,
}

impl Assignment {
    /// Returns true if the worker is the current runtime.
    pub fn is_here(&self) -> bool {
        self.runtime().id() == Handle::current().id()
    }

    /// Returns the worker's runtime.
    pub fn runtime(&self) -> &Handle {
        &self.threads.workers[self.number].runtime
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.threads.workers[self.number].assigned.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    async fn thread_of(assignment: &Assignment) -> thread::ThreadId {
        let (tell, told) = oneshot::channel();
        drop(assignment.runtime().spawn(async move { tell.send(thread::current().id()) }));
        told.await.expect("the worker runs")
    }

    #[tokio::test]
    async fn connections_are_spread_over_all_workers() {
        let workers = Workers::start(3).expect("threads");
        let assigned: Vec<_> = (0..6).map(|_| workers.assign()).collect();
        let mut threads = HashSet::new();
        for assignment in &assigned {
            threads.insert(thread_of(assignment).await);
        }
        assert_eq!(threads.len(), 3);
        let counts =
            || workers.0.workers.iter().map(|worker| worker.assigned.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts(), [2, 2, 2]);
        drop(assigned);
        assert_eq!(counts(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_closed_connection_makes_its_worker_the_next_choice() {
        let workers = Workers::start(2).expect("threads");
        let (_first, second, _third) = (workers.assign(), workers.assign(), workers.assign());
        let thread = thread_of(&second).await;
        drop(second);
        assert_eq!(thread_of(&workers.assign()).await, thread);
    }

    #[tokio::test]
    async fn the_current_runtime_can_be_the_only_worker() {
        let workers = Workers::current();
        assert_eq!(thread_of(&workers.assign()).await, thread::current().id());
        assert_eq!(thread_of(&workers.assign()).await, thread::current().id());
    }

    #[test]
    fn the_workers_share_the_limit_on_blocking_threads() {
        let runtime = runtime(MAX_BLOCKING_THREADS).expect("a runtime");
        let (begins, begun) = mpsc::channel();
        let (ends, until) = tokio::sync::watch::channel(());
        for _ in 0..=MIN_BLOCKING_THREADS {
            let (begins, mut until) = (begins.clone(), until.clone());
            drop(runtime.spawn_blocking(move || {
                begins.send(()).ok();
                Handle::current().block_on(until.changed()).ok();
            }));
        }
        for _ in 0..MIN_BLOCKING_THREADS {
            begun.recv_timeout(Duration::from_secs(10)).expect("each worker has this many threads");
        }
        // One more thread would begin within microseconds.
        assert_eq!(begun.recv_timeout(Duration::from_millis(100)), Err(mpsc::RecvTimeoutError::Timeout));
        drop(ends);
        begun.recv_timeout(Duration::from_secs(10)).expect("the last one begins when a thread is free");
    }

    #[test]
    fn threads_end_with_the_last_handle() {
        let runtime = runtime(2).expect("a runtime");
        let (watch, mut ended) = oneshot::channel::<()>();
        runtime.block_on(async {
            let workers = Workers::start(2).expect("threads");
            let (first, second) = (workers.assign(), workers.assign());
            drop(first.runtime().spawn(async move {
                std::future::pending::<()>().await;
                drop(watch);
            }));
            drop(workers);
            tokio::task::yield_now().await;
            assert_eq!(ended.try_recv(), Err(TryRecvError::Empty), "an assignment keeps the worker");
            drop((first, second));
            assert!(ended.await.is_err(), "the worker drops its tasks when it ends");
        });
    }
}

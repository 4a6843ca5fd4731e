//! Worker threads. Each has a runtime of its own, and a connection stays on the worker that it was assigned to.
//!
//! A runtime that moves tasks between threads polls sockets on one thread at a time. With a thousand busy connections
//! some of them then wait for many rounds of the others. Workers that share nothing serve their connections in turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The workers of the process. Cheap to clone; clones refer to the same workers.
#[derive(Clone, Debug)]
pub struct Workers {
    workers: Arc<[Worker]>,
    /// Ends the threads when the last clone is dropped.
    _stop: Option<Arc<DropGuard>>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    assigned: AtomicUsize,
}

impl Workers {
    /// Makes the current runtime the only worker. Panics outside a runtime.
    pub fn current() -> Self {
        Self { workers: Arc::new([Worker::new(Handle::current())]), _stop: None }
    }

    /// Makes the current runtime the first worker and starts a thread for each further one. Panics outside a runtime.
    /// The error is that of the operating system, which has no thread or no file descriptor left.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        // The current runtime serves connections, too, so one thread less is started.
        let mut workers = vec![Worker::new(Handle::current())];
        for number in 1..count {
            // The runtime is built here, so an error reaches the caller. It runs on its own thread.
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker::new(runtime.handle().clone()));
            let stopped = stop.clone().cancelled_owned();
            thread::Builder::new().name(format!("vecho-worker-{number}")).spawn(move || {
                // The thread drives the tasks of its runtime for as long as it waits here.
                runtime.block_on(stopped);
                // A blocking thread that hangs on a disk must not keep the worker.
                runtime.shutdown_background();
            })?;
        }
        // The guard is shared by all clones, so the threads end with the last of them.
        Ok(Self { workers: workers.into(), _stop: Some(Arc::new(stop.drop_guard())) })
    }

    /// Assigns a connection to the worker that has the fewest.
    pub fn assign(&self) -> Assignment {
        // The counts only guide the choice, so relaxed ordering suffices.
        let fewest = |(_, worker): &(usize, &Worker)| worker.assigned.load(Ordering::Relaxed);
        let (number, worker) = self.workers.iter().enumerate().min_by_key(fewest).expect("there must be a worker");
        worker.assigned.fetch_add(1, Ordering::Relaxed);
        Assignment { workers: Arc::clone(&self.workers), number }
    }
}

impl Worker {
    const fn new(runtime: Handle) -> Self {
        Self { runtime, assigned: AtomicUsize::new(0) }
    }
}

/// Place of a connection on a worker, until dropped.
#[derive(Debug)]
pub struct Assignment {
    workers: Arc<[Worker]>,
    number: usize,
}

impl Assignment {
    /// Returns true if the worker is the current runtime.
    pub fn is_here(&self) -> bool {
        self.runtime().id() == Handle::current().id()
    }

    /// Returns the worker's runtime.
    pub fn runtime(&self) -> &Handle {
        &self.workers[self.number].runtime
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.workers[self.number].assigned.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::sync::oneshot;

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
            || workers.workers.iter().map(|worker| worker.assigned.load(Ordering::Relaxed)).collect::<Vec<_>>();
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
    fn threads_end_with_the_last_handle() {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (watch, ended) = oneshot::channel::<()>();
        runtime.block_on(async {
            let workers = Workers::start(2).expect("threads");
            let (_first, second) = (workers.assign(), workers.assign());
            drop(second.runtime().spawn(async move {
                std::future::pending::<()>().await;
                drop(watch);
            }));
            drop(workers);
            assert!(ended.await.is_err(), "the worker drops its tasks when it ends");
        });
    }
}

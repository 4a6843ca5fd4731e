//! Generates load: as fast as a few connections allow, at a constant rate, or all at once.

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};

use crate::Outcome;
use crate::client::Connection;
use crate::shape::Shape;

/// Chooses the texts of the next request.
pub(crate) type Pick = Box<dyn FnMut(&mut Vec<u64>)>;

/// An endless sequence of requests.
pub(crate) struct Workload {
    /// Properties that all requests share.
    pub(crate) shape: Shape,
    /// Number of requests taken so far.
    pub(crate) sent: u64,
    pick: Pick,
    check_every: u64,
    awake: bool,
}

/// Measurements of one stretch of load.
pub(crate) struct Load {
    /// Nanoseconds from a request's due time to the last byte of its response.
    pub(crate) latencies_ns: Histogram<u64>,
    /// Time from the first request to the last response.
    pub(crate) wall: Duration,
}

impl Workload {
    /// Creates requests of this shape. Every `check_every`th response is compared with the expected vectors (0: none).
    pub(crate) fn new(shape: Shape, check_every: u64, pick: impl FnMut(&mut Vec<u64>) + 'static) -> Self {
        Self { shape, sent: 0, pick: Box::new(pick), check_every, awake: false }
    }

    /// Disables checks, for a server whose responses belong to other texts.
    pub(crate) fn unchecked(self) -> Self {
        Self { check_every: 0, ..self }
    }

    /// Makes the load generator poll for responses instead of sleeping. The server pays for waking a sleeping load
    /// generator on another core, and a slower server pays more often, so sleep would make the slower of two servers
    /// look slower than it is. The upstream runs on the same thread, so it is awake as well.
    pub(crate) fn awake(self) -> Self {
        Self { awake: true, ..self }
    }

    /// Writes the next request and its texts. Returns true if the response is to be checked.
    fn next(&mut self, ids: &mut Vec<u64>, request: &mut Vec<u8>) -> bool {
        ids.clear();
        (self.pick)(ids);
        self.shape.write_request(ids, self.sent, request);
        self.sent += 1;
        self.check_every > 0 && (self.sent - 1).is_multiple_of(self.check_every)
    }
}

/// State shared by the connections of one stretch of load.
struct Stretch<'a> {
    workload: &'a mut Workload,
    left: u64,
    latencies_ns: Histogram<u64>,
}

impl<'a> Stretch<'a> {
    fn new(workload: &'a mut Workload, count: u64) -> Outcome<RefCell<Self>> {
        Ok(RefCell::new(Self { workload, left: count, latencies_ns: Histogram::new(3)? }))
    }

    fn next(&mut self, ids: &mut Vec<u64>, request: &mut Vec<u8>) -> Option<bool> {
        self.left = self.left.checked_sub(1)?;
        Some(self.workload.next(ids, request))
    }

    fn record(&mut self, since: Instant) -> Outcome<()> {
        let elapsed_ns = u64::try_from(since.elapsed().as_nanos())?;
        Ok(self.latencies_ns.record(elapsed_ns)?)
    }
}

/// Closed loop of `count` requests: each connection sends its next request after it has read the previous response.
pub(crate) async fn closed(connections: &mut [Connection], workload: &mut Workload, count: u64) -> Outcome<Load> {
    let (shape, awake) = (workload.shape.clone(), workload.awake);
    let stretch = Stretch::new(workload, count)?;
    let started = Instant::now();
    let turns = connections.iter_mut().map(|connection| async {
        let (mut ids, mut request) = (Vec::new(), Vec::new());
        loop {
            let Some(check) = stretch.borrow_mut().next(&mut ids, &mut request) else { return Ok(()) };
            let due = Instant::now();
            let body = connection.exchange(&request).await?;
            stretch.borrow_mut().record(due)?;
            if check {
                shape.check(&ids, body)?;
            }
        }
    });
    let work = all(turns);
    let done = if awake { without_sleep(work).await } else { work.await };
    done?;
    Ok(Load { latencies_ns: stretch.into_inner().latencies_ns, wall: started.elapsed() })
}

/// Open loop: `count` requests, one every `interval`. Each is timed from its due time, even if earlier responses are
/// late.
pub(crate) async fn constant_rate(
    connections: &mut [Connection],
    workload: &mut Workload,
    count: u64,
    interval: Duration,
) -> Outcome<Load> {
    let shape = workload.shape.clone();
    let stretch = Stretch::new(workload, count)?;
    let due_times = Mutex::new(ticker(count, interval));
    let started = Instant::now();
    let turns = connections.iter_mut().map(|connection| async {
        let (mut ids, mut request) = (Vec::new(), Vec::new());
        loop {
            let Some(due) = due_times.lock().await.recv().await else { return Ok(()) };
            let Some(check) = stretch.borrow_mut().next(&mut ids, &mut request) else { return Ok(()) };
            let body = connection.exchange(&request).await?;
            stretch.borrow_mut().record(due)?;
            if check {
                shape.check(&ids, body)?;
            }
        }
    });
    all(turns).await?;
    Ok(Load { latencies_ns: stretch.into_inner().latencies_ns, wall: started.elapsed() })
}

/// Sends each due time when it is reached. It has its own thread because the runtime's timer has millisecond
/// resolution.
fn ticker(count: u64, interval: Duration) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut due = Instant::now() + interval;
        for _ in 0..count {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
            due += interval;
        }
    });
    receiver
}

/// Sends one request on every connection before it reads the first response. Each is timed from the common start.
pub(crate) async fn all_at_once(connections: &mut [Connection], shape: &Shape, id: u64) -> Outcome<Load> {
    let mut request = Vec::new();
    shape.write_request(&[id], id, &mut request);
    let latencies_ns = RefCell::new(Histogram::<u64>::new(3)?);
    let started = Instant::now();
    for connection in connections.iter_mut() {
        connection.send(&request).await?;
    }
    let turns = connections.iter_mut().map(|connection| async {
        let body = connection.receive().await?;
        let elapsed_ns = u64::try_from(started.elapsed().as_nanos())?;
        latencies_ns.borrow_mut().record(elapsed_ns)?;
        Ok(body)
    });
    let mut turns: FuturesUnordered<_> = turns.collect();
    let mut bodies = Vec::new();
    while let Some(body) = turns.next().await {
        let body: Outcome<&[u8]> = body;
        bodies.push(body?);
    }
    let wall = started.elapsed();
    drop(turns);
    for body in bodies {
        shape.check(&[id], body)?;
    }
    Ok(Load { latencies_ns: latencies_ns.into_inner(), wall })
}

async fn without_sleep<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => {}
        }
    }
}

async fn all(turns: impl Iterator<Item = impl Future<Output = Outcome<()>>>) -> Outcome<()> {
    let mut turns: FuturesUnordered<_> = turns.collect();
    while let Some(done) = turns.next().await {
        done?;
    }
    Ok(())
}

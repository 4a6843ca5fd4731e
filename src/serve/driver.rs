//! Drives one connection to its end, and closes it when a timeout of its peer expires.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

use super::drain::ShutdownSignal;
use super::end::ConnectionEnd;
use super::limits::{PeerFault, ServeLimits};
use super::stats::{ConnectionStats, Phase};

/// Longest time that an idle connection may take to close after it was asked to.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A hyper connection of either protocol.
pub(super) trait HttpConnection: Future<Output = hyper::Result<()>> {
    /// Finishes requests in flight and accepts no new ones.
    fn finish(self: Pin<&mut Self>);
}

/// Timeouts of one connection.
pub(super) struct ConnectionDriver<'a> {
    stats: Arc<ConnectionStats>,
    limits: &'a ServeLimits,
    shutdown: ShutdownSignal,
    // Phase and period that the timeout belongs to, and the time at which they began.
    stay: (Phase, u64),
    since: Instant,
    closing: bool,
    alarm: Pin<Box<Sleep>>,
    /// True if the alarm wakes this task when it expires.
    listens: bool,
}

impl<'a> ConnectionDriver<'a> {
    pub(super) fn new(stats: Arc<ConnectionStats>, limits: &'a ServeLimits, shutdown: ShutdownSignal) -> Self {
        let since = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(since + limits.idle_timeout));
        Self { stay: stats.phase(), stats, limits, shutdown, since, closing: false, alarm, listens: false }
    }

    /// Runs the connection until it ends for any reason.
    pub(super) async fn run<C: HttpConnection>(mut self, mut connection: Pin<&mut C>) -> ConnectionEnd {
        std::future::poll_fn(|cx| self.poll(connection.as_mut(), cx)).await
    }

    fn poll<C: HttpConnection>(&mut self, mut connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        // The drain comes before the poll of the connection, because hyper acts on `finish` only when it is polled.
        if self.shutdown.poll_drain(cx) {
            self.close(connection.as_mut());
        }
        if self.shutdown.poll_cut(cx) {
            return Poll::Ready(ConnectionEnd::Cut);
        }
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(ConnectionEnd::Finished(result));
        }
        // The poll above may have read or written, so the phase is compared only now.
        self.note_phase();
        self.poll_alarm(connection, cx)
    }

    /// Asks the connection to finish.
    fn close<C: HttpConnection>(&mut self, connection: Pin<&mut C>) {
        connection.finish();
        self.closing = true;
        // The grace replaces the longer idle timeout. A connection in another phase gets it once it is idle.
        if self.stay.0 == Phase::Idle {
            self.since = Instant::now();
            self.hasten_alarm();
        }
    }

    /// Restarts the timeout when the phase changes. Serving has no timeout here, so requests save a call to the clock.
    fn note_phase(&mut self) {
        let stay = self.stats.phase();
        if stay != self.stay {
            self.stay = stay;
            if stay.0 != Phase::Serving {
                self.since = Instant::now();
                self.hasten_alarm();
            }
        }
    }

    /// Moves the alarm only to an earlier time. A later time is set when the alarm expires, so requests in quick
    /// succession do not touch the timer.
    fn hasten_alarm(&mut self) {
        let due = self.since + self.timeout();
        if due < self.alarm.deadline() {
            self.alarm.as_mut().reset(due);
            // The moved alarm is polled again before this task relies on its wake-up.
            self.listens = false;
        }
    }

    /// Returns the timeout of the current phase. While serving, it is only the interval until the next check.
    fn timeout(&self) -> Duration {
        match self.stay.0 {
            Phase::Idle if self.closing => self.limits.idle_timeout.min(CLOSE_GRACE),
            Phase::Idle | Phase::Serving => self.limits.idle_timeout,
            Phase::Head => self.limits.header_timeout,
            Phase::Writing => self.limits.write_timeout,
        }
    }

    fn poll_alarm<C: HttpConnection>(
        &mut self,
        mut connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEnd> {
        // Checking whether the alarm has expired is much cheaper than polling it, and each request comes here twice.
        if self.listens && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        // Each round handles one expiry and sets the alarm anew. The loop ends when the alarm is pending and holds
        // the waker.
        while self.ask_alarm(cx).is_ready() {
            let now = Instant::now();
            let mut due = self.since + self.timeout();
            // The phase may have begun after the alarm was set. Then the alarm only moves.
            if now >= due {
                match self.stay.0 {
                    // A call has no limit here, since a request body has timeouts of its own.
                    Phase::Serving => self.since = now,
                    Phase::Idle if !self.closing => {
                        // hyper closes an idle connection when it is polled, and nothing else may wake this task.
                        self.close(connection.as_mut());
                        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                            return Poll::Ready(ConnectionEnd::Finished(result));
                        }
                    }
                    // The peer did not close within the grace. No request is in flight, so the end is no fault.
                    Phase::Idle => return Poll::Ready(ConnectionEnd::Finished(Ok(()))),
                    Phase::Head => return Poll::Ready(ConnectionEnd::Faulted(PeerFault::HeadTimeout)),
                    Phase::Writing => return Poll::Ready(ConnectionEnd::Faulted(PeerFault::WriteStalled)),
                }
                due = self.since + self.timeout();
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Polls the alarm. If the task's budget is spent, the alarm does not register the waker, so it must be polled
    /// again.
    fn ask_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.listens = has_budget_remaining();
        self.alarm.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::coop::consume_budget;

    use super::super::drain::ServerState;
    use super::*;
    use crate::config::Config;

    /// A peer that first uses up the budget of the task, and then is silent.
    #[derive(Default)]
    struct Burst {
        is_over: bool,
        is_told_to_finish: bool,
    }

    impl Future for Burst {
        type Output = hyper::Result<()>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            while !self.is_over && has_budget_remaining() {
                assert!(std::pin::pin!(consume_budget()).poll(cx).is_ready());
            }
            self.is_over = true;
            if self.is_told_to_finish { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
    }

    impl HttpConnection for Burst {
        fn finish(mut self: Pin<&mut Self>) {
            self.is_told_to_finish = true;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_does_not_disarm_its_timeouts() {
        let config = Config::from_pairs(&[]).expect("the defaults must be free of faults");
        let (limits, shutdown) =
            (ServeLimits::from(&config.limits), Arc::new(ServerState::default()).shutdown_signal());
        let driver = ConnectionDriver::new(ConnectionStats::new(true), &limits, shutdown);
        let mut burst = Burst::default();
        let end = tokio::time::timeout(2 * limits.idle_timeout, driver.run(Pin::new(&mut burst))).await;
        assert!(matches!(end, Ok(ConnectionEnd::Finished(Ok(())))), "{end:?}");
    }
}

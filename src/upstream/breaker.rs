//! Circuit breaker: stops calls to an upstream that cannot be reached, and sends one probe at a time to detect its
//! return. An upstream that accepts connections and then closes them also counts as unavailable. It still gets every
//! call, because one text may be the cause, and another may be answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::observe::metrics::{BreakerState, Metrics};

/// Breaker in front of one upstream. Each change of state is logged once.
pub struct Breaker {
    inner: Mutex<BreakerInner>,
    report: ReportState,
}

/// Callback that gets each change of the state.
type ReportState = Box<dyn Fn(BreakerState) + Send + Sync>;

struct BreakerInner {
    state: CircuitState,
    /// The different requests that failed consecutively, up to the number that opens the breaker.
    failed: Vec<u64>,
    /// The last failure.
    cause: String,
    /// Duration of the next open state.
    next_open: Duration,
}

#[derive(Clone, Copy)]
enum CircuitState {
    Closed,
    Open {
        until: Instant,
        /// True if no connection could be made, so a call would fail.
        is_unreachable: bool,
    },
    /// A probe is in flight.
    HalfOpen,
}

/// A call that got no answer.
#[derive(Clone, Copy, Debug)]
pub struct HostFault<'a> {
    /// Cause, for the log.
    pub cause: &'a str,
    /// True if no connection could be made.
    pub is_unreachable: bool,
    /// Ids of the requests that the call was made for.
    pub requests: &'a [u64],
}

/// Permission to make one call. If the permission of a probe is dropped without a result, as on cancellation, another
/// call may become the probe.
pub struct Pass<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    has_result: bool,
}

impl Breaker {
    /// Returns a closed breaker.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::reporting(Box::new(move |state| metrics.upstream.breaker.set(state)))
    }

    /// Returns a closed breaker of one of several targets. The state of the upstream is that of the best target.
    pub fn of_target(metrics: Arc<Metrics>, target: usize) -> Self {
        Self::reporting(Box::new(move |state| {
            if let Some(best) = metrics.targets.breaker(target, state) {
                metrics.upstream.breaker.set(best);
            }
        }))
    }

    fn reporting(report: ReportState) -> Self {
        report(BreakerState::Closed);
        let inner = BreakerInner {
            state: CircuitState::Closed,
            failed: Vec::new(),
            cause: String::new(),
            next_open: Duration::ZERO,
        };
        Self { inner: Mutex::new(inner), report }
    }

    /// Requests permission for a call. Returns `None` while the upstream is unreachable, or while a probe is in flight.
    pub fn pass(&self) -> Option<Pass<'_>> {
        let mut inner = self.lock();
        let is_probe = match inner.state {
            // While connections are accepted, the open state only reports, and every call passes.
            CircuitState::Closed | CircuitState::Open { is_unreachable: false, .. } => false,
            CircuitState::Open { until, .. } if Instant::now() >= until => {
                self.enter(&mut inner, CircuitState::HalfOpen);
                true
            }
            CircuitState::Open { .. } | CircuitState::HalfOpen => return None,
        };
        Some(Pass { breaker: self, is_probe, has_result: false })
    }

    /// Returns the state.
    pub fn state(&self) -> BreakerState {
        self.lock().state.shown()
    }

    /// Returns the failure that opened the breaker, or the last one before.
    pub fn cause(&self) -> String {
        self.lock().cause.clone()
    }

    /// Notes that the upstream answered a call that was made without permission.
    pub fn answered(&self) {
        self.close();
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.failed.clear();
        // The next outage begins with `breaker.open_for` again.
        inner.next_open = Duration::ZERO;
        if !matches!(inner.state, CircuitState::Closed) {
            self.enter(&mut inner, CircuitState::Closed);
            tracing::info!("breaker closed: the upstream answers again");
        }
    }

    fn fail(&self, config: &config::BreakerConfig, is_probe: bool, fault: &HostFault<'_>) {
        let mut inner = self.lock();
        let HostFault { cause, is_unreachable, .. } = *fault;
        inner.note(fault.requests, config.failures);
        cause.clone_into(&mut inner.cause);
        // A limit of 0 turns the breaker off.
        let too_many = config.failures > 0 && inner.failed.len() >= config.failures as usize;
        let was_closed = matches!(inner.state, CircuitState::Closed);
        // Calls still pass while the upstream accepts connections; now they must stop.
        let is_worse = matches!(inner.state, CircuitState::Open { is_unreachable: false, .. }) && is_unreachable;
        if is_probe || (was_closed && too_many) || is_worse {
            // `clamp` panics if its upper bound is below the lower one.
            let open_for = inner.next_open.clamp(config.open_for, config.max_open.max(config.open_for));
            self.enter(&mut inner, CircuitState::Open { until: Instant::now() + open_for, is_unreachable });
            // Only failed connections double the time, because otherwise calls pass anyway.
            if is_unreachable {
                inner.next_open = open_for.saturating_mul(2);
            }
            // A failed probe repeats the known state, so it is not logged.
            if was_closed {
                tracing::warn!(cause, requests = inner.failed.len(), "breaker opened: the upstream keeps failing");
            }
        }
    }

    fn release_probe(&self) {
        let mut inner = self.lock();
        // `let_others_pass` or another answer may have changed the state since the probe began.
        if matches!(inner.state, CircuitState::HalfOpen) {
            // The next call becomes the probe at once.
            self.enter(&mut inner, CircuitState::Open { until: Instant::now(), is_unreachable: true });
        }
    }

    /// Changes the state, and shows it in the metrics.
    fn enter(&self, inner: &mut BreakerInner, state: CircuitState) {
        inner.state = state;
        (self.report)(state.shown());
    }

    fn lock(&self) -> MutexGuard<'_, BreakerInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CircuitState {
    /// Returns the state as operators see it, without the times.
    const fn shown(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::HalfOpen => BreakerState::HalfOpen,
            Self::Open { .. } => BreakerState::Open,
        }
    }
}

impl BreakerInner {
    /// Notes failed requests. A request that fails repeatedly counts once, because it may be the cause itself.
    fn note(&mut self, requests: &[u64], enough: u32) {
        for request in requests {
            if self.failed.len() < enough as usize && !self.failed.contains(request) {
                self.failed.push(*request);
            }
        }
    }
}

impl Pass<'_> {
    /// Notes that the upstream answered, even if with a refusal.
    pub fn answered(mut self) {
        // `Drop` runs next and must not release a probe that has a result.
        self.has_result = true;
        self.breaker.close();
    }

    /// Returns true if this call tests whether the upstream is reachable again.
    pub const fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Lets other calls pass, because the probe takes longer than a refused connection. Its answer may take long, and
    /// other calls need not wait for it.
    pub fn let_others_pass(&self) {
        let mut inner = self.breaker.lock();
        if self.is_probe && matches!(inner.state, CircuitState::HalfOpen) {
            // All calls pass in this state, but the metrics keep showing an open breaker.
            self.breaker.enter(&mut inner, CircuitState::Open { until: Instant::now(), is_unreachable: false });
        }
    }

    /// Notes that no connection gave an answer.
    pub fn failed(mut self, config: &config::BreakerConfig, fault: &HostFault<'_>) {
        self.has_result = true;
        self.breaker.fail(config, self.is_probe, fault);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.has_result {
            self.breaker.release_probe();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: config::BreakerConfig =
        config::BreakerConfig { failures: 3, open_for: Duration::from_secs(1), max_open: Duration::from_secs(3) };

    fn opened() -> Breaker {
        let breaker = Breaker::new(Metrics::new("test"));
        for request in 0..3 {
            fail(&breaker, request);
        }
        breaker
    }

    fn fail(breaker: &Breaker, request: u64) {
        fail_as(breaker, request, true);
    }

    fn fail_as(breaker: &Breaker, request: u64, is_unreachable: bool) {
        let fault = HostFault { cause: "", is_unreachable, requests: &[request] };
        breaker.pass().expect("it lets a call pass").failed(&CONFIG, &fault);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_pass_while_connections_only_break_and_stop_once_unreachable() {
        let breaker = Breaker::new(Metrics::new("test"));
        (0..10).for_each(|request| fail_as(&breaker, request, false));
        assert_eq!(breaker.state(), BreakerState::Open);
        fail_as(&breaker, 10, true);
        assert!(breaker.pass().is_none());
        tokio::time::advance(CONFIG.open_for).await;
        fail_as(&breaker, 11, false);
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.pass().expect("it takes connections again").answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn only_consecutive_failures_open_the_breaker() {
        let breaker = Breaker::new(Metrics::new("test"));
        for _ in 0..10 {
            fail(&breaker, 1);
            fail(&breaker, 2);
            breaker.pass().expect("it is closed").answered();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(opened().pass().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_tests_for_recovery() {
        let breaker = opened();
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(breaker.pass().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let probe = breaker.pass().expect("its time is over");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.pass().is_none(), "one probe is enough");
        probe.answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_doubles_the_wait_up_to_the_maximum() {
        let breaker = opened();
        for open_for_ms in [1_000, 2_000, 3_000, 3_000] {
            tokio::time::advance(Duration::from_millis(open_for_ms - 1)).await;
            assert!(breaker.pass().is_none());
            tokio::time::advance(Duration::from_millis(1)).await;
            fail(&breaker, 9);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_of_one_request_do_not_open_the_breaker() {
        let breaker = Breaker::new(Metrics::new("test"));
        (0..10).for_each(|_| fail(&breaker, 1));
        assert_eq!(breaker.state(), BreakerState::Closed);
        (2..4).for_each(|request| fail(&breaker, request));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovery_resets_the_open_time() {
        let breaker = opened();
        tokio::time::advance(CONFIG.open_for).await;
        fail(&breaker, 9);
        tokio::time::advance(2 * CONFIG.open_for).await;
        breaker.pass().expect("its time is over").answered();
        (0..3).for_each(|request| fail(&breaker, request));
        tokio::time::advance(CONFIG.open_for).await;
        assert!(breaker.pass().is_some(), "the doubling began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_probe_does_not_block_other_calls() {
        let breaker = opened();
        tokio::time::advance(CONFIG.open_for).await;
        let probe = breaker.pass().expect("its time is over");
        assert!(breaker.pass().is_none());
        probe.let_others_pass();
        assert!(breaker.pass().is_some());
        probe.answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_is_replaced_by_the_next_call() {
        let breaker = opened();
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(breaker.pass().expect("its time is over"));
        assert!(breaker.pass().is_some());
    }
}

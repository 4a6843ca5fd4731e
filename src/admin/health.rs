//! Liveness, readiness and health.

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminContext;
use super::guard::Detail;
use super::reply::{self, AdminResponse, rounded, share};
use crate::cache::Tier;
use crate::observe::metrics::{BreakerState, IncidentState, MAX_INCIDENTS};
use crate::process::clock::{Period, rfc3339};

/// Error rate above which the service is degraded.
const DEGRADED_ERROR_RATE: f64 = 0.05;
/// Error rate above which the service has failed.
const FAILED_ERROR_RATE: f64 = 0.5;
/// With fewer requests, the error rate is ignored: one failure among three is no outage.
const FEWEST_REQUESTS: u64 = 20;
/// Share of the memory limit above which the governor is active.
const DEGRADED_MEMORY_PERCENT: f64 = 85.0;

/// `GET /livez`: any response proves liveness.
pub(super) fn live() -> AdminResponse {
    reply::ok(&json!({ "alive": true }))
}

/// `GET /readyz`
pub(super) fn ready(context: &AdminContext) -> AdminResponse {
    let (ready, reason) = match (context.lifecycle.is_draining(), context.lifecycle.is_ready()) {
        // Readiness never returns once the drain has begun.
        (true, _) => (false, "draining"),
        (false, true) => (true, "ready"),
        (false, false) => (false, "starting"),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &json!({ "ready": ready, "reason": reason }))
}

/// `GET /api/performance/health`. The status is always 200; `/readyz` is the probe for load balancers.
///
/// Callers with access to figures only get neither incidents nor causes: a cause can name addresses and folders.
pub(super) fn health(context: &AdminContext, detail: Detail) -> AdminResponse {
    let mut figures = figures(context, detail);
    if detail == Detail::Full {
        figures["incidents"] = incidents(context, MAX_INCIDENTS);
    }
    reply::ok(&figures)
}

/// Returns the newest incidents of the upstream, newest first.
pub(super) fn incidents(context: &AdminContext, most: usize) -> Value {
    json!(context.metrics.incidents().newest(most))
}

/// Returns the health figures without incidents.
pub(super) fn figures(context: &AdminContext, detail: Detail) -> Value {
    let signs = match detail {
        Detail::Full => Signs::of(context),
        Detail::Figures => Signs::of(context).without_causes(),
    };
    let verdict = signs.verdict();
    json!({
        "status": verdict.status,
        "warnings": verdict.warnings,
        "key_metrics": {
            "avg_response_time_ms": rounded(signs.avg_response_time_ms, 3),
            "error_rate": rounded(signs.error_rate, 4),
            "memory_percent": rounded(signs.memory_percent, 1),
        },
    })
}

/// Input of the health verdict.
#[derive(Debug)]
struct Signs {
    ready: bool,
    draining: bool,
    breaker: BreakerState,
    /// Milliseconds since the epoch.
    now_ms: u64,
    /// The incident that is active or was active within the last minute.
    incident: Option<IncidentState>,
    /// True if the configuration as last read is in force.
    is_config_current: bool,
    /// Models whose vectors have changed behind their names.
    changed_models: Vec<String>,
    /// Targets that give other vectors than the others, each with the model.
    odd_targets: Vec<(String, String)>,
    /// Configured tiers that do not work, with the cause if it is known. They cause only a warning, because a lookup in
    /// a tier that is down is a miss.
    tiers_down: Vec<(Tier, Option<String>)>,
    avg_response_time_ms: f64,
    /// Error rate of the last minute. An outage that is over no longer counts.
    error_rate: f64,
    /// Requests in the last minute.
    requests: u64,
    /// Memory in use, as a percentage of vecho's limit.
    memory_percent: f64,
    /// Warnings about budgets that are spent.
    budgets: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    warnings: Vec<String>,
}

impl Signs {
    fn of(context: &AdminContext) -> Self {
        let now_ms = context.clock.now_ms();
        let performance = context.metrics.performance().snapshot();
        let down = context.caches.stats().into_iter().filter(|(_, stats)| !stats.up);
        Self {
            tiers_down: down.map(|(tier, stats)| (tier, stats.cause)).collect(),
            ready: context.lifecycle.is_ready(),
            draining: context.lifecycle.is_draining(),
            breaker: context.metrics.upstream.breaker.state(),
            now_ms,
            incident: context.metrics.incidents().standing(now_ms),
            changed_models: context.metrics.watch.changed(),
            odd_targets: context.metrics.targets.disagreeing(),
            is_config_current: context.metrics.status.is_config_current(),
            avg_response_time_ms: performance.avg_response_time_ms,
            error_rate: performance.recent_error_rate,
            requests: performance.recent_requests,
            memory_percent: share(context.governor.resident_bytes(), context.governor.limit_bytes()) * 100.0,
            budgets: context.spend.report().map(|report| report.warnings()).unwrap_or_default(),
        }
    }

    fn without_causes(mut self) -> Self {
        for (_, cause) in &mut self.tiers_down {
            *cause = None;
        }
        if let Some(incident) = &mut self.incident {
            incident.cause.clear();
        }
        self
    }

    fn verdict(&self) -> Verdict {
        let warnings = self.warnings();
        // A drain is intended, so it degrades the service but is no error.
        let failed = (!self.ready && !self.draining) || self.errors_exceed(FAILED_ERROR_RATE);
        let status = match (failed, warnings.is_empty()) {
            (true, _) => "error",
            (false, false) => "degraded",
            (false, true) => "healthy",
        };
        Verdict { status, warnings }
    }

    fn errors_exceed(&self, rate: f64) -> bool {
        self.requests >= FEWEST_REQUESTS && self.error_rate > rate
    }

    fn warnings(&self) -> Vec<String> {
        let signs = [
            self.readiness(),
            self.incident("answers are mocks", "answers were mocks", |incident| incident.mocks),
            self.incident("answers are stale", "answers were stale", |incident| incident.stale),
            self.failing(),
            self.calling(),
            self.errors(),
            self.memory(),
            self.configuration(),
            self.drift(),
        ];
        let tiers = self.tiers_down.iter().map(|(tier, cause)| match cause {
            Some(cause) => format!("the {} tier is down: {cause}", tier.label()),
            None => format!("the {} tier is down", tier.label()),
        });
        let odd = self.odd_targets.iter().map(|(target, model)| {
            format!("the target {target} gives other vectors for `{model}` than the others, so it gets no calls for it")
        });
        signs.into_iter().flatten().chain(tiers).chain(odd).chain(self.budgets.iter().cloned()).collect()
    }

    fn readiness(&self) -> Option<String> {
        match (self.draining, self.ready) {
            (true, _) => Some("draining: requests under way are finished, new ones refused".to_owned()),
            (false, false) => Some("starting: requests are not accepted yet".to_owned()),
            (false, true) => None,
        }
    }

    /// Returns a warning if requests fail without a fallback answer.
    fn failing(&self) -> Option<String> {
        let stands_in = |incident: &&IncidentState| incident.mocks.is_none() && incident.stale.is_none();
        // With a fallback, another warning already describes the outage.
        self.incident.as_ref().filter(stands_in)?;
        self.incident("requests fail", "requests failed", |incident| incident.errors)
    }

    fn incident(&self, now: &str, before: &str, spell: impl Fn(&IncidentState) -> Option<Period>) -> Option<String> {
        let incident = self.incident.as_ref()?;
        let seconds_ago = |at_ms: u64| self.now_ms.saturating_sub(at_ms) / 1000;
        let when = match spell(incident)? {
            Period::Since(at) => {
                format!("the upstream is unavailable and {now}, since {} s ({})", seconds_ago(at), rfc3339(at))
            }
            Period::Until(at) => format!("{before} until {} s ago ({})", seconds_ago(at), rfc3339(at)),
        };
        let cause = if incident.cause.is_empty() { String::new() } else { format!(": {}", incident.cause) };
        Some(format!("{when}, for {}{cause}", named(&incident.models)))
    }

    fn calling(&self) -> Option<String> {
        let text = || format!("the breaker in front of the upstream is {}", self.breaker.label());
        (self.breaker != BreakerState::Closed).then(text)
    }

    fn errors(&self) -> Option<String> {
        let percent = rounded(self.error_rate * 100.0, 1);
        self.errors_exceed(DEGRADED_ERROR_RATE)
            .then(|| format!("{percent} % of the requests of the last minute ended in an error"))
    }

    fn configuration(&self) -> Option<String> {
        let text = "the last reload failed; the previous configuration stays active, and the log lists the faults";
        (!self.is_config_current).then(|| text.to_owned())
    }

    fn drift(&self) -> Option<String> {
        let text = || format!("the vectors of {} have changed behind the name", named(&self.changed_models));
        (!self.changed_models.is_empty()).then(text)
    }

    fn memory(&self) -> Option<String> {
        let percent = rounded(self.memory_percent, 1);
        (self.memory_percent > DEGRADED_MEMORY_PERCENT).then(|| format!("{percent} % of the memory limit is in use"))
    }
}

fn named(models: &[String]) -> String {
    let models: Vec<String> = models.iter().map(|model| format!("`{model}`")).collect();
    models.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(errors: Option<Period>, mocks: Option<Period>, stale: Option<Period>) -> Signs {
        let (cause, models) = ("timeout".to_owned(), vec!["m".to_owned()]);
        Signs { incident: Some(IncidentState { cause, models, errors, mocks, stale }), ..WELL }
    }

    const SINCE: Option<Period> = Some(Period::Since(1_000));
    const UNTIL: Option<Period> = Some(Period::Until(1_000));

    const WELL: Signs = Signs {
        ready: true,
        draining: false,
        breaker: BreakerState::Closed,
        now_ms: 10_000,
        incident: None,
        is_config_current: true,
        changed_models: Vec::new(),
        odd_targets: Vec::new(),
        tiers_down: Vec::new(),
        avg_response_time_ms: 1.0,
        error_rate: 0.05,
        requests: 20,
        memory_percent: 85.0,
        budgets: Vec::new(),
    };

    fn status(signs: &Signs) -> &'static str {
        signs.verdict().status
    }

    #[test]
    fn values_at_the_bounds_are_healthy() {
        assert_eq!(WELL.verdict(), Verdict { status: "healthy", warnings: vec![] });
    }

    #[test]
    fn each_problem_degrades_health_with_exactly_one_warning() {
        let troubles = [
            (incident(SINCE, SINCE, None), "answers are mocks, since 9 s (1970-01-01T00:00:01Z), for `m`: timeout"),
            (incident(None, UNTIL, None), "were mocks until 9 s ago (1970-01-01T00:00:01Z)"),
            (incident(SINCE, None, SINCE), "are stale, since 9 s"),
            (incident(None, None, UNTIL), "were stale until 9 s ago"),
            (incident(SINCE, None, None), "requests fail, since 9 s"),
            (Signs { is_config_current: false, ..WELL }, "the last reload failed"),
            (Signs { tiers_down: vec![(Tier::Redis, None)], ..WELL }, "the redis tier is down"),
            (
                Signs { tiers_down: vec![(Tier::Disk, Some("no room".to_owned()))], ..WELL },
                "the disk tier is down: no room",
            ),
            (Signs { changed_models: vec!["m".to_owned()], ..WELL }, "the vectors of `m` have changed"),
            (
                Signs { odd_targets: vec![("b".to_owned(), "m".to_owned())], ..WELL },
                "the target b gives other vectors for `m`",
            ),
            (Signs { breaker: BreakerState::Open, ..WELL }, "is open"),
            (Signs { breaker: BreakerState::HalfOpen, ..WELL }, "is half-open"),
            (Signs { error_rate: 0.051, ..WELL }, "5.1 %"),
            (Signs { memory_percent: 85.5, ..WELL }, "85.5 %"),
            (Signs { budgets: vec!["a budget is spent".to_owned()], ..WELL }, "a budget is spent"),
            (Signs { ready: false, draining: true, ..WELL }, "draining"),
        ];
        for (signs, word) in troubles {
            let verdict = signs.verdict();
            assert_eq!(verdict.status, "degraded", "{word}");
            assert_eq!(verdict.warnings.len(), 1, "{verdict:?}");
            assert!(verdict.warnings[0].contains(word), "{verdict:?}");
        }
    }

    #[test]
    fn error_rate_is_ignored_below_twenty_requests() {
        assert_eq!(status(&Signs { error_rate: 1.0, requests: 19, ..WELL }), "healthy");
        assert_eq!(status(&Signs { error_rate: 1.0, requests: 20, ..WELL }), "error");
    }

    #[test]
    fn unreadiness_or_a_high_error_rate_reports_an_error() {
        assert_eq!(status(&Signs { ready: false, ..WELL }), "error");
        assert_eq!(status(&Signs { error_rate: 0.501, ..WELL }), "error");
        assert_eq!(status(&Signs { error_rate: 0.5, ..WELL }), "degraded");
        assert_eq!(status(&Signs { ready: false, draining: true, error_rate: 1.0, ..WELL }), "error");
    }
}

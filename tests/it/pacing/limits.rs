//! Bulk jobs at services that limit the rate: no caller sees an error, and the limit is used.

use std::time::Duration;

use futures_util::future::join_all;

use super::job::{Job, Statuses};
use crate::harness::stub::{Counted, Quota, QuotaRecord, Reported};
use crate::harness::{Stub, Vecho};

/// Part of each limit that bulk calls leave to interactive ones.
const RESERVE: f64 = 0.1;

/// Least used share of a limit that is found out by refusals. It is usually above 0.98; each refusal costs the time until
/// the next call, which is longer on a busy machine.
const LEAST_USED: f64 = 0.9;

/// Requests per minute that no job reaches.
const PLENTY: f64 = 100_000.0;

/// Limits of a service.
#[derive(Clone, Copy, Debug)]
struct Case {
    reported: Reported,
    counted: Counted,
    requests: f64,
    tokens: f64,
}

/// A bucket that admits ten seconds of the limit at once.
const BUCKET: Counted = Counted::Bucket { capacity: 1.0 / 6.0 };

const WINDOW: Counted = Counted::Window { length: Duration::from_secs(10), passed: Duration::ZERO };

/// The minute ends when the job has used it up.
const MINUTE: Counted = Counted::Window { length: Duration::from_mins(1), passed: Duration::from_secs(40) };

/// A job of about four hundred requests.
const SMALL: Job = Job { inputs: 12_000, clients: 8, largest: 50, name: "small" };

impl Case {
    /// Returns the part of the limit that the job leaves to others. It leaves none of a limit that is not reported exactly.
    fn reserve(&self) -> f64 {
        let is_reported = matches!(self.reported, Reported::OpenAi | Reported::Azure);
        let is_exact = is_reported && self.counted.capacity(1.0) >= 1.0;
        if is_exact { RESERVE } else { 0.0 }
    }
}

async fn run(job: Job, case: Case, mode: &str) -> (Statuses, QuotaRecord) {
    let stub = Stub::start();
    let Case { reported, counted, requests, tokens } = case;
    stub.limit_rate(Quota { requests, tokens, counted, reported });
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_PACE_MODE", mode), ("VECHO_FALLBACK_MODE", "error")]);
    let statuses = job.run(&format!("{}/embeddings", vecho.base_url())).await;
    (statuses, stub.quota_record())
}

/// Runs the small job at each of these services at the same time.
async fn succeeds_at(cases: &[Case]) {
    let runs = join_all(cases.iter().map(|case| run(SMALL, *case, "auto"))).await;
    for (case, (statuses, record)) in cases.iter().zip(runs) {
        let (accepted, refused, used) = (record.accepted().len(), record.refused().len(), record.used(case.reserve()));
        let figures =
            format!("{used:.3} used, {accepted} accepted, {refused} refused in {:?}: {case:?}", record.took());
        assert_eq!(statuses, Statuses::from([(200, SMALL.requests().len())]), "{figures}");
        assert!(used >= LEAST_USED, "{figures}");
        assert!(refused <= accepted / 2, "{figures}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_two_hundred_thousand_texts_uses_the_reported_limit_and_meets_no_refusal() {
    let job = Job { inputs: 200_000, clients: 8, largest: 1_000, name: "bulk" };
    let counted = Counted::Bucket { capacity: 1.0 };
    let case = Case { reported: Reported::OpenAi, counted, requests: 3_000.0, tokens: 450_000.0 };
    let (statuses, record) = run(job, case, "auto").await;
    let (refused, used) = (record.refused().len(), record.used(case.reserve()));
    let figures = format!("{used:.3} used, {refused} refused in {:?}", record.took());
    assert_eq!(statuses, Statuses::from([(200, job.requests().len())]), "{figures}");
    assert!(used >= 0.95, "{figures}");
    assert!(refused <= 2, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pacing_callers_see_the_refusals() {
    let case = Case { reported: Reported::OpenAi, counted: BUCKET, requests: PLENTY, tokens: 72_000.0 };
    let (statuses, _) = run(SMALL, case, "off").await;
    let refused = statuses.get(&429).copied().unwrap_or_default();
    assert!(refused > SMALL.requests().len() / 4, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_succeed_at_services_that_report_their_limits_or_the_wait() {
    let tokens = 72_000.0;
    let cases = [
        Case { reported: Reported::OpenAi, counted: BUCKET, requests: PLENTY, tokens },
        Case { reported: Reported::OpenAi, counted: MINUTE, requests: PLENTY, tokens: 32_000.0 },
        Case { reported: Reported::OpenAi, counted: BUCKET, requests: 400.0, tokens: 1e9 },
        Case { reported: Reported::RetryAfter, counted: BUCKET, requests: PLENTY, tokens },
    ];
    succeeds_at(&cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_succeed_at_azure_and_at_services_that_report_nothing() {
    let case = |reported, counted| Case { reported, counted, requests: PLENTY, tokens: 72_000.0 };
    let [azure, silent] = [Reported::Azure, Reported::Nothing];
    let minute = Case { tokens: 32_000.0, ..case(azure, MINUTE) };
    let cases = [case(azure, BUCKET), case(azure, WINDOW), minute, case(silent, BUCKET), case(silent, WINDOW)];
    succeeds_at(&cases).await;
}

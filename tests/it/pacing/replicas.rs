//! Replicas that share one limit through Redis.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::join_all;

use super::job::{Job, Statuses};
use crate::harness::redis::Redis;
use crate::harness::stub::{Counted, Quota, QuotaRecord, Reported};
use crate::harness::{Stub, Vecho};

/// Calls a minute that the service admits, and that all replicas together may make.
const LIMIT: &str = "1200";

/// Starts two replicas whose requests are sent in calls of their own.
fn replicas(redis: &Redis, stub: &Stub) -> Vec<Vecho> {
    let url = redis.url();
    let settings = [
        ("VECHO_REDIS_URL", &*url),
        ("VECHO_REDIS_LEASE", "0s"),
        ("VECHO_PACE_SHARED", "true"),
        ("VECHO_PACE_REQUESTS_PER_MINUTE", LIMIT),
        ("VECHO_BATCH_MAX_INPUTS", "20"),
        ("VECHO_FALLBACK_MODE", "error"),
    ];
    (0..2).map(|_| Vecho::start_with(&stub.base_url(), &settings)).collect()
}

/// A service that admits ten seconds of the limit at once, and says nothing of it.
fn service() -> Stub {
    let stub = Stub::start();
    let requests = LIMIT.parse().expect("a number");
    let counted = Counted::Bucket { capacity: 1.0 / 6.0 };
    stub.limit_rate(Quota { requests, tokens: 1e9, counted, reported: Reported::Nothing });
    stub
}

fn job(name: &'static str, requests: usize) -> Job {
    Job { inputs: 20 * requests, clients: 12, largest: 20, name }
}

/// Part of the limit that was used between these seconds after the first call.
fn used(record: &QuotaRecord, seconds: Range<u64>) -> f64 {
    let accepted = record.accepted();
    let at = |seconds| accepted[0] + Duration::from_secs(seconds);
    let calls = accepted.iter().filter(|call| (at(seconds.start)..at(seconds.end)).contains(*call)).count();
    let admitted =
        LIMIT.parse::<f64>().expect("a number") / 60.0 * Duration::from_secs(seconds.end - seconds.start).as_secs_f64();
    f64::from(u32::try_from(calls).expect("a few")) / admitted
}

fn assert_shared(statuses: &[Statuses], record: &QuotaRecord, seconds: Range<u64>) {
    // Replicas begin carefully, and the last seconds belong to the replica whose job is the longer one.
    let (accepted, refused, used) = (record.accepted().len(), record.refused().len(), used(record, seconds));
    let figures = format!("{used:.3} used, {accepted} accepted, {refused} refused in {:?}", record.took());
    assert!(statuses.iter().all(|statuses| statuses.keys().eq([&200])), "{statuses:?}: {figures}");
    assert!(refused * 50 <= accepted, "{figures}");
    assert!((0.9..1.1).contains(&used), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_one_limit_also_when_redis_dies() {
    let (mut redis, stub) = (Redis::start(), service());
    let replicas = replicas(&redis, &stub);
    let urls: Vec<String> = replicas.iter().map(|replica| format!("{}/embeddings", replica.base_url())).collect();
    let jobs = [job("one", 250), job("two", 250)];
    let running = join_all(jobs.iter().zip(&urls).map(|(job, url)| job.run(url)));
    let (statuses, ()) = tokio::join!(running, async {
        // Some seconds at twenty calls a second.
        stub.arrived(150).await;
        redis.kill();
    });
    assert_shared(&statuses, &stub.quota_record(), 4..18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_alone_has_the_whole_limit_and_gives_half_of_it_to_another() {
    let (redis, stub) = (Redis::start(), service());
    let replicas = replicas(&redis, &stub);
    let urls: Vec<String> = replicas.iter().map(|replica| format!("{}/embeddings", replica.base_url())).collect();
    let (first, second) = tokio::join!(job("one", 400).run(&urls[0]), async {
        stub.arrived(80).await;
        job("two", 120).run(&urls[1]).await
    });
    // The second one begins after four seconds, with a tenth of the limit at once that the first one does not know of.
    assert_shared(&[first, second], &stub.quota_record(), 8..18);
}

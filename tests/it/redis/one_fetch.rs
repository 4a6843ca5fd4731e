//! One fetch of each text by several processes that run the same job, with the default settings of leases.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::harness::client::post;
use crate::harness::front::{texts_of, tiny};
use crate::harness::redis::{Cluster, Redis};
use crate::harness::{Behaviour, Client, Stub, Vecho};

/// Number of processes that run the job.
const PROCESSES: usize = 3;
/// Texts of one request.
const BATCH: usize = 20;
/// Requests of one process under way at a time.
const AT_ONCE: usize = 8;
/// Time of a call to the upstream.
const CALL: Duration = Duration::from_millis(100);

/// Texts in an order of their own for each process.
struct Job {
    texts: Vec<String>,
}

/// One answered request of a job.
struct Answered {
    status: u16,
    is_right: bool,
    took: Duration,
}

impl Job {
    fn new(count: usize) -> Self {
        Self { texts: (0..count).map(|n| format!("text {n}")).collect() }
    }

    /// Returns the batches of one process, shuffled with its number as the seed.
    fn batches(&self, process: u64) -> Vec<Vec<String>> {
        let (mut texts, mut state) = (self.texts.clone(), process + 1);
        for place in (1..texts.len()).rev() {
            // A linear congruential generator; its high bits are random enough.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from((state >> 33) % (place as u64 + 1)).expect("it is small");
            texts.swap(place, other);
        }
        texts.chunks(BATCH).map(<[String]>::to_vec).collect()
    }

    /// Runs the whole job at one process. An answer that does not arrive is left out.
    async fn run(&self, number: u64, process: &Vecho) -> Vec<Answered> {
        let (client, url) = (Client::new(), format!("{}/embeddings", process.base_url()));
        let (client, url) = (&client, &url);
        let ask = |batch: Vec<String>| async move {
            let texts: Vec<&str> = batch.iter().map(String::as_str).collect();
            let begun = Instant::now();
            let answer = client.send(post(url, &texts_of(&texts))).await.ok()?;
            let is_right = answer.status == 200 && answer.vectors() == tiny(&texts);
            Some(Answered { status: answer.status, is_right, took: begun.elapsed() })
        };
        let answers = futures_util::stream::iter(self.batches(number)).map(ask).buffer_unordered(AT_ONCE);
        answers.filter_map(std::future::ready).collect().await
    }

    fn requests(&self) -> usize {
        self.texts.len().div_ceil(BATCH)
    }
}

/// Starts the processes and waits until their Redis tiers are up.
async fn processes(stub: &Stub, url: &str, settings: &[(&str, &str)]) -> Vec<Vecho> {
    let mut environment =
        vec![("VECHO_REDIS_URL", url), ("VECHO_DISK_ENABLED", "false"), ("VECHO_FALLBACK_MODE", "error")];
    environment.extend(settings);
    let processes: Vec<Vecho> = (0..PROCESSES).map(|_| Vecho::start_with(&stub.base_url(), &environment)).collect();
    for process in &processes {
        process.logged("its tier is up").await;
    }
    processes
}

async fn run_all(job: &Job, processes: &[Vecho]) -> Vec<Vec<Answered>> {
    let runs = processes.iter().zip(0..).map(|(process, number)| job.run(number, process));
    futures_util::future::join_all(runs).await
}

/// Returns how often each text was sent to the upstream.
fn sent(stub: &Stub) -> HashMap<String, usize> {
    let mut sent = HashMap::new();
    for text in stub.embedding_calls().iter().flat_map(crate::harness::stub::Call::texts) {
        *sent.entry(text).or_default() += 1;
    }
    sent
}

fn assert_all_right(job: &Job, runs: &[Vec<Answered>]) {
    for run in runs {
        assert_eq!(run.len(), job.requests());
        let wrong: Vec<u16> = run.iter().filter(|answer| !answer.is_right).map(|answer| answer.status).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// Long enough that a busy machine does not make Redis late.
const UNHURRIED: (&str, &str) = ("VECHO_REDIS_TIMEOUT", "5s");

#[tokio::test]
async fn processes_that_run_one_job_fetch_each_text_once() {
    let (redis, stub, job) = (Redis::start(), Stub::start(), Job::new(2_000));
    stub.always(Behaviour::Delay(CALL));
    let processes = processes(&stub, &redis.url(), &[UNHURRIED]).await;
    let runs = run_all(&job, &processes).await;
    assert_all_right(&job, &runs);
    assert_eq!((stub.inputs_sent(), sent(&stub).len()), (2_000, 2_000));
}

#[tokio::test]
async fn processes_with_a_cluster_fetch_each_text_once() {
    let (cluster, stub, job) = (Cluster::start(), Stub::start(), Job::new(1_000));
    stub.always(Behaviour::Delay(CALL));
    let processes = processes(&stub, &cluster.url(), &[UNHURRIED, ("VECHO_REDIS_CLUSTER", "true")]).await;
    let runs = run_all(&job, &processes).await;
    assert_all_right(&job, &runs);
    assert_eq!((stub.inputs_sent(), sent(&stub).len()), (1_000, 1_000));
}

#[tokio::test]
async fn texts_of_a_killed_process_are_fetched_by_the_others_soon() {
    let (redis, stub, job) = (Redis::start(), Stub::start(), Job::new(1_000));
    stub.always(Behaviour::Delay(CALL));
    let mut processes = processes(&stub, &redis.url(), &[UNHURRIED]).await;
    let killed = processes.pop().expect("there are three");
    let lost = async { job.run(9, &killed).await };
    let kill = async {
        stub.arrived(15).await;
        killed.signal("KILL");
    };
    let (runs, lost, ()) = tokio::join!(run_all(&job, &processes), lost, kill);
    assert_all_right(&job, &runs);
    assert!(lost.len() < job.requests(), "it was killed before its end");
    // Only texts that it was fetching, or had not yet written to Redis, are fetched twice.
    let sent = sent(&stub);
    let twice = sent.values().filter(|count| **count > 1).count();
    assert!(sent.len() == 1_000 && sent.values().all(|count| *count <= 2), "{sent:?}");
    assert!(twice <= AT_ONCE * BATCH, "{twice} twice");
    let longest = runs.iter().flatten().map(|answer| answer.took).max().expect("there are answers");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

#[tokio::test]
async fn a_redis_that_is_lost_in_the_middle_of_a_job_fails_no_request() {
    let (mut redis, stub, job) = (Redis::start(), Stub::start(), Job::new(1_000));
    stub.always(Behaviour::Delay(CALL));
    let processes = processes(&stub, &redis.url(), &[("VECHO_REDIS_TIMEOUT", "300ms")]).await;
    let kill = async {
        stub.arrived(15).await;
        redis.kill();
    };
    let (runs, ()) = tokio::join!(run_all(&job, &processes), kill);
    assert_all_right(&job, &runs);
    let longest = runs.iter().flatten().map(|answer| answer.took).max().expect("there are answers");
    // A replica that waits notices the loss at its next question. The rest of the limit is for a busy machine.
    assert!(longest < Duration::from_secs(9), "{longest:?}");
}

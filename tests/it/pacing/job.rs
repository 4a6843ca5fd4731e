//! A bulk job: several clients with one credential send many short texts in requests of different sizes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::harness::client::{Answer, raw, vector};
use crate::harness::{Client, Stub};

/// Credential of the job.
pub(super) const BULK: &str = "Bearer sk-bulk";

/// Number of components of each vector.
const DIMENSIONS: usize = 2;

/// A bulk job.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Number of inputs in total.
    pub(super) inputs: usize,
    /// Number of clients, each with one request at a time.
    pub(super) clients: usize,
    /// Number of inputs of the largest request; the smallest has a quarter of it.
    pub(super) largest: usize,
    /// Name at the beginning of each text, so texts of different jobs differ.
    pub(super) name: &'static str,
}

/// Result of a job: the number of its requests with each status.
pub(super) type Statuses = BTreeMap<u16, usize>;

impl Job {
    /// Sends all inputs to an embeddings URL. A request that fails is not repeated.
    pub(super) async fn run(self, url: &str) -> Statuses {
        let requests = Arc::new(self.requests());
        let (next, client) = (Arc::new(AtomicUsize::new(0)), Client::new());
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let (url, requests, next, client) =
                (url.to_owned(), Arc::clone(&requests), Arc::clone(&next), client.clone());
            clients.spawn(async move {
                let mut statuses = Statuses::new();
                while let Some(inputs) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = self.send(&client, &url, inputs.clone()).await;
                    *statuses.entry(answer.status).or_default() += 1;
                }
                statuses
            });
        }
        let mut sum = Statuses::new();
        while let Some(statuses) = clients.join_next().await {
            for (status, count) in statuses.expect("a client does not panic") {
                *sum.entry(status).or_default() += count;
            }
        }
        sum
    }

    /// Returns the inputs of each request.
    pub(super) fn requests(self) -> Vec<Range<usize>> {
        let (mut requests, mut begin) = (Vec::new(), 0);
        let smallest = self.largest / 4;
        while begin < self.inputs {
            let size = smallest + requests.len() * 397 % (self.largest - smallest + 1);
            let end = (begin + size).min(self.inputs);
            requests.push(begin..end);
            begin = end;
        }
        requests
    }

    async fn send(self, client: &Client, url: &str, inputs: Range<usize>) -> Answer {
        let texts: Vec<String> = inputs.clone().map(|number| format!(r#""{} {number}""#, self.name)).collect();
        let body = format!(
            r#"{{"model":"tiny","dimensions":{DIMENSIONS},"encoding_format":"base64","input":[{}]}}"#,
            texts.join(",")
        );
        let mut request = raw(http::Method::POST, url, body);
        request.headers_mut().insert("authorization", http::HeaderValue::from_static(BULK));
        let answer = client.send(request).await.expect("the answer must arrive");
        if answer.status == 200 {
            self.check(&answer, inputs);
        }
        answer
    }

    /// Checks the number of vectors, and the last vector.
    fn check(self, answer: &Answer, inputs: Range<usize>) {
        let text = std::str::from_utf8(&answer.body).expect("an answer is text");
        assert_eq!(text.matches(r#""index":"#).count(), inputs.len());
        let (_, last) = text.rsplit_once(r#""embedding":""#).expect("a vector in base64");
        let last = last.split_once('"').map(|(last, _)| vector(&last.into()));
        let name = format!("{} {}", self.name, inputs.end - 1);
        assert_eq!(last, Some(Stub::vector("tiny", Some(DIMENSIONS), &name)), "{name}");
    }
}

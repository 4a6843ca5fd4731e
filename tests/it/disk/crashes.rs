//! The process is killed at random moments. Afterwards, no wrong vector is served, and written entries are found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::ground::{Ground, SMALL, assert_right, texts, written};
use crate::harness::{Client, Vecho, eventually};
use crate::randomised::dice::Dice;

const ROUNDS: u64 = 6;
const CALLERS: usize = 4;

/// Time after which an answered entry is on disk, even on a slow machine: its batch is gathered for a few milliseconds
/// and then written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Texts that were answered at this time.
type Answered = Vec<(Instant, Vec<String>)>;

/// Requests new texts from several callers for `at_least`, until the process is killed. Returns the texts that were
/// answered, and the time of the kill.
async fn under_load(vecho: Vecho, round: u64, at_least: Duration, dice: &mut Dice) -> (Answered, Instant) {
    let begun = Instant::now();
    let (over, url) = (Arc::new(AtomicBool::new(false)), format!("{}/embeddings", vecho.base_url()));
    let answers = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (over, answers, url) = (Arc::clone(&over), Arc::clone(&answers), url.clone());
            tokio::spawn(async move {
                let (client, mut asked) = (Client::new(), Vec::new());
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let chunk = texts(&format!("load {round} {caller} {n}"), 8);
                    let body = json!({"model": SMALL, "input": chunk, "encoding_format": "base64"});
                    let Ok(answer) = client.send(crate::harness::client::post(&url, &body)).await else { break };
                    assert_right(&answer, SMALL, &chunk);
                    asked.push((Instant::now(), chunk));
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                asked
            })
        })
        .collect();
    // The kill follows after a number of answers, not after a time, so a slow machine gets as far as a fast one.
    let enough = 1 + dice.number() % 100;
    let is_enough = async || answers.load(Ordering::Relaxed) >= enough && begun.elapsed() >= at_least;
    eventually("enough is answered", is_enough).await;
    let killed = Instant::now();
    vecho.signal("KILL");
    over.store(true, Ordering::Relaxed);
    vecho.ended();
    let mut answered = Vec::new();
    for caller in callers {
        answered.extend(caller.await.expect("a caller does not panic"));
    }
    (answered, killed)
}

fn texts_of(answered: Answered) -> Vec<String> {
    answered.into_iter().flat_map(|(_, texts)| texts).collect()
}

#[tokio::test]
async fn a_process_killed_at_random_moments_restarts_quickly_and_correctly() {
    let (ground, mut dice) = (Ground::new(), Dice::new(20_261_123));
    let (mut settled, mut loaded) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let vecho = ground.start().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let survived = ground.ask(&vecho, SMALL, &settled).await;
        assert_eq!(survived, settled.len(), "what was written before a pause is there");
        let before = super::ground::entries(&ground, &vecho).await;
        let calm = texts(&format!("calm {round}"), 64);
        ground.ask(&vecho, SMALL, &calm).await;
        written(&vecho, before + calm.len()).await;
        settled.extend(calm);
        let (answered, _) = under_load(vecho, round, Duration::ZERO, &mut dice).await;
        loaded.extend(texts_of(answered));
    }
    let vecho = ground.start().await;
    let survived = ground.ask(&vecho, SMALL, &loaded).await;
    // Entries in the queue are lost when the process dies. At this rate they are few.
    assert!(survived * 2 > loaded.len() && !loaded.is_empty(), "{survived} of {}", loaded.len());
    assert_eq!(ground.ask(&vecho, SMALL, &settled).await, settled.len());
}

#[tokio::test]
async fn a_kill_loses_only_the_entries_of_the_last_moment() {
    let (ground, mut dice) = (Ground::new(), Dice::new(20_261_130));
    let vecho = ground.start().await;
    let (mut answered, killed) = under_load(vecho, 0, 2 * WRITTEN_WITHIN, &mut dice).await;
    answered.retain(|(at, _)| *at + WRITTEN_WITHIN <= killed);
    let written = texts_of(answered);
    assert!(!written.is_empty());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, SMALL, &written).await, written.len());
}

//! A randomised test: some texts always fail, one model is down, the server is slow at times, and hundreds of
//! requests are in flight. Healthy requests must get their own vectors, and failing ones the server's own error.
//!
//! `VECHO_TEST_SEED` runs one seed instead of the fixed ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::dialect::{Dialect, Fault, refuse};
use super::front::{Front, expect_vectors, vectors};
use super::received::Received;
use super::verdict::{has_vectors, shown, word};
use crate::harness::client::Answer;
use crate::harness::stub::Input;
use crate::randomised::dice::Dice;

const SEEDS: [u64; 3] = [1, 2, 3];
const REQUESTS: usize = 400;
const AT_ONCE: usize = 60;
const TEXTS: usize = 600;

/// A text fails if its number is a multiple of this.
const FAILING: usize = 60;

/// A request and its expected content.
#[derive(Clone, Debug)]
struct Wish {
    model: &'static str,
    texts: Vec<String>,
    base64: bool,
    as_text: bool,
}

impl Wish {
    fn draw(dice: &mut Dice) -> Self {
        let model = dice.pick(&["well", "fine", "large", "sick"]);
        let as_text = dice.percent(40);
        let count = if as_text { 1 } else { 1 + dice.below(40) };
        let texts = (0..count).map(|_| format!("text {}", dice.below(TEXTS))).collect();
        Self { model, texts, base64: dice.percent(50), as_text }
    }

    fn body(&self) -> Value {
        let input = if self.as_text { json!(self.texts[0]) } else { json!(self.texts) };
        let mut body = json!({"model": self.model, "input": input});
        if self.base64 {
            body["encoding_format"] = json!("base64");
        }
        body
    }

    /// Returns the faults of its texts. The list is empty for a healthy request.
    fn faults(&self) -> Vec<Fault> {
        self.texts.iter().filter_map(|text| fault_of(text)).collect()
    }
}

/// Returns the fault of a text, which follows from its number and never changes.
fn fault_of(text: &str) -> Option<Fault> {
    let number: usize = text.strip_prefix("text ")?.parse().ok()?;
    let status = |status, message: &str| Some(Fault::Status(status, message.to_owned()));
    match number / FAILING % 4 {
        _ if !number.is_multiple_of(FAILING) => None,
        0 => status(422, "a text is odd"),
        1 => status(400, "a text is too long"),
        2 => status(500, "failed to encode response: json: unsupported value: NaN"),
        _ => Some(Fault::HangUp),
    }
}

/// Returns the server of one seed. Its failing model recovers when the test sets `recovered`.
fn server(seed: u64, recovered: Arc<AtomicBool>) -> Dialect {
    Dialect::v1("chance")
        .check(move |received| match received.model() {
            Some("sick") if !recovered.load(Ordering::SeqCst) => refuse(503, "model is not ready"),
            _ => received.texts().find_map(fault_of).map_or(Ok(()), Err),
        })
        .pace(move |received| pace(seed, received))
}

/// Returns a short delay, sometimes a long one, and more for more inputs.
fn pace(seed: u64, received: &Received) -> Duration {
    let name = received.inputs.iter().flat_map(|input| match input {
        Input::Text(text) => text.as_bytes().to_vec(),
        Input::Tokens(_) => Vec::new(),
    });
    let mut dice = Dice::new(seed).aside(&name.collect::<Vec<u8>>());
    let extra = if dice.percent(5) { 60 } else { dice.below(8) };
    Duration::from_millis((extra + received.inputs.len() / 10) as u64)
}

/// Reports a wrong answer.
fn judge(wish: &Wish, answer: &Answer) -> Result<(), String> {
    let body = String::from_utf8_lossy(&answer.body);
    let is_mock = word(answer) == "mock";
    if wish.model == "sick" {
        let is_own = answer.status == 503 && body.contains("model is not ready");
        return if is_own || is_mock { Ok(()) } else { Err(format!("{} {}", answer.status, shown(answer))) };
    }
    let faults = wish.faults();
    if faults.is_empty() {
        return has_vectors(answer, &vectors(wish.model, &wish.texts)).and_then(|()| has_encoding(answer, wish.base64));
    }
    // If several texts fail, the error of any of them is right: another request may have requested one of them.
    let is_answer = |fault: &Fault| match fault {
        Fault::Status(status, message) => answer.status == *status && body.contains(message),
        Fault::HangUp => answer.status >= 500,
    };
    if !is_mock && faults.iter().any(is_answer) {
        return Ok(());
    }
    Err(format!("{} {} in place of {faults:?}: {}", answer.status, word(answer), shown(answer)))
}

fn has_encoding(answer: &Answer, base64: bool) -> Result<(), String> {
    let items = answer.json()["data"].as_array().cloned().unwrap_or_default();
    let is_right = items.iter().all(|item| item["embedding"].is_string() == base64);
    if is_right { Ok(()) } else { Err("the other encoding".to_owned()) }
}

async fn run(seed: u64, settings: &[(&str, &str)]) {
    let (mut dice, recovered) = (Dice::new(seed), Arc::new(AtomicBool::new(false)));
    let front = Front::new(server(seed, Arc::clone(&recovered)), settings).await;
    let wishes: Vec<Wish> = (0..REQUESTS).map(|_| Wish::draw(&mut dice)).collect();
    let asks = wishes.iter().map(async |wish| (wish, front.send(&wish.body()).await));
    let answers: Vec<(&Wish, Answer)> = stream::iter(asks).buffer_unordered(AT_ONCE).collect().await;
    let wrong = answers.iter().filter_map(|(wish, answer)| Some((judge(wish, answer).err()?, wish)));
    let wrong: Vec<String> = wrong.map(|(complaint, wish)| format!("{complaint}\n    for {wish:?}")).collect();
    assert!(
        wrong.is_empty(),
        "VECHO_TEST_SEED={seed}, {settings:?}: {} of {REQUESTS} answers are wrong\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    recovered.store(true, Ordering::SeqCst);
    for wish in wishes.iter().filter(|wish| wish.model == "sick" && wish.faults().is_empty()) {
        expect_vectors(&front.send(&wish.body()).await, wish.model, &wish.texts);
    }
}

fn seeds() -> Vec<u64> {
    let one = std::env::var("VECHO_TEST_SEED").ok();
    one.map_or_else(|| SEEDS.to_vec(), |seed| vec![seed.parse().expect("a seed is a number")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the seed is for the reader of the run")]
async fn healthy_requests_always_get_their_own_vectors() {
    for seed in seeds() {
        for settings in [&[][..], &[("upstream.max_concurrent", "2")]] {
            eprintln!("seed {seed}, {settings:?}");
            run(seed, settings).await;
        }
    }
}

//! Bytes and processor time of content codings for answers: `cargo bench --profile dist --bench codings`.
//!
//! Encodes answers with the encoders of vecho and with those of other codings and levels, and decodes them as vecho
//! decodes answers of the upstream. Each time is the mean processor time of many runs, beside that of rendering the plain
//! answer.
#![expect(clippy::print_stdout, reason = "the table is the product of this program")]

mod answers;
mod codings;

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use answers::{Answer, Numbers};
use vecho::wire::Encoding;

/// Processor time for the repetitions of one measurement.
const TIME: Duration = Duration::from_millis(200);

fn main() {
    println!(
        "| answer | coding | bytes | encoding | × rendering | pays below | decoding |\n|---|---|---|---|---|---|---|"
    );
    for encoding in [Encoding::Float, Encoding::Base64] {
        for numbers in [Numbers::Halves, Numbers::Any] {
            for vectors in [1, 256] {
                print_rows(&Answer { vectors, encoding, numbers });
            }
        }
    }
}

fn print_rows(answer: &Answer) {
    let rendering = answer.rendering();
    let body = rendering.to_bytes();
    let plain = cpu_time(|| rendering.to_bytes());
    println!("| {answer} | plain | {} | {} | 1.00 | | |", body.len(), micros(plain));
    for (name, coding, encode) in codings::ALL {
        let (encoded, time) = (encode(&body), cpu_time(|| encode(&body)));
        assert!(codings::decode(*coding, &encoded) == body, "{name} must give back the answer");
        let decoding = cpu_time(|| codings::decode(*coding, &encoded));
        println!(
            "| {answer} | {name} | {:.1} % | {} | {:.2} | {} | {} |",
            share(encoded.len(), body.len()) * 100.0,
            micros(time),
            time.as_secs_f64() / plain.as_secs_f64(),
            break_even(body.len().saturating_sub(encoded.len()), time + decoding),
            micros(decoding),
        );
    }
}

/// Returns the mean processor time of one run.
fn cpu_time<T>(run: impl Fn() -> T) -> Duration {
    let mut runs = 1_u32;
    loop {
        let begun = thread_time();
        for _ in 0..runs {
            black_box(run());
        }
        let used = thread_time().saturating_sub(begun);
        if used >= TIME {
            return used / runs;
        }
        // The scheduler counts in steps of some milliseconds, so only a long measurement is exact.
        runs *= 2;
    }
}

/// Returns the processor time of this thread, by the scheduler's figures.
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has this file");
    let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is the time"))
}

/// Returns the speed of a network at which saved bytes take as long as encoding and decoding.
fn break_even(saved_bytes: usize, time: Duration) -> String {
    format!("{:.0} Mbit/s", share(saved_bytes * 8, 1_000_000) / time.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "these counts are far below 2^53")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

//! How far a command is: a bar on a terminal, now and then a line elsewhere, nothing where nobody wants to know.
//! Everything goes to standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::interval;

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at work that does not go on.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// Redraws of the bar a second.
const REDRAWS: u8 = 8;

/// Shows the progress of one command.
pub(super) struct Progress {
    look: Look,
    noun: &'static str,
    total: Option<u64>,
    begun: Instant,
    so_far: Mutex<SoFar>,
}

enum Look {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

struct SoFar {
    /// Of the total.
    place: u64,
    things: u64,
    told: Instant,
}

impl Progress {
    /// Shows how many things, called by `noun`, are done, and how far that is towards `total`, where that is known.
    pub(super) fn new(quiet: bool, noun: &'static str, total: Option<u64>) -> Self {
        let begun = Instant::now();
        let look = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Look::Quiet,
            (false, true) => Look::Bar(bar(total)),
            (false, false) => Look::Lines,
        };
        let so_far = Mutex::new(SoFar { place: 0, things: 0, told: begun });
        Self { look, noun, total: total.filter(|total| *total > 0), begun, so_far }
    }

    /// Goes on by this much towards the total, and by so many things.
    pub(super) fn advance(&self, place: u64, things: u64) {
        let mut so_far = self.lock();
        so_far.place += place;
        so_far.things += things;
        match &self.look {
            Look::Bar(bar) => {
                bar.set_position(so_far.place);
                bar.set_message(self.words(&so_far));
            }
            Look::Lines if so_far.told.elapsed() >= LINE_EVERY => {
                so_far.told = Instant::now();
                say(&self.words(&so_far));
            }
            Look::Lines | Look::Quiet => {}
        }
    }

    /// Waits for the work, and shows now and then how far it is: also while it waits itself.
    pub(super) async fn alongside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = interval(TICK_EVERY);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.advance(0, 0),
            }
        }
    }

    /// Says something that is to stay, whatever else is shown or not.
    pub(super) fn say(&self, text: &str) {
        match &self.look {
            Look::Bar(bar) => bar.suspend(|| say(text)),
            Look::Lines | Look::Quiet => say(text),
        }
    }

    /// Says how it ended, unless nobody wants to know.
    pub(super) fn end(&self, text: &str) {
        match &self.look {
            Look::Bar(bar) => bar.finish_and_clear(),
            Look::Lines => {}
            Look::Quiet => return,
        }
        say(text);
    }

    fn words(&self, so_far: &SoFar) -> String {
        words(self.noun, so_far.things, so_far.place, self.total, self.begun.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress {
    /// A command that fails leaves no bar behind.
    fn drop(&mut self) {
        if let Look::Bar(bar) = &self.look {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{wide_bar} {percent:>3} %  {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Where not even standard error takes it, nobody wants to know.
pub(super) fn say(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
fn words(noun: &str, things: u64, place: u64, total: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = things as f64 / seconds;
    let words = format!("{} {noun}, {}/s", grouped(things), grouped(rate as u64));
    let Some(total) = total.filter(|total| place > 0 && place <= *total) else {
        return words;
    };
    let left = seconds * (total - place) as f64 / place as f64;
    format!("{words}, {} left", time(left as u64))
}

fn time(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A number with a comma before every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_things_and_the_rest_of_the_total() {
        let words = |place, total| words("texts", 12_000, place, total, Duration::from_secs(10));
        assert_eq!(words(250, Some(1_000)), "12,000 texts, 1,200/s, 30 s left");
        assert_eq!(words(250, None), "12,000 texts, 1,200/s");
        assert_eq!(words(0, Some(1_000)), "12,000 texts, 1,200/s");
        assert_eq!(words(1_001, Some(1_000)), "12,000 texts, 1,200/s", "a total that was only an estimate");
    }

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([9, 61, 3_661].map(time), ["9 s", "1 min 1 s", "1 h 1 min"]);
    }
}

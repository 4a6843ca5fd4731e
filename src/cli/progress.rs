//! Progress of a command on standard error: a bar on a terminal, periodic lines otherwise, and nothing with `--quiet`.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::interval;

/// Interval between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Interval between two updates while the work makes no progress.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// Minimum time before an estimate is shown: one batch says little about the rest.
const ESTIMATE_AFTER: Duration = Duration::from_secs(5);
/// Time after which an estimate is shown even if less than two percent is done.
const ESTIMATE_ALWAYS_AFTER: Duration = Duration::from_mins(1);
/// Window of the rate for estimates, in seconds.
const MAX_TRAIL: usize = 60;
/// Maximum redraws of the bar per second.
const REDRAWS: u8 = 8;

/// Progress display of one command.
pub(super) struct ProgressDisplay {
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
    /// Progress towards the total.
    place: u64,
    things: u64,
    shown_at: Instant,
    trail: Trail,
}

/// Progress at each of the last seconds, oldest first.
#[derive(Default)]
struct Trail(VecDeque<(Duration, u64)>);

impl ProgressDisplay {
    /// Creates a display that counts things called `noun`, with the progress towards `total` if it is known.
    pub(super) fn new(quiet: bool, noun: &'static str, total: Option<u64>) -> Self {
        let begun = Instant::now();
        let look = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Look::Quiet,
            (false, true) => Look::Bar(bar(total)),
            (false, false) => Look::Lines,
        };
        let so_far = Mutex::new(SoFar { place: 0, things: 0, shown_at: begun, trail: Trail::default() });
        Self { look, noun, total: total.filter(|total| *total > 0), begun, so_far }
    }

    /// Adds progress: `place` towards the total, and a number of things.
    pub(super) fn advance(&self, place: u64, things: u64) {
        let mut so_far = self.lock();
        so_far.place += place;
        so_far.things += things;
        let place = so_far.place;
        so_far.trail.note(self.begun.elapsed(), place);
        match &self.look {
            Look::Bar(bar) => {
                bar.set_position(so_far.place);
                bar.set_message(self.words(&so_far));
            }
            Look::Lines if so_far.shown_at.elapsed() >= LINE_EVERY => {
                so_far.shown_at = Instant::now();
                say(&self.words(&so_far));
            }
            Look::Lines | Look::Quiet => {}
        }
    }

    /// Waits for the work and updates the display every second, even if the work stalls.
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

    /// Prints a permanent line, also in quiet mode.
    pub(super) fn say(&self, text: &str) {
        match &self.look {
            // The bar is hidden for the line, because both are on standard error.
            Look::Bar(bar) => bar.suspend(|| say(text)),
            Look::Lines | Look::Quiet => say(text),
        }
    }

    /// Prints the final line, except in quiet mode.
    pub(super) fn end(&self, text: &str) {
        match &self.look {
            Look::Bar(bar) => bar.finish_and_clear(),
            Look::Lines => {}
            Look::Quiet => return,
        }
        say(text);
    }

    fn words(&self, so_far: &SoFar) -> String {
        let elapsed = self.begun.elapsed();
        let left = self.total.and_then(|total| so_far.trail.left(elapsed, so_far.place, total));
        words(self.noun, so_far.things, elapsed, left)
    }

    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trail {
    fn note(&mut self, elapsed: Duration, place: u64) {
        if self.0.back().is_none_or(|(last, _)| elapsed.saturating_sub(*last) >= TICK_EVERY) {
            if self.0.len() == MAX_TRAIL {
                self.0.pop_front();
            }
            self.0.push_back((elapsed, place));
        }
    }

    /// Returns the remaining time at the rate of the last minute, once that rate is meaningful.
    fn left(&self, elapsed: Duration, place: u64, total: u64) -> Option<Duration> {
        // A fiftieth is two percent.
        let is_telling = place.saturating_mul(50) >= total || elapsed >= ESTIMATE_ALWAYS_AFTER;
        if elapsed < ESTIMATE_AFTER || !is_telling || place > total {
            return None;
        }
        // Until the window has moved, the rate counts from the start.
        let (since, from) = self.0.front().filter(|(since, _)| *since > TICK_EVERY).copied().unwrap_or_default();
        let (seconds, done) = (elapsed.saturating_sub(since).as_secs_f64(), place.saturating_sub(from));
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let left = seconds * (total - place) as f64 / done as f64;
        // Without progress the quotient is infinite.
        Duration::try_from_secs_f64(left).ok().filter(|_| done > 0)
    }
}

impl Drop for ProgressDisplay {
    /// Removes the bar of a command that fails.
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

/// Prints a line to standard error. A failed write is ignored, since there is no other place for the message.
pub(super) fn say(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
fn words(noun: &str, things: u64, elapsed: Duration, left: Option<Duration>) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = things as f64 / seconds;
    let words = format!("{} {noun}, {}/s", grouped(things), grouped(rate as u64));
    left.map_or_else(|| words.clone(), |left| format!("{words}, {} left", time(left.as_secs())))
}

fn time(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Formats a number with a comma before every three digits.
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

/// Formats a number with the verb that follows it.
pub(super) fn were(number: u64) -> String {
    format!("{} {}", grouped(number), verb(number))
}

/// Returns the verb of a number of things.
pub(super) fn verb(number: u64) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

/// Formats a number with its noun.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {noun}{end}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(places: &[(u64, u64)]) -> Trail {
        let mut trail = Trail::default();
        for (seconds, place) in places {
            trail.note(Duration::from_secs(*seconds), *place);
        }
        trail
    }

    fn left(places: &[(u64, u64)], total: u64) -> Option<u64> {
        let (elapsed, place) = *places.last()?;
        trail(places).left(Duration::from_secs(elapsed), place, total).map(|left| left.as_secs())
    }

    #[test]
    fn progress_shows_the_count_the_rate_and_the_time_left() {
        let words = |left| words("texts", 12_000, Duration::from_secs(10), left);
        assert_eq!(words(Some(Duration::from_secs(30))), "12,000 texts, 1,200/s, 30 s left");
        assert_eq!(words(None), "12,000 texts, 1,200/s");
    }

    #[test]
    fn the_time_left_is_estimated_from_the_observed_rate() {
        assert_eq!(left(&[(0, 0), (10, 250)], 1_000), Some(30));
        assert_eq!(left(&[(0, 0), (10, 1_001)], 1_000), None, "a total that was only an estimate");
        assert_eq!(left(&[(0, 0), (1, 1)], 1_000), None, "the first batch says little");
        assert_eq!(left(&[(0, 0), (9, 10)], 1_000), None, "and so does a hundredth");
        assert_eq!(left(&[(0, 0), (60, 10)], 1_000), Some(5_940), "unless that takes a minute");
        assert_eq!(left(&[(0, 0), (60, 0)], 1_000), None);
        let slow_start: Vec<_> =
            (0..100).map(|second| (second, if second < 40 { 0 } else { (second - 40) * 10 })).collect();
        assert_eq!(left(&slow_start, 1_180), Some(59), "by the last minute, whatever came before");
    }

    #[test]
    fn numbers_and_durations_are_human_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([9, 61, 3_661].map(time), ["9 s", "1 min 1 s", "1 h 1 min"]);
    }
}

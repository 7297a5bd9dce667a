//! How far long work has come: a bar at a terminal, JSON lines where there is none.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::table_text::{Paint, age, number};
use crate::telemetry::Screen;

/// Work whose end is known.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    total: u64,
    terminal: bool,
    started: Instant,
    said: Option<Instant>,
}

#[derive(Serialize)]
struct Line<'a> {
    what: &'a str,
    unit: &'a str,
    done: u64,
    of: u64,
    seconds: f64,
}

const BAR_WIDTH: u64 = 30;

impl Progress {
    /// Work on `total` of `unit`, e.g. `replay`, `epochs`. Goes to standard error.
    pub fn new(what: &'static str, unit: &'static str, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what, unit, total, terminal, started: Instant::now(), said: None }
    }

    /// So many are done. Says so a few times a second at a terminal, every five seconds where there is none.
    pub fn done(&mut self, done: u64) {
        let pause = Duration::from_millis(if self.terminal { 200 } else { 5000 });
        if done < self.total && self.said.is_some_and(|said| said.elapsed() < pause) {
            return;
        }
        self.said = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs_f64();
        if self.terminal {
            return Screen::paint(&self.bar(done, seconds, Paint::new(true)));
        }
        let line = Line { what: self.what, unit: self.unit, done, of: self.total, seconds };
        // Plain data always has a JSON form; a reader that has gone away is no failure.
        let _reader_gone = writeln!(std::io::stderr().lock(), "{}", serde_json::to_string(&line).unwrap_or_default());
    }

    /// What comes next is printed below the bar.
    pub fn finish(self) {
        if self.terminal {
            Screen::leave();
        }
    }

    fn bar(&self, done: u64, seconds: f64, paint: Paint) -> String {
        let left = match done {
            0 => String::new(),
            _ if done >= self.total => format!(", took {}", age(seconds)),
            _ => format!(", {} left", age(seconds / done as f64 * (self.total - done) as f64)),
        };
        bar(self.what, done, self.total, paint) + &format!(" {}{left}\n", self.unit)
    }
}

/// A bar, and how many of how many are done.
pub(super) fn bar(what: &str, done: u64, total: u64, paint: Paint) -> String {
    let filled = (done.min(total) * BAR_WIDTH).checked_div(total).unwrap_or(BAR_WIDTH) as usize;
    let bar = paint.green(&"█".repeat(filled)) + &paint.dim(&"░".repeat(BAR_WIDTH as usize - filled));
    format!("{what} {bar} {} of {}", number(done), number(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_says_what_is_left() {
        let progress = Progress::new("replay", "epochs", 1200);
        let (full, empty) = ("█".repeat(15), "░".repeat(15));
        assert_eq!(
            progress.bar(600, 20.0, Paint::plain()),
            format!("replay {full}{empty} 600 of 1 200 epochs, 20 s left\n")
        );
        assert!(progress.bar(1200, 40.0, Paint::plain()).ends_with("1 200 of 1 200 epochs, took 40 s\n"));
        assert!(Progress::new("replay", "epochs", 0).bar(0, 0.0, Paint::plain()).contains("0 of 0"));
    }
}

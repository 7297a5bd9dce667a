//! How many events are due now, and when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often events are handed on.
const TICK: Duration = Duration::from_millis(20);
/// Events between two looks at the clock without a rate.
const STRIDE: u64 = 2_000;

/// The course of one run.
pub struct Pace {
    started: Instant,
    rate: Option<u64>,
    deadline: Option<Duration>,
    most: u64,
    due: u64,
    stopped: Arc<AtomicBool>,
}

impl Pace {
    /// Starts now; SIGTERM and SIGINT end the run early but in order.
    pub fn start(rate: Option<u64>, seconds: Option<u64>, events: Option<u64>) -> Result<Self, String> {
        let stopped = Arc::new(AtomicBool::new(false));
        listen(Arc::clone(&stopped))?;
        Ok(Self {
            started: Instant::now(),
            rate,
            deadline: seconds.map(Duration::from_secs),
            most: events.unwrap_or(u64::MAX),
            due: 0,
            stopped,
        })
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many events must have been made by now (waits until there are new ones); `None` when it is over.
    pub fn due(&mut self) -> Option<u64> {
        let over = self.deadline.is_some_and(|deadline| self.elapsed() >= deadline);
        if self.due >= self.most || over || self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        self.due = match self.rate {
            Some(rate) => {
                if self.due > 0 {
                    std::thread::sleep(TICK);
                }
                let elapsed = self.deadline.map_or(self.elapsed(), |deadline| self.elapsed().min(deadline));
                ((elapsed.as_millis() as u64 * rate) / 1000).max(1)
            }
            None => self.due + STRIDE,
        }
        .min(self.most);
        Some(self.due)
    }
}

fn listen(stopped: Arc<AtomicBool>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("listen for signals: {error}"))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
                return;
            };
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            stopped.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

//! How long to wait before trying again: exponential with full jitter, so that many pods do not come back at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(20);

/// Counts attempts and says how long to wait.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        let ceiling = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        // A UUID's random bits serve as jitter; no other use of randomness justifies a crate for it.
        let share = (uuid::Uuid::new_v4().as_u128() >> 64) as u32;
        let jittered = ceiling.mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX));
        tokio::time::sleep(jittered).await;
    }

    /// The next failure begins at the shortest wait again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Failures in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

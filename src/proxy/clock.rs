//! The clock of one request: zero is "request head complete".

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the request's head was complete.
    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// The instant that lies `at` after the zero, for timers. Far future where it cannot be told.
    pub(crate) fn instant(&self, at: Duration) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        tokio::time::Instant::from_std(self.0 + at.min(FAR))
    }
}

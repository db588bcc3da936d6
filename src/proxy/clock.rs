//! The clock of one request: zero is "request head complete". And the beat of what is done again and again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior};

/// The time of day, as the time since 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Ticks now and then every `period`, later where one took longer.
pub fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

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

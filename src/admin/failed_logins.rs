//! Counts wrong tokens, slows down who sends them, and tells of it.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::login_throttle::LoginThrottle;
use crate::telemetry::metrics::Metrics;

/// The tries of this process.
pub(super) struct Logins {
    attempts: Mutex<LoginThrottle>,
    began: Instant,
}

impl Default for Logins {
    fn default() -> Self {
        Self { attempts: Mutex::default(), began: Instant::now() }
    }
}

impl Logins {
    /// Whether somebody at `address` may send a token now.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn may_try(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.lock().may_try(address, self.began.elapsed())
    }

    /// The token that came from `address` was wrong.
    pub(super) fn failed(&self, address: Option<IpAddr>, metrics: &Metrics) {
        let times = self.lock().failed(address, self.began.elapsed());
        metrics.admin_login_failed();
        // A guesser must not fill the log: the waits double, and so do the times that are told.
        if times.is_power_of_two() {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(
                event = "admin.login_failed",
                client.address = address,
                times,
                "somebody sent a wrong admin token"
            );
        }
    }

    pub(super) fn succeeded(&self, address: Option<IpAddr>) {
        self.lock().succeeded(address);
    }

    fn lock(&self) -> MutexGuard<'_, LoginThrottle> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

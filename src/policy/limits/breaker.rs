//! The circuit breaker of the shared store: open for a second after three failures in a row, and after each further
//! failure.

use std::time::Duration;

const FAILURES: u32 = 3;

const PAUSE: Duration = Duration::from_secs(1);

/// Closed while the store answers.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Duration,
}

impl Breaker {
    /// Whether the store may be asked.
    #[must_use]
    pub fn allows(&self, now: Duration) -> bool {
        now >= self.open_until
    }

    /// The store did not answer. Returns whether the breaker has opened now.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return false;
        }
        self.open_until = now + PAUSE;
        self.failures == FAILURES
    }

    /// The store answered. Returns whether the breaker was open.
    pub fn answered(&mut self) -> bool {
        let was_open = self.failures >= FAILURES;
        *self = Self::default();
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn three_failures_open_it_for_a_second_and_one_more_again() {
        let mut breaker = Breaker::default();
        assert_eq!([breaker.failed(ms(0)), breaker.failed(ms(1))], [false, false]);
        assert!(breaker.allows(ms(1)));
        assert!(breaker.failed(ms(2)), "told once");
        assert!(!breaker.allows(ms(1_001)) && breaker.allows(ms(1_002)));
        assert!(!breaker.failed(ms(1_002)));
        assert!(!breaker.allows(ms(2_001)) && breaker.allows(ms(2_002)));
        assert!(breaker.answered());
        assert!(!breaker.answered());
        assert_eq!([breaker.failed(ms(3_000)), breaker.failed(ms(3_000))], [false, false]);
    }
}

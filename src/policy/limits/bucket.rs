//! The token bucket of one holder: spent tokens drain with time, reserved tokens do not.
//!
//! They are two numbers. If a reservation were added to the draining number, giving it back would return a second time
//! what had drained meanwhile.

use std::time::Duration;

use crate::config::limits::TokenLimit;

/// Parts of a token in which draining is counted.
const MICRO: u64 = 1_000_000;

/// One holder's bucket. Amounts are in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// In millionths, so that slow limits drain evenly.
    spent_micro: u64,
    held: u64,
    /// When `spent_micro` was last drained.
    at: Duration,
}

/// Why a bucket has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Full {
    /// For so long, if nobody else takes anything. Holds may end sooner, and later.
    Wait(Duration),
    /// The request is larger than burst and debt together.
    TooLarge,
}

impl Bucket {
    /// Lets time pass. Time that goes backwards counts as none.
    pub(super) fn drain(&mut self, shape: &TokenLimit, now: Duration) {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let drained = u128::from(shape.per_minute) * elapsed.as_micros() / 60;
        self.spent_micro = self.spent_micro.saturating_sub(u64::try_from(drained).unwrap_or(u64::MAX));
    }

    /// Whether `amount` may be held; the bucket must have been drained to now.
    pub(super) fn fits(&self, amount: u64, shape: &TokenLimit) -> Result<(), Full> {
        if amount > shape.burst.saturating_add(shape.debt) {
            return Err(Full::TooLarge);
        }
        // What is larger than the bucket needs it empty, and goes into debt.
        let needed = self.taken_micro().saturating_add(micro(amount.min(shape.burst)));
        let over = needed.saturating_sub(micro(shape.burst));
        if over == 0 {
            return Ok(());
        }
        // Only what is spent drains; of what is held nobody knows when it ends.
        Err(Full::Wait(time_for(over.min(self.spent_micro), shape).max(Duration::from_millis(100))))
    }

    pub(super) fn hold(&mut self, amount: u64) {
        self.held = self.held.saturating_add(amount);
    }

    /// A part of a hold ends, and what was used of it (or beyond it) is spent; less than before is a refund.
    pub(super) fn settle(&mut self, released: u64, used_before: u64, used: u64) {
        self.held = self.held.saturating_sub(released);
        self.spent_micro = match used.checked_sub(used_before) {
            Some(more) => self.spent_micro.saturating_add(micro(more)),
            None => self.spent_micro.saturating_sub(micro(used_before - used)),
        };
    }

    /// Takes over what is left elsewhere, as far as that is less: holds of our own stand beside it.
    pub(super) fn follow(&mut self, remaining: u64, shape: &TokenLimit) {
        let taken = micro(shape.burst.saturating_sub(remaining));
        self.spent_micro = taken.saturating_sub(micro(self.held));
    }

    /// Tokens that could be held at once.
    pub(super) fn remaining(&self, shape: &TokenLimit) -> u64 {
        micro(shape.burst).saturating_sub(self.taken_micro()) / MICRO
    }

    /// Until all that is spent has drained.
    pub(super) fn reset(&self, shape: &TokenLimit) -> Duration {
        time_for(self.spent_micro, shape)
    }

    /// What is taken, as a share of the burst; beyond 1 in debt.
    pub(super) fn utilization(&self, shape: &TokenLimit) -> f64 {
        self.taken_micro() as f64 / micro(shape.burst).max(1) as f64
    }

    /// Whether streams that outran their holds have nothing left to take.
    pub(super) fn is_exhausted(&self, shape: &TokenLimit) -> bool {
        self.taken_micro() > micro(shape.burst)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0 && self.spent_micro == 0
    }

    /// Tokens spent and not drained, rounded up.
    pub(super) fn spent(&self) -> u64 {
        self.spent_micro.div_ceil(MICRO)
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    fn taken_micro(&self) -> u64 {
        self.spent_micro.saturating_add(micro(self.held))
    }
}

fn micro(tokens: u64) -> u64 {
    tokens.saturating_mul(MICRO)
}

/// How long so much takes to drain.
fn time_for(amount_micro: u64, shape: &TokenLimit) -> Duration {
    let micros = u128::from(amount_micro) * 60 / u128::from(shape.per_minute.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: TokenLimit = TokenLimit { per_minute: 600, burst: 100, debt: 50, output_cap: None };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_held_does_not_drain() {
        let mut bucket = Bucket::default();
        bucket.hold(60);
        bucket.drain(&SHAPE, s(3600));
        assert_eq!(bucket.remaining(&SHAPE), 40);
        bucket.settle(60, 0, 60);
        assert_eq!((bucket.held(), bucket.spent()), (0, 60));
        bucket.drain(&SHAPE, s(3603));
        assert_eq!(bucket.remaining(&SHAPE), 70, "600 a minute are 10 a second");
    }

    #[test]
    fn a_refund_gives_back_what_was_not_used_and_no_more() {
        let mut bucket = Bucket::default();
        bucket.hold(80);
        bucket.drain(&SHAPE, s(60));
        bucket.settle(80, 0, 5);
        assert_eq!((bucket.held(), bucket.spent(), bucket.remaining(&SHAPE)), (0, 5, 95));
        bucket.settle(0, 5, 3);
        assert_eq!(bucket.spent(), 3);
    }

    #[test]
    fn waiting_is_told_from_never() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.fits(100, &SHAPE), Ok(()));
        assert_eq!(bucket.fits(150, &SHAPE), Ok(()), "an empty bucket lends its debt");
        assert_eq!(bucket.fits(151, &SHAPE), Err(Full::TooLarge));
        bucket.settle(0, 0, 1);
        assert_eq!(bucket.fits(150, &SHAPE), Err(Full::Wait(Duration::from_millis(100))));
        bucket.settle(0, 1, 80);
        assert_eq!(bucket.fits(40, &SHAPE), Err(Full::Wait(s(2))));
        bucket.drain(&SHAPE, s(2));
        assert_eq!(bucket.fits(40, &SHAPE), Ok(()));
    }

    #[test]
    fn slow_limits_drain_in_small_steps() {
        let slow = TokenLimit { per_minute: 1, burst: 10, debt: 0, output_cap: None };
        let mut bucket = Bucket::default();
        bucket.settle(0, 0, 10);
        for step in 1..=60_000 {
            bucket.drain(&slow, Duration::from_millis(step));
        }
        assert_eq!(bucket.spent(), 10, "a millisecond drains 16 of its 16.7 millionths");
        assert!(bucket.reset(&slow) < s(546) && bucket.reset(&slow) > s(540));
        bucket.drain(&slow, s(30));
        assert_eq!(bucket.spent(), 10, "time does not go backwards");
    }

    proptest! {
        /// Whatever comes in whatever order, numbers neither wrap nor go below nothing, and what is admitted in a window
        /// is bounded by burst + rate x window where nobody takes more than was held.
        #[test]
        fn no_overshoot_where_holds_are_upper_bounds(
            rate in 1_u64..100_000, burst in 1_u64..50_000,
            steps in proptest::collection::vec((0_u64..5_000, 1_u64..10_000, 0.0_f64..=1.0, any::<bool>()), 1..60),
        ) {
            let shape = TokenLimit { per_minute: rate, burst, debt: 0, output_cap: None };
            let (mut bucket, mut now, mut admitted) = (Bucket::default(), Duration::ZERO, 0_u64);
            let mut open: Vec<(u64, u64)> = Vec::new();
            for (pause_ms, amount, share, ends) in steps {
                now += Duration::from_millis(pause_ms);
                bucket.drain(&shape, now);
                if bucket.fits(amount, &shape).is_ok() {
                    bucket.hold(amount);
                    open.push((amount, (amount as f64 * share) as u64));
                }
                if ends && let Some((held, used)) = open.pop() {
                    bucket.settle(held, 0, used);
                    admitted += used;
                }
                prop_assert!(bucket.remaining(&shape) <= burst);
            }
            for (held, used) in open {
                bucket.settle(held, 0, used);
                admitted += used;
            }
            prop_assert_eq!(bucket.held(), 0);
            let drained = u128::from(rate) * now.as_millis() / 60_000;
            prop_assert!(u128::from(admitted) <= u128::from(burst) + drained + 1);
        }
    }
}

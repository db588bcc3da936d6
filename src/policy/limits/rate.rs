//! Requests a minute, as in `governor` (GCRA): the only state is the time at which the next request would be due.
//! `governor` checks and takes in one step; here a check can be discarded, so that a request which another limit
//! refuses takes nothing.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// The theoretical arrival time of the next request.
pub(super) type Due = Nanos;

/// A request that may pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// The state once it has passed.
    pub(super) due: Due,
    /// Requests that could follow at once.
    pub(super) remaining: u32,
}

/// Whether one more request may pass now; else how long to wait.
pub(super) fn check(per_minute: NonZeroU32, due: Option<Due>, now: Duration) -> Result<Pass, Duration> {
    // governor counts from its limiter's start: here from zero, where all of our times count from.
    let time = Cell::new(Nanos::default());
    let quota = Quota::per_minute(per_minute);
    let limiter: RateLimiter<_, _, _, StateInformationMiddleware> =
        RateLimiter::new(quota, Slot(Cell::new(due)), Hand(&time));
    let now = nanos(now);
    time.set(now);
    match limiter.check() {
        Ok(snapshot) => {
            let due = limiter.into_state_store().0.get().unwrap_or_default();
            Ok(Pass { due, remaining: snapshot.remaining_burst_capacity() })
        }
        Err(refused) => Err(refused.wait_time_from(now)),
    }
}

/// Until the whole minute's worth could be asked at once.
pub(super) fn reset(due: Due, now: Duration) -> Duration {
    due.duration_since(nanos(now)).into()
}

/// The state of which [`reset`] tells `busy`.
pub(super) fn due_after(busy: Duration, now: Duration) -> Due {
    nanos(now + busy)
}

fn nanos(time: Duration) -> Nanos {
    Nanos::new(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2))
}

/// The state of one limiter, in hand.
struct Slot(Cell<Option<Due>>);

impl StateStore for Slot {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (passed, due) = decide(self.0.get())?;
        self.0.set(Some(due));
        Ok(passed)
    }
}

/// A clock that is set by hand.
#[derive(Clone)]
struct Hand<'a>(&'a Cell<Nanos>);

impl Clock for Hand<'_> {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIXTY: NonZeroU32 = NonZeroU32::new(60).unwrap();

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_one_by_one() {
        let mut due = None;
        for left in (0..60).rev() {
            let pass = check(SIXTY, due, Duration::from_secs(100)).unwrap();
            assert_eq!(pass.remaining, left);
            due = Some(pass.due);
        }
        let wait = check(SIXTY, due, Duration::from_secs(100)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(reset(due.unwrap(), Duration::from_secs(100)), Duration::from_secs(60));
        assert!(check(SIXTY, due, Duration::from_secs(101)).is_ok());
    }

    #[test]
    fn a_look_takes_nothing() {
        for _ in 0..1000 {
            assert_eq!(check(SIXTY, None, Duration::ZERO).unwrap().remaining, 59);
        }
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate(per_minute in 1_u32..5_000, pauses_ms in proptest::collection::vec(0_u64..2_000, 1..300)) {
            let rate = NonZeroU32::new(per_minute).unwrap();
            let (mut now, mut due, mut passed) = (Duration::from_secs(1), None, 0_u64);
            for pause in pauses_ms {
                now += Duration::from_millis(pause);
                if let Ok(pass) = check(rate, due, now) {
                    due = Some(pass.due);
                    passed += 1;
                }
            }
            let bound = u64::from(per_minute) + u64::from(per_minute) * (now.as_millis() as u64 - 1_000) / 60_000 + 1;
            prop_assert!(passed <= bound, "{} of {}", passed, bound);
        }
    }
}

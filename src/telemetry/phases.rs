//! Where the time of a request goes: a stopwatch that is in exactly one phase at any time.

use crate::words::worded;
use std::time::Duration;

worded! {
    /// Where the time of a request went. The phases add up to the duration.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Phase {
        /// Reading the request body.
        Receive = "receive",
        /// Deciding: hygiene, routing, limits.
        Admit = "admit",
        /// Lost on attempts that were replaced.
        FailedAttempts = "failed_attempts",
        Connect = "connect",
        /// From the request's last byte to the answer's first.
        UpstreamWait = "upstream_wait",
        /// From the answer's head to the first token.
        Preamble = "preamble",
        /// From the first token on, waiting for the upstream.
        Generation = "generation",
        /// Waiting for the client to take bytes.
        ClientBlocked = "client_blocked",
        /// Our own work between a read's return and the write's start.
        Proxy = "proxy",
    }
}

/// Time per [`Phase`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases([Duration; 9]);

impl Phases {
    pub fn get(&self, phase: Phase) -> Duration {
        self.0.get(phase as usize).copied().unwrap_or_default()
    }

    pub fn add(&mut self, phase: Phase, time: Duration) {
        if let Some(slot) = self.0.get_mut(phase as usize) {
            *slot += time;
        }
    }

    /// The sum of all phases: the request's duration.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// Each phase with its time, in [`Phase::ALL`]'s order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        Phase::ALL.into_iter().map(|phase| (phase, self.get(phase)))
    }
}

/// A stopwatch that is in exactly one phase at any time, so that the phases add up to the total.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    phases: Phases,
    current: Phase,
    since: Duration,
}

impl Stopwatch {
    /// Starts at zero, in `phase`.
    pub fn start(phase: Phase) -> Self {
        Self { phases: Phases::default(), current: phase, since: Duration::ZERO }
    }

    /// Books the time since the last switch on the current phase, and enters `phase`.
    pub fn enter(&mut self, phase: Phase, now: Duration) {
        self.phases.add(self.current, now.saturating_sub(self.since));
        self.since = self.since.max(now);
        self.current = phase;
    }

    pub fn current(&self) -> Phase {
        self.current
    }

    /// What was booked until the current phase began.
    pub fn booked(&self) -> &Phases {
        &self.phases
    }

    /// What was booked until `now`.
    pub fn read(&self, now: Duration) -> Phases {
        let mut phases = self.phases;
        phases.add(self.current, now.saturating_sub(self.since));
        phases
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn words_are_distinct_and_slots_match() {
        let mut words: Vec<_> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Phase::ALL.len());
        for (slot, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, slot);
        }
    }

    #[test]
    fn time_is_booked_on_the_phase_it_was_spent_in() {
        let mut stopwatch = Stopwatch::start(Phase::Admit);
        stopwatch.enter(Phase::Connect, ms(3));
        stopwatch.enter(Phase::UpstreamWait, ms(10));
        let phases = stopwatch.read(ms(30));
        assert_eq!(phases.get(Phase::Admit), ms(3));
        assert_eq!(phases.get(Phase::Connect), ms(7));
        assert_eq!(phases.get(Phase::UpstreamWait), ms(20));
        assert_eq!(phases.total(), ms(30));
    }

    #[test]
    fn a_clock_that_goes_back_books_nothing_twice() {
        let mut stopwatch = Stopwatch::start(Phase::Admit);
        stopwatch.enter(Phase::Connect, ms(10));
        stopwatch.enter(Phase::Proxy, ms(4));
        assert_eq!(stopwatch.read(ms(12)).total(), ms(12));
    }

    proptest! {
        /// Invariant: whatever a request does, its phases add up to its total, and no time is lost or made.
        #[test]
        fn phases_add_up_to_the_total(
            steps in proptest::collection::vec((0..Phase::ALL.len(), 0_u64..5_000), 0..60),
            tail in 0_u64..5_000,
        ) {
            let mut stopwatch = Stopwatch::start(Phase::Admit);
            let mut now = Duration::ZERO;
            for (slot, passed) in steps {
                now += ms(passed);
                stopwatch.enter(Phase::ALL[slot], now);
                prop_assert_eq!(stopwatch.read(now).total(), now);
            }
            now += ms(tail);
            let phases = stopwatch.read(now);
            prop_assert_eq!(phases.total(), now);
            prop_assert_eq!(phases.iter().map(|(_, time)| time).sum::<Duration>(), now);
        }
    }
}

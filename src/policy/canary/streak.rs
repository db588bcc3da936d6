//! The fast rule: a canary that fails every time is not waited for.
//!
//! It rolls back after 5 failures of the canary in a row, while from the first of them on all the baseline's requests
//! succeeded, of which there must be enough. How many is what bounds the false alarms. Let the canary be like the baseline,
//! and a request be the canary's with probability p, whatever comes of it. From the canary's n-th request on
//! the rule strikes only if the next failures, four at least, are all the canary's, and the next L successes all the
//! baseline's: with a probability of at most p^4·(1 - p)^L, whatever fails and whenever. That is largest at
//! p = 4/(4 + L), and below (4/(e·L))^4. L is as large as it takes to make that s·6/(π²·n²) at the canary's n-th request;
//! summed over all n it is s, for every p.
//!
//! Requests of an epoch are compared with each other alone: a row does not go on over the beginning of one.

use std::f64::consts::{E, PI};

use serde::{Deserialize, Serialize};

use super::facts::Arm;

/// Failures in a row.
const FAILURES: u64 = 5;

/// Those of them that follow the first one.
const FOLLOWING: f64 = 4.0;

/// Who failed and who succeeded last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Streak {
    /// Canary requests whose end is known.
    canary: u64,
    /// Canary failures since its last success, or the baseline's last failure.
    failures: u64,
    /// Baseline successes since the first of them.
    successes: u64,
    /// Whose the first of the failures was.
    #[serde(skip)]
    first: Option<u64>,
    /// Another had one too.
    #[serde(skip)]
    is_shared: bool,
}

/// The rule has struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    /// Canary failures in a row.
    pub failures: u64,
    /// Baseline successes in a row.
    pub successes: u64,
}

impl Streak {
    pub(super) fn note(&mut self, arm: Arm, unit: u64, failed: bool) {
        self.canary += u64::from(arm == Arm::Canary);
        match (arm, failed) {
            (Arm::Baseline, false) => self.successes += u64::from(self.failures > 0),
            (Arm::Baseline, true) | (Arm::Canary, false) => self.end_row(),
            (Arm::Canary, true) => {
                self.failures += 1;
                let first = *self.first.get_or_insert(unit);
                self.is_shared |= first != unit;
            }
        }
    }

    /// Whose the first failure of the row was, and whether another had one: what is not stored.
    pub(super) fn row(&self) -> (Option<u64>, bool) {
        (self.first, self.is_shared)
    }

    /// Goes on with a row where it stood.
    pub(super) fn set_row(&mut self, (first, is_shared): (Option<u64>, bool)) {
        (self.first, self.is_shared) = (first, is_shared);
    }

    /// What comes next is in no row with what was before.
    pub(super) fn end_row(&mut self) {
        *self = Self { canary: self.canary, ..Self::default() };
    }

    /// Whether the canary is broken, at the level `share`. The failures of one user alone do not tell: it may be the user.
    pub(super) fn broken(&self, share: f64) -> Option<Broken> {
        let struck = self.failures >= FAILURES && self.is_shared && self.successes as f64 >= needed(self.canary, share);
        struck.then_some(Broken { failures: self.failures, successes: self.successes })
    }
}

/// Baseline successes that are needed at the canary's `n`-th request.
fn needed(n: u64, share: f64) -> f64 {
    let spent = share * 6.0 / (PI * n.max(1) as f64).powi(2);
    (FOLLOWING / E * spent.powf(-1.0 / FOLLOWING)).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: f64 = 0.000_5;

    fn after(successes: u64, failures: u64, units: u64) -> Streak {
        let mut streak = Streak::default();
        streak.note(Arm::Canary, 0, true);
        (0..successes).for_each(|unit| streak.note(Arm::Baseline, unit, false));
        (1..failures).for_each(|number| streak.note(Arm::Canary, number % units, true));
        streak
    }

    #[test]
    fn five_failures_strike_while_the_baseline_succeeds() {
        assert_eq!(after(100, 5, 5).broken(SHARE), Some(Broken { failures: 5, successes: 100 }));
        assert_eq!(after(100, 4, 4).broken(SHARE), None, "too few");
        assert_eq!(after(5, 5, 5).broken(SHARE), None, "too little is known of the baseline");
        assert_eq!(after(100, 500, 1).broken(SHARE), None, "it may be the user");
        let mut both_fail = after(100, 4, 4);
        both_fail.note(Arm::Baseline, 1, true);
        (0..4).for_each(|unit| both_fail.note(Arm::Canary, unit, true));
        (0..100).for_each(|unit| both_fail.note(Arm::Baseline, unit, false));
        assert_eq!(both_fail.broken(SHARE), None);
        let mut recovered = after(100, 4, 4);
        recovered.note(Arm::Canary, 1, false);
        recovered.note(Arm::Canary, 2, true);
        assert_eq!(recovered.broken(SHARE), None);
    }

    #[test]
    fn successes_before_the_first_failure_do_not_count() {
        let mut blip = Streak::default();
        (0..10_000).for_each(|unit| blip.note(Arm::Baseline, unit, false));
        (0..5).for_each(|unit| blip.note(Arm::Canary, unit, true));
        assert_eq!(blip.broken(SHARE), None, "five failures of a moment may all have met the canary by chance");
        (0..100).for_each(|unit| blip.note(Arm::Baseline, unit, false));
        assert!(blip.broken(SHARE).is_some());
        blip.end_row();
        assert_eq!(blip.broken(SHARE), None);
    }

    #[test]
    fn false_alarms_add_up_to_the_share() {
        for p in [0.001_f64, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8] {
            let at = |n: u64| p.powi(4) * (1.0 - p).powf(needed(n, SHARE));
            let false_alarms: f64 = (1..200_000_u64).map(at).sum();
            assert!(false_alarms <= SHARE, "p = {p}: {false_alarms}");
        }
        assert_eq!(needed(5, SHARE), 25.0);
        assert_eq!(needed(1000, SHARE), 353.0);
    }
}

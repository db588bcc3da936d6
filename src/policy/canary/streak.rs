//! The fast rule: a canary that fails every time is not waited for.
//!
//! It rolls back after 5 failures of the canary in a row while the baseline's last requests all succeeded. How many must
//! have is what bounds the false alarms: where the canary fails no more often than the baseline, with a probability p,
//! five failures beside L successes come with at most p^5·(1 - p)^L, which is largest at p = 5/(5 + L) and below
//! (5/(e·L))^5. At the canary's n-th request L is as large as it takes to make that s·6/(π²·n²); summed over all n it is s,
//! whatever p is.

use std::f64::consts::{E, PI};

use serde::{Deserialize, Serialize};

use super::facts::Arm;

/// Failures in a row.
const FAILURES: u64 = 5;

/// Who failed and who succeeded last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Streak {
    /// Canary requests whose end is known.
    canary: u64,
    /// Canary failures since its last success.
    failures: u64,
    /// Baseline successes since its last failure.
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
        match (arm, failed) {
            (Arm::Baseline, false) => self.successes += 1,
            (Arm::Baseline, true) => self.successes = 0,
            (Arm::Canary, false) => {
                *self = Self { canary: self.canary + 1, successes: self.successes, ..Self::default() };
            }
            (Arm::Canary, true) => {
                self.canary += 1;
                self.failures += 1;
                let first = *self.first.get_or_insert(unit);
                self.is_shared |= first != unit;
            }
        }
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
    (FAILURES as f64 / E * spent.powf(-1.0 / FAILURES as f64)).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: f64 = 0.000_5;

    fn after(successes: u64, failures: u64, units: u64) -> Streak {
        let mut streak = Streak::default();
        (0..successes).for_each(|unit| streak.note(Arm::Baseline, unit, false));
        (0..failures).for_each(|number| streak.note(Arm::Canary, number % units, true));
        streak
    }

    #[test]
    fn five_failures_strike_while_the_baseline_succeeds() {
        assert_eq!(after(100, 5, 5).broken(SHARE), Some(Broken { failures: 5, successes: 100 }));
        assert_eq!(after(100, 4, 4).broken(SHARE), None, "too few");
        assert_eq!(after(5, 5, 5).broken(SHARE), None, "too little is known of the baseline");
        assert_eq!(after(100, 500, 1).broken(SHARE), None, "it may be the user");
        let mut both_fail = after(100, 5, 5);
        both_fail.note(Arm::Baseline, 1, true);
        assert_eq!(both_fail.broken(SHARE), None);
        let mut recovered = after(100, 4, 4);
        recovered.note(Arm::Canary, 1, false);
        recovered.note(Arm::Canary, 2, true);
        assert_eq!(recovered.broken(SHARE), None);
    }

    #[test]
    fn false_alarms_add_up_to_the_share() {
        for p in [0.001_f64, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8] {
            let false_alarms: f64 = (1..200_000_u64).map(|n| p.powi(5) * (1.0 - p).powf(needed(n, SHARE))).sum();
            assert!(false_alarms <= SHARE, "p = {p}: {false_alarms}");
        }
        assert_eq!(needed(5, SHARE), 18.0);
        assert_eq!(needed(1000, SHARE), 148.0);
    }
}

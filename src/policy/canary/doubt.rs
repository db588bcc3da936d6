//! What speaks against a next step: plain counts, long before there is evidence enough for a rollback.
//!
//! A step raises the canary's share, and is the dangerous decision; to hold costs little. So it takes more than that the
//! evidence is weak, as it is where there are few requests. Before a step each fact's counts of this step alone, in which
//! one share has drawn whose each request is, are put to Fisher's exact test: how likely would so many
//! of the bad answers be the canary's, were it like the baseline? Below [`LEVEL`] the step is not taken. More requests
//! settle it: a good canary's counts come together, and a bad one is rolled back, by its evidence alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::evidence::Pair;
use super::facts::Fact;

/// From this probability on counts are taken for chance.
const LEVEL: f64 = 0.02;

/// One fact's counts of a step, side by side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub fact: Fact,
    pub requests: Pair,
    /// Of the canary's bad answers, those of the user that has most of them.
    pub one_users: u64,
    /// The probability that a canary like the baseline has as many bad answers or more, given how many both have, and
    /// without that one user's: they may be about the user.
    pub chance: f64,
}

impl Comparison {
    pub(super) fn new(fact: Fact, requests: Pair, one_users: u64) -> Self {
        let mut others = requests;
        others.canary.yes = others.canary.yes.saturating_sub(one_users);
        others.canary.of = others.canary.of.saturating_sub(one_users);
        Self { fact, requests, one_users, chance: chance(others) }
    }

    /// Whether the next step is not taken for it.
    pub(super) fn holds(&self) -> bool {
        self.chance < LEVEL
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pair { baseline, canary } = self.requests;
        write!(f, "{} of {} {}, ", canary.yes, canary.of, self.fact.words())?;
        if self.one_users > 1 {
            write!(f, "{} of them one user's, ", self.one_users)?;
        }
        write!(f, "of the baseline's {} of {}", baseline.yes, baseline.of)
    }
}

/// One-sided p-value of Fisher's exact test: P(K >= k), K hypergeometric: y of n + m are marked, m of them drawn.
fn chance(requests: Pair) -> f64 {
    let Pair { baseline, canary } = requests;
    let (m, all, yes) = (canary.of, canary.of + baseline.of, canary.yes + baseline.yes);
    // At or below what is expected there is nothing to doubt; above it the terms fall with each k.
    if canary.yes as f64 * all as f64 <= yes as f64 * m as f64 {
        return 1.0;
    }
    let (n, m, y, mut k) = (baseline.of as f64, m as f64, yes as f64, canary.yes as f64);
    let mut term = (ln_choose(m, k) + ln_choose(n, baseline.yes as f64) - ln_choose(all as f64, y)).exp();
    let mut sum = 0.0;
    while k <= y.min(m) && term > sum * 1e-12 {
        sum += term;
        term *= (m - k) * (y - k) / ((k + 1.0) * (n - y + k + 1.0));
        k += 1.0;
    }
    sum.min(1.0)
}

fn ln_choose(n: f64, k: f64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Stirling's series from where three terms of it are exact to ten digits.
fn ln_factorial(n: f64) -> f64 {
    if n < 20.0 {
        return (2..=n as u64).map(|factor| (factor as f64).ln()).sum();
    }
    let inverse = 1.0 / n;
    let series = inverse * (1.0 / 12.0 - inverse * inverse * (1.0 / 360.0 - inverse * inverse / 1260.0));
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::canary::Tally;

    fn pair(canary: (u64, u64), baseline: (u64, u64)) -> Pair {
        let tally = |(yes, of)| Tally { yes, of };
        Pair { canary: tally(canary), baseline: tally(baseline) }
    }

    fn failed(canary: (u64, u64), baseline: (u64, u64), most: u64) -> Comparison {
        Comparison::new(Fact::Failed, pair(canary, baseline), most)
    }

    /// The sum over all outcomes, from the definition.
    fn by_counting(requests: Pair) -> f64 {
        let choose = |n: u64, k: u64| (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64);
        let (n, m) = (requests.baseline.of, requests.canary.of);
        let yes = requests.baseline.yes + requests.canary.yes;
        let ways = |k: u64| choose(m, k) * choose(n, yes - k);
        let all: f64 = (yes.saturating_sub(n)..=yes.min(m)).map(ways).sum();
        (requests.canary.yes..=yes.min(m)).map(ways).sum::<f64>() / all
    }

    #[test]
    fn it_is_fishers_exact_test() {
        let mut compared = 0;
        for (of, baseline_of) in [(1, 1), (14, 10), (20, 37), (40, 900), (30, 3)] {
            for yes in 0..=of {
                for baseline_yes in [0, 1, 2, 3, baseline_of].into_iter().filter(|yes| *yes <= baseline_of) {
                    let requests = pair((yes, of), (baseline_yes, baseline_of));
                    let is_more = yes * (of + baseline_of) > (yes + baseline_yes) * of;
                    let expected = if is_more { by_counting(requests) } else { 1.0 };
                    let it = chance(requests);
                    assert!((it - expected).abs() <= 1e-9 * expected, "{requests:?}: {it}, not {expected}");
                    compared += u64::from(is_more);
                }
            }
        }
        assert!(compared > 200, "{compared}");
        // A table that is printed in many books: tea with milk.
        assert!((chance(pair((3, 4), (1, 4))) - 17.0 / 70.0).abs() < 1e-12);
    }

    #[test]
    fn large_counts_stay_numbers() {
        assert!(chance(pair((1_000_000, 1_000_000), (0, 9_000_000))) >= 0.0);
        let usual = chance(pair((2_060, 100_000), (18_000, 900_000)));
        assert!((0.05..0.15).contains(&usual), "1.4 standard deviations: {usual}");
        assert_eq!(chance(Pair::default()), 1.0);
        assert_eq!(chance(pair((5, 5), (0, 0))), 1.0, "there is nothing to compare with");
    }

    #[test]
    fn few_requests_are_enough_where_most_fail() {
        assert!(failed((12, 19), (0, 37), 1).holds());
        assert!(failed((8, 14), (0, 10), 1).holds());
        assert!(!failed((2, 20), (0, 20), 1).holds(), "that may be chance");
        assert!(!failed((14, 20), (26, 37), 1).holds(), "both fail");
        assert_eq!(failed((12, 19), (0, 37), 1).to_string(), "12 of 19 failed, of the baseline's 0 of 37");
    }

    #[test]
    fn one_users_failures_are_left_out() {
        assert!(!failed((30, 100), (0, 100), 30).holds());
        assert!(!failed((32, 100), (1, 100), 30).holds());
        let of_others_too = failed((38, 100), (0, 100), 30);
        assert!(of_others_too.holds());
        assert_eq!(of_others_too.to_string(), "38 of 100 failed, 30 of them one user's, of the baseline's 0 of 100");
    }
}

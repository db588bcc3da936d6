//! The test of one fact: is it more frequent in the canary than in the baseline?
//!
//! A test by betting. On each block of requests a bet is laid that the canary does worse, at odds that are fair or
//! unfavourable while it does not; the wealth that the bets have won is the evidence. While the canary is no worse, the
//! wealth is a non-negative supermartingale that starts at 1, so by Ville's inequality the probability that it *ever*
//! reaches 1/a is at most a. That is why it may be looked at after every block, for as long as one likes.
//!
//! **The bet.** Let a block have n baseline and m canary answers, y of all n + m being "yes", k of them the canary's. If the
//! canary is like the baseline, then who was drawn to it has nothing to do with what was answered: each m of the n + m
//! answers are the canary's with the same probability, so k is hypergeometric, whatever the answers are. For an
//! odds ratio r > 1 the stake is multiplied by r^k / E[r^K], K being so distributed: the likelihood ratio of Fisher's
//! noncentral hypergeometric distribution. Its expectation is 1. Where the canary's odds are lower, k is
//! stochastically smaller, and the expectation is at most 1, since the factor grows with k.
//!
//! So nothing is asked of the answers, neither that their rate stands still within a block nor that they are independent of
//! each other: after a step failures are known first and successes at their ends, dependencies fail for both, load
//! rises. What is asked is that one chance, the same for all of a block, has drawn those who count in it: so a block
//! belongs to one epoch, and is closed by the number of all its users, of whichever side.
//!
//! **The ratios.** A few are fixed, and the wealth is split evenly over them. **Late harm.** A canary that was good for long
//! would have lost all wealth by the time it turns bad; so a part of it, 1/(t·(t + 1)), is only brought into play at the
//! t-th block that tells anything. A mean of such processes is one itself.

use serde::{Deserialize, Serialize};

use super::facts::Arm;

/// Odds of "yes" in the canary, relative to the baseline's, that are bet on.
const ODDS_RATIOS: [f64; 4] = [2.0, 4.0, 10.0, 50.0];

/// Wealth is not counted beyond this, so that it stays a number.
const WEALTH_MAX: f64 = 1e300;

/// How many of how many said "yes".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    pub yes: u64,
    pub of: u64,
}

impl Tally {
    fn count(&mut self, yes: bool) {
        self.yes += u64::from(yes);
        self.of += 1;
    }

    fn add(&mut self, other: Self) {
        self.yes = self.yes.saturating_add(other.yes);
        self.of = self.of.saturating_add(other.of);
    }

    fn is_sound(self) -> bool {
        self.yes <= self.of
    }
}

/// The tallies of both arms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub baseline: Tally,
    pub canary: Tally,
}

impl Pair {
    pub(super) fn count(&mut self, arm: Arm, yes: bool) {
        match arm {
            Arm::Baseline => self.baseline.count(yes),
            Arm::Canary => self.canary.count(yes),
        }
    }

    pub(super) fn is_sound(self) -> bool {
        self.baseline.is_sound() && self.canary.is_sound()
    }
}

/// The test of one fact over a whole rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// Blocks that told anything.
    blocks: u64,
    /// What is in play and what it has won, one for each of [`ODDS_RATIOS`].
    wealth: [f64; ODDS_RATIOS.len()],
    /// All blocks together.
    total: Pair,
}

impl Test {
    /// Lays the bets on a block, and settles them. The block must not have been chosen by who gave its answers.
    pub(super) fn bet(&mut self, block: Pair) {
        self.total.baseline.add(block.baseline);
        self.total.canary.add(block.canary);
        let yes = block.baseline.yes + block.canary.yes;
        let tells =
            block.baseline.of > 0 && block.canary.of > 0 && yes > 0 && yes < block.baseline.of + block.canary.of;
        if !tells {
            return;
        }
        self.blocks += 1;
        let now_in_play = 1.0 / (self.blocks as f64 * (self.blocks as f64 + 1.0));
        for (wealth, ratio) in self.wealth.iter_mut().zip(ODDS_RATIOS) {
            *wealth = ((*wealth + now_in_play) * payoff(block, ratio)).min(WEALTH_MAX);
        }
    }

    /// The e-value: 1 at the start, and expected to stay at or below it while the canary is no worse.
    pub(super) fn evidence(&self) -> f64 {
        let not_in_play = 1.0 / (self.blocks as f64 + 1.0);
        self.wealth.iter().sum::<f64>() / ODDS_RATIOS.len() as f64 + not_in_play
    }

    pub(super) fn total(&self) -> Pair {
        self.total
    }

    /// Whether a test read back is one that could have been written.
    pub(super) fn is_sound(&self) -> bool {
        let wealth = self.wealth.iter().all(|wealth| (0.0..=WEALTH_MAX).contains(wealth));
        wealth && self.total.is_sound()
    }
}

/// By what the stake is multiplied; see the module's text.
fn payoff(block: Pair, ratio: f64) -> f64 {
    let (n, m) = (block.baseline.of as f64, block.canary.of as f64);
    let yes = (block.baseline.yes + block.canary.yes) as f64;
    // The chances of each k, relative to the first one's, as logarithms: they are beyond any number where blocks are large.
    let (mut k, last) = ((yes - n).max(0.0), yes.min(m));
    let mut chance = 0.0;
    let (mut all, mut expected) = (LogSum::default(), LogSum::default());
    while k <= last {
        all.add(chance);
        expected.add(chance + k * ratio.ln());
        chance += ((m - k) * (yes - k) / ((k + 1.0) * (n - yes + k + 1.0))).ln();
        k += 1.0;
    }
    (block.canary.yes as f64 * ratio.ln() + all.ln() - expected.ln()).exp()
}

/// A sum of numbers that are given as logarithms.
struct LogSum {
    largest: f64,
    /// In units of the largest.
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        Self { largest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSum {
    fn add(&mut self, ln: f64) {
        if ln > self.largest {
            self.sum = self.sum * (self.largest - ln).exp() + 1.0;
            self.largest = ln;
        } else {
            self.sum += (ln - self.largest).exp();
        }
    }

    fn ln(&self) -> f64 {
        self.largest + self.sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The number of ways to choose `k` of `n`.
    fn choose(n: u64, k: u64) -> f64 {
        (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64)
    }

    proptest! {
        /// What validity rests on: whatever was answered, and however often, no bet is expected to win if chance alone has
        /// drawn whose answers they are.
        #[test]
        fn no_bet_is_expected_to_win_under_the_null(
            n in 1_u64..60, m in 1_u64..30, share in 0.0_f64..=1.0,
            ratio in proptest::sample::select(ODDS_RATIOS.to_vec()), better in 0.01_f64..=1.0,
        ) {
            let yes = ((n + m) as f64 * share) as u64;
            let expectation = |odds: f64| {
                let ks = || yes.saturating_sub(n)..=yes.min(m);
                let chance = |k: u64| choose(m, k) * choose(n, yes - k) * odds.powf(k as f64);
                let sum: f64 = ks().map(chance).sum();
                ks().map(|k| chance(k) / sum * payoff(block(yes - k, n, k, m), ratio)).sum::<f64>()
            };
            prop_assert!((expectation(1.0) - 1.0).abs() < 1e-9, "{}", expectation(1.0));
            prop_assert!(expectation(better) <= 1.0 + 1e-9, "{}", expectation(better));
        }

        #[test]
        fn evidence_stays_a_number(blocks in proptest::collection::vec((0_u64..50, 0_u64..50, 0_u64..50, 0_u64..50), 0..200)) {
            let mut test = Test::default();
            for (a, b, c, d) in blocks {
                test.bet(Pair {
                    baseline: Tally { yes: a.min(b), of: b },
                    canary: Tally { yes: c.min(d), of: d },
                });
                prop_assert!(test.is_sound() && test.evidence().is_finite() && test.evidence() > 0.0);
            }
        }
    }

    fn block(baseline_yes: u64, baseline_of: u64, canary_yes: u64, canary_of: u64) -> Pair {
        Pair {
            baseline: Tally { yes: baseline_yes, of: baseline_of },
            canary: Tally { yes: canary_yes, of: canary_of },
        }
    }

    #[test]
    fn evidence_grows_with_harm_and_shrinks_without() {
        let (mut bad, mut good, mut same) = (Test::default(), Test::default(), Test::default());
        assert_eq!(bad.evidence(), 1.0);
        for _ in 0..40 {
            bad.bet(block(0, 20, 2, 4));
            good.bet(block(2, 20, 0, 4));
            same.bet(block(0, 20, 0, 4));
        }
        assert!(bad.evidence() > 1e6, "{}", bad.evidence());
        assert!(good.evidence() < 0.2, "{}", good.evidence());
        assert_eq!(same.evidence(), 1.0, "where nothing happens there is no evidence");
    }

    #[test]
    fn a_canary_that_turns_bad_late_is_still_found() {
        let mut test = Test::default();
        for _ in 0..5_000 {
            test.bet(block(1, 20, 0, 4));
        }
        assert!(test.evidence() < 0.01);
        let needed = (1..).find(|_| {
            test.bet(block(1, 20, 2, 4));
            test.evidence() > 500.0
        });
        assert!(needed.unwrap() <= 30, "{needed:?} blocks");
    }

    #[test]
    fn large_blocks_stay_numbers() {
        let mut test = Test::default();
        for _ in 0..3 {
            test.bet(block(0, 2_000, 2_000, 2_000));
        }
        assert_eq!(test.evidence(), WEALTH_MAX);
        assert!(payoff(block(2_000, 2_000, 0, 2_000), 50.0) >= 0.0);
    }

    #[test]
    fn a_block_that_compares_nothing_is_no_evidence() {
        let mut test = Test::default();
        test.bet(block(0, 0, 5, 5));
        test.bet(block(3, 5, 0, 0));
        assert_eq!(test.evidence(), 1.0);
        assert_eq!(test.total(), block(3, 5, 5, 5));
    }
}

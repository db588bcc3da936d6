//! The test of one fact: is it more frequent in the canary than in the baseline?
//!
//! A test by betting. Before each block of requests a bet is laid that the canary does worse, at odds that are fair or
//! unfavourable while it does not; the wealth that the bets have won is the evidence. Under the null hypothesis (each
//! canary request of the block says "yes" with a probability θc no greater than the baseline's θb) the wealth is a
//! non-negative supermartingale that starts at 1, so by Ville's inequality the probability that it *ever* reaches 1/a is
//! at most a. That is why it may be looked at after every block, for as long as one likes.
//!
//! **The bet.** For guesses b < c of the two rates and a block of n baseline and m canary requests, let
//! z = (n·b + m·c) / (n + m). The stake is multiplied by p_b(y)/p_z(y) for each baseline answer y and by p_c(y)/p_z(y) for
//! each canary answer, p being the Bernoulli likelihood (the e-variable of Turner, Ly and Grünwald for k samples). Its
//! expectation is at most 1: one factor has the expectation 1 + (b - z)·d in the baseline, with
//! d = (θb - z) / (z·(1 - z)), and 1 + (c - z)·d' in the canary, which grows with θc since c > z and so is largest at
//! θc = θb, d' = d. The weighted mean of b - z and c - z is 0, so by the inequality of the arithmetic and the
//! geometric mean (1 + (b - z)·d)^n · (1 + (c - z)·d)^m ≤ 1. Nothing is asked of the guesses but that they
//! are made before the block, nor must θb be the same from block to block.
//!
//! **The guesses.** b is what the baseline has shown so far; c has one of a few fixed odds ratios to it, and the wealth is
//! split evenly over them. **Late harm.** A canary that was good for long would have lost all wealth by the time it turns
//! bad; so a part of it, 1/(t·(t + 1)), is only brought into play at block t. A mean of such processes is one itself.

use serde::{Deserialize, Serialize};

/// Odds of "yes" in the canary, relative to the baseline's, that are bet on.
const ODDS_RATIOS: [f64; 4] = [2.0, 4.0, 10.0, 50.0];

/// What the baseline's rate is guessed to be before anything is known: this many of so many.
const PRIOR_YES: f64 = 0.5;
const PRIOR_OF: f64 = 20.0;

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
    pub(super) fn count(&mut self, yes: bool) {
        self.yes += u64::from(yes);
        self.of += 1;
    }

    fn add(&mut self, other: Self) {
        self.yes = self.yes.saturating_add(other.yes);
        self.of = self.of.saturating_add(other.of);
    }

    pub(super) fn is_sound(self) -> bool {
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

/// The test of one fact over a whole rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// Blocks that were bet on.
    blocks: u64,
    /// What is in play and what it has won, one for each of [`ODDS_RATIOS`].
    wealth: [f64; ODDS_RATIOS.len()],
    /// All blocks together.
    total: Pair,
}

impl Test {
    /// Lays the bets on a block, and settles them. The block must not have been chosen by its answers.
    pub(super) fn bet(&mut self, block: Pair) {
        let guess = (self.total.baseline.yes as f64 + PRIOR_YES) / (self.total.baseline.of as f64 + PRIOR_OF);
        self.total.baseline.add(block.baseline);
        self.total.canary.add(block.canary);
        if block.baseline.of == 0 || block.canary.of == 0 {
            return;
        }
        self.blocks += 1;
        let now_in_play = 1.0 / (self.blocks as f64 * (self.blocks as f64 + 1.0));
        for (wealth, ratio) in self.wealth.iter_mut().zip(ODDS_RATIOS) {
            *wealth = ((*wealth + now_in_play) * payoff(block, guess, worse(guess, ratio))).min(WEALTH_MAX);
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
        wealth && self.total.baseline.is_sound() && self.total.canary.is_sound()
    }
}

/// The rate whose odds are `ratio` times those of `rate`.
fn worse(rate: f64, ratio: f64) -> f64 {
    let odds = ratio * rate / (1.0 - rate);
    odds / (1.0 + odds)
}

/// By what the stake is multiplied; see the module's text.
fn payoff(block: Pair, baseline: f64, canary: f64) -> f64 {
    let (n, m) = (block.baseline.of as f64, block.canary.of as f64);
    let null = (n * baseline + m * canary) / (n + m);
    let gain = |tally: Tally, rate: f64| {
        let no = tally.of.saturating_sub(tally.yes) as f64;
        tally.yes as f64 * (rate / null).ln() + no * ((1.0 - rate) / (1.0 - null)).ln()
    };
    (gain(block.baseline, baseline) + gain(block.canary, canary)).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `Σ_y Binomial(y; of, rate) · f(y)`.
    fn expected(of: u64, rate: f64, f: impl Fn(u64) -> f64) -> f64 {
        let mut chance = (1.0 - rate).powi(of as i32);
        let mut sum = 0.0;
        for yes in 0..=of {
            sum += chance * f(yes);
            chance *= (of - yes) as f64 / (yes + 1) as f64 * rate / (1.0 - rate);
        }
        sum
    }

    proptest! {
        /// What validity rests on, computed over all outcomes of a block: whatever was guessed, no bet is expected to win
        /// while the canary is no worse.
        #[test]
        fn no_bet_is_expected_to_win_under_the_null(
            n in 1_u64..60, m in 1_u64..30,
            guess in 0.0001_f64..0.9, ratio in proptest::sample::select(ODDS_RATIOS.to_vec()),
            theta in 0.0005_f64..0.95, better in 0.0_f64..=1.0,
        ) {
            let canary_rate = theta * better;
            let expectation = expected(n, theta, |y| {
                expected(m, canary_rate, |x| {
                    let block = Pair { baseline: Tally { yes: y, of: n }, canary: Tally { yes: x, of: m } };
                    payoff(block, guess, worse(guess, ratio))
                })
            });
            prop_assert!(expectation <= 1.0 + 1e-9, "{expectation}");
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
        for _ in 0..20 {
            bad.bet(block(0, 20, 2, 4));
            good.bet(block(2, 20, 0, 4));
            same.bet(block(0, 20, 0, 4));
        }
        assert!(bad.evidence() > 1e6, "{}", bad.evidence());
        assert!(good.evidence() < 0.2, "{}", good.evidence());
        assert!(same.evidence() < 1.0, "{}", same.evidence());
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
    fn a_block_that_compares_nothing_is_no_evidence() {
        let mut test = Test::default();
        test.bet(block(0, 0, 5, 5));
        test.bet(block(3, 5, 0, 0));
        assert_eq!(test.evidence(), 1.0);
        assert_eq!(test.total(), block(3, 5, 5, 5));
    }
}

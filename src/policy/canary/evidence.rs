//! The test of one fact: is it more frequent in the canary than in the baseline?
//!
//! A test by betting, by what is known of every request whatever becomes of it: the probability p with which it was drawn for
//! the canary, the share. On each bad answer a bet is laid that it is the canary's, at odds that are fair or unfavourable while
//! the canary is no worse; the wealth that the bets have won is the evidence. While the canary is no worse, the wealth is a
//! non-negative supermartingale that starts at 1, so by Ville's inequality the probability that it *ever* reaches 1/a is at most
//! a. That is why it may be looked at after every request, for as long as one likes.
//!
//! **The bet.** For an odds ratio r > 1 a bad answer multiplies the stake by S = r / (1 + (r - 1)·p) if it is the canary's, and by
//! S = 1 / (1 + (r - 1)·p) if not.
//!
//! **Proof.** Null hypothesis: what comes of a request, and when, does not depend on the side that it was drawn for. Then all
//! that was told before a bad answer, and that this one is bad, depend on who was drawn in other cases and on chance that
//! has no part in this draw; so it is the canary's with probability p, and `E[S] = (p·r + 1 - p) / (1 + (r - 1)·p) = 1`. Of who
//! was drawn before, [`super::drawn`] knows what was told, and says the p that is left: 0 or 1, and no bet, for a user who counted
//! under this share. With a p above the true one `E[S]` is below 1.
//!
//! **Late harm.** A canary that was good for long would have lost all wealth by the time it turns bad. So the wealth is divided
//! over the times from which on it is in play: with each [`SLOT`], 1/(1 + ln j) - 1/(1 + ln (j + 1)) in the j-th, a part of it comes
//! into play. It wins by the canary's bad answers to requests that were assigned from then on, and loses by the baseline's that were
//! too, or that are told from then on and were assigned up to [`LAG`] before. **The ratios.** A few are fixed, and each part is split evenly over them. A mean of such processes
//! is one itself.
//!
//! **A slower canary.** A part's wealth depends on how many bad answers of each side are known, and on nothing else: good ones are not
//! waited for, nor is it asked how long they take. Let a canary have the same bad answers later: of what is assigned from a
//! time on it has no more of them at any moment than one as fast as the baseline, and since S grows with each of the canary's, no
//! more wealth. A *faster* one has those that are known at an answer's end sooner. For them p is at least the canary's part of the
//! answers that have ended under this share, which a faster canary has more of just as soon.
//!
//! So nothing is asked of the answers, neither that their rate stands still nor that they are independent of each other: after
//! a step failures are known first, dependencies fail for both, load rises. Each bad answer is bet on with the share of its
//! own assignment, so it may be told after the next step, or after the one after it.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::Arm;

/// Odds of "yes" in the canary, relative to the baseline's, that are bet on.
const ODDS_RATIOS: [f64; 4] = [2.0, 4.0, 10.0, 50.0];

/// After so long another part of the wealth comes into play.
const SLOT: Duration = Duration::from_secs(30);

/// Parts of the wealth that are told apart, for ten minutes and more: the older ones are one, and do not win by what was assigned
/// before that.
const PARTS: usize = 20;

/// How much longer than the canary's the baseline's answers may take while nothing is won by that.
const LAG: Duration = Duration::from_secs(60);

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
        self.yes = self.yes.saturating_add(u64::from(yes));
        self.of = self.of.saturating_add(1);
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

    /// The canary's part of all that were counted.
    pub(super) fn canary_part(self) -> f64 {
        let all = self.baseline.of.saturating_add(self.canary.of);
        self.canary.of as f64 / all.max(1) as f64
    }

    pub(super) fn is_sound(self) -> bool {
        self.baseline.is_sound() && self.canary.is_sound()
    }
}

/// The test of one fact over a whole rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Test {
    /// Slots since the first bet, in each of which wealth came into play.
    slots: u64,
    /// The last of them, counted from 1970; 0 before the first bet, here and after a restart.
    newest: u64,
    /// What came into play, oldest first; at most [`PARTS`].
    parts: VecDeque<Part>,
    /// All answers that count together.
    total: Pair,
}

/// All that a test knows, for whoever goes on with it without a gap. Wealth is in the bits of its floats: to the last digit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WholeTest {
    slots: u64,
    newest: u64,
    /// The slot of each part, and its wealth.
    parts: Vec<(u64, [u64; ODDS_RATIOS.len()])>,
    total: Pair,
}

impl From<&Test> for WholeTest {
    fn from(test: &Test) -> Self {
        let parts = test.parts.iter().map(|part| (part.slot, part.wealth.map(f64::to_bits))).collect();
        Self { slots: test.slots, newest: test.newest, parts, total: test.total }
    }
}

impl From<WholeTest> for Test {
    fn from(whole: WholeTest) -> Self {
        let part = |(slot, wealth): (u64, [u64; ODDS_RATIOS.len()])| Part { slot, wealth: wealth.map(f64::from_bits) };
        let parts = whole.parts.into_iter().map(part).collect();
        Self { slots: whole.slots, newest: whole.newest, parts, total: whole.total }
    }
}

/// Wealth that is in play from one slot on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// Counted from 1970; 0: whenever the request was assigned.
    slot: u64,
    wealth: Wealth,
}

/// What is in play and what it has won, one for each of [`ODDS_RATIOS`].
type Wealth = [f64; ODDS_RATIOS.len()];

/// What is kept over a restart, after which nothing is told of what was assigned before.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Slots. An older version had a part come into play with each block.
    #[serde(alias = "blocks")]
    slots: u64,
    wealth: Wealth,
    total: Pair,
}

impl From<Test> for Kept {
    fn from(test: Test) -> Self {
        Self { slots: test.slots, wealth: test.in_play(), total: test.total }
    }
}

impl From<Kept> for Test {
    fn from(Kept { slots, wealth, total }: Kept) -> Self {
        let parts = (slots > 0).then_some(Part { slot: 0, wealth });
        Self { slots, newest: 0, parts: parts.into_iter().collect(), total }
    }
}

impl Part {
    fn add(&mut self, other: &Self) {
        for (wealth, more) in self.wealth.iter_mut().zip(other.wealth) {
            *wealth = (*wealth + more).min(WEALTH_MAX);
        }
    }
}

impl Test {
    pub(super) fn count(&mut self, arm: Arm, yes: bool) {
        self.total.count(arm, yes);
    }

    /// Lays the bets on whose a bad answer is, and settles them. `chance`: the probability that it would be the canary's, or
    /// more; between 0 and 1. `assigned`: when its request was, since 1970.
    pub(super) fn bet(&mut self, arm: Arm, chance: f64, assigned: Duration, now: Duration) {
        self.put_in_play(slot_of(now));
        let since = match arm {
            Arm::Baseline => slot_of(now.min(assigned + LAG)),
            Arm::Canary => slot_of(assigned),
        };
        for part in self.parts.iter_mut().take_while(|part| part.slot <= since) {
            for (wealth, ratio) in part.wealth.iter_mut().zip(ODDS_RATIOS) {
                *wealth = (*wealth * payoff(arm, chance, ratio)).min(WEALTH_MAX);
            }
        }
    }

    /// The e-value: 1 at the start, and expected to stay at or below it while the canary is no worse.
    pub(super) fn evidence(&self) -> f64 {
        self.in_play().iter().sum::<f64>() / ODDS_RATIOS.len() as f64 + reserve(self.slots)
    }

    pub(super) fn total(&self) -> Pair {
        self.total
    }

    /// Whether a test read back is one that could have been written.
    pub(super) fn is_sound(&self) -> bool {
        let mut wealth = self.parts.iter().flat_map(|part| part.wealth);
        wealth.all(|wealth| (0.0..=WEALTH_MAX).contains(&wealth)) && self.parts.len() <= PARTS && self.total.is_sound()
    }

    /// All parts together: the same as what is kept, to the last digit.
    fn in_play(&self) -> Wealth {
        let mut all = Part { slot: 0, wealth: Wealth::default() };
        self.parts.iter().for_each(|part| all.add(part));
        all.wealth
    }

    fn put_in_play(&mut self, slot: u64) {
        let before = self.slots;
        let (slots, from) = match self.newest {
            0 => (u64::from(before == 0), 0),
            newest => (slot.saturating_sub(newest), slot),
        };
        self.newest = self.newest.max(slot);
        if slots == 0 {
            return;
        }
        self.slots = before.saturating_add(slots);
        let wealth = [reserve(before) - reserve(self.slots); ODDS_RATIOS.len()];
        self.parts.push_back(Part { slot: from, wealth });
        if self.parts.len() > PARTS
            && let Some(oldest) = self.parts.pop_front()
            && let Some(next) = self.parts.front_mut()
        {
            next.add(&oldest);
        }
    }
}

/// Never 0.
fn slot_of(time: Duration) -> u64 {
    time.as_secs() / SLOT.as_secs() + 1
}

/// The part of the wealth that is not in play after so many slots.
fn reserve(slots: u64) -> f64 {
    1.0 / (1.0 + (slots as f64).ln_1p())
}

/// By what the stake is multiplied; see the module's text.
fn payoff(arm: Arm, chance: f64, ratio: f64) -> f64 {
    let won = if arm == Arm::Canary { ratio } else { 1.0 };
    won / (1.0 + (ratio - 1.0) * chance)
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;

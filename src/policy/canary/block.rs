//! Plain counts are made in blocks: short stretches of traffic, in which each user counts once for each fact, so that one busy
//! user is not a crowd.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::facts::{Arm, Fact, PerFact};

/// A block is whole when the smaller side may be expected to have this many users ...
const UNITS: u64 = 4;

/// ... or this many requests, of however few users.
const REQUESTS: u64 = 32;

/// The block being filled. What closes it is the number of all its users or requests: neither what was answered nor which
/// side answered.
#[derive(Debug)]
pub(super) struct Block {
    /// The canary's share of the time that it is of, in percent.
    share: u8,
    /// Users and requests that make it whole.
    units_max: u64,
    requests_max: u64,
    requests: u64,
    baseline: Side,
    canary: Side,
}

/// A block as it is told to whoever goes on with it. Users are in order, so that one block has one text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WholeBlock {
    /// The canary's share.
    share: u8,
    requests: u64,
    baseline: Vec<(u64, u8)>,
    canary: Vec<(u64, u8)>,
}

impl From<&Block> for WholeBlock {
    fn from(block: &Block) -> Self {
        let side = |side: &Side| {
            let mut users: Vec<(u64, u8)> = side.iter().map(|(unit, given)| (*unit, *given)).collect();
            users.sort_unstable();
            users
        };
        Self {
            share: block.share,
            requests: block.requests,
            baseline: side(&block.baseline),
            canary: side(&block.canary),
        }
    }
}

impl From<WholeBlock> for Block {
    fn from(whole: WholeBlock) -> Self {
        let empty = Self::new(whole.share);
        let most = usize::try_from(empty.units_max).unwrap_or(usize::MAX);
        let side = |users: Vec<(u64, u8)>| users.into_iter().take(most).collect();
        Self { requests: whole.requests, baseline: side(whole.baseline), canary: side(whole.canary), ..empty }
    }
}

/// The facts that each user of one side has given already, a bit each. At most as many as make a block whole.
type Side = HashMap<u64, u8, BuildHasherDefault<Unmixed>>;

/// A unit is a hash, or random, already.
#[derive(Debug, Default)]
pub(super) struct Unmixed(u64);

impl Hasher for Unmixed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |number, byte| number << 8 ^ u64::from(*byte));
    }

    fn write_u64(&mut self, unit: u64) {
        self.0 = unit;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Block {
    /// An empty block of a time in which the canary has `share` percent.
    pub(super) fn new(share: u8) -> Self {
        let smaller = u64::from(share.min(100_u8.saturating_sub(share)).max(1));
        let (units_max, requests_max) = (UNITS * 100 / smaller, REQUESTS * 100 / smaller);
        Self { share, units_max, requests_max, requests: 0, baseline: Side::default(), canary: Side::default() }
    }

    /// Whether nothing was seen of this user in the baseline yet.
    pub(super) fn is_new(&self, unit: u64) -> bool {
        !self.baseline.contains_key(&unit)
    }

    /// Takes in the answers of one request, and leaves those that its user has not given yet.
    pub(super) fn note(&mut self, arm: Arm, unit: u64, answers: PerFact<Option<bool>>) -> PerFact<Option<bool>> {
        self.requests += 1;
        let side = match arm {
            Arm::Baseline => &mut self.baseline,
            Arm::Canary => &mut self.canary,
        };
        let given = side.entry(unit).or_default();
        let mut counted = answers;
        for fact in Fact::ALL {
            let bit = 1_u8 << fact as u8;
            let answer = counted.get_mut(fact);
            *answer = answer.filter(|_| *given & bit == 0);
            *given |= if answer.is_some() { bit } else { 0 };
        }
        let units = (self.baseline.len() + self.canary.len()) as u64;
        if units >= self.units_max || self.requests >= self.requests_max {
            // The next begins, in the room of the last.
            self.requests = 0;
            self.baseline.clear();
            self.canary.clear();
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(yes: bool) -> PerFact<Option<bool>> {
        PerFact { failed: Some(yes), ..PerFact::default() }
    }

    #[test]
    fn one_user_counts_once_a_block_and_fact() {
        let mut block = Block::new(50);
        assert_eq!(block.note(Arm::Canary, 7, failed(true)), failed(true));
        for _ in 0..10 {
            assert_eq!(block.note(Arm::Canary, 7, failed(true)), PerFact::default());
        }
        let late = PerFact { late: Some(false), ..failed(true) };
        assert_eq!(block.note(Arm::Canary, 7, late), PerFact { late: Some(false), ..PerFact::default() });
        for unit in 0..7 {
            assert_eq!(block.note(Arm::Baseline, unit, failed(false)), failed(false));
        }
        assert_eq!(
            block.note(Arm::Canary, 7, failed(true)),
            failed(true),
            "eight users were one block: the next has begun"
        );
        assert_eq!(block.note(Arm::Canary, 7, failed(true)), PerFact::default());
    }

    #[test]
    fn few_users_fill_a_block_by_many_requests() {
        let mut block = Block::new(50);
        let counted = (0..4 * REQUESTS).filter(|_| block.note(Arm::Canary, 1, failed(true)) == failed(true));
        assert_eq!(counted.count(), 2);
    }

    #[test]
    fn the_smaller_a_side_the_larger_the_block() {
        assert_eq!(
            [0, 1, 5, 25, 50, 75, 99, 100].map(|share| Block::new(share).units_max),
            [400, 400, 80, 16, 8, 16, 400, 400]
        );
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut block = Block::new(1);
        (0..10_000).for_each(|unit| assert_eq!(block.note(Arm::Baseline, unit, failed(false)), failed(false)));
        assert!(block.baseline.capacity() < 1_000);
    }
}

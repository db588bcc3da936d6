//! Requests are compared in blocks: short stretches of traffic in which both arms took part, and in which each user
//! counts once for each fact, so that one bad user is not a crowd.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::evidence::Pair;
use super::facts::{Arm, Fact, PerFact};

/// A block is whole when each arm has seen this many users ...
const UNITS: usize = 4;

/// ... or this many requests, of however few users.
const REQUESTS: u64 = 32;

/// Users of one arm that a block takes in; the rest of a crowd is left out.
const UNITS_MAX: usize = 2_048;

/// The block being filled. What closes it are numbers of users and requests, never their answers: the bets rest on that.
#[derive(Debug, Default)]
pub(super) struct Block {
    baseline: Side,
    canary: Side,
    tallies: PerFact<Pair>,
}

#[derive(Debug, Default)]
struct Side {
    requests: u64,
    /// The facts that each user has given already, a bit each.
    units: HashMap<u64, u8, BuildHasherDefault<Unmixed>>,
}

/// A unit is a hash, or random, already.
#[derive(Debug, Default)]
struct Unmixed(u64);

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

impl Side {
    fn is_full(&self) -> bool {
        self.units.len() >= UNITS || self.requests >= REQUESTS
    }
}

impl Block {
    /// Whether nothing was seen of this user in the baseline yet, and there is room.
    pub(super) fn is_new(&self, unit: u64) -> bool {
        self.baseline.units.len() < UNITS_MAX && !self.baseline.units.contains_key(&unit)
    }

    /// Counts the answers of one request, those that its user has not given yet.
    pub(super) fn note(&mut self, arm: Arm, unit: u64, answers: &PerFact<Option<bool>>) {
        let side = match arm {
            Arm::Baseline => &mut self.baseline,
            Arm::Canary => &mut self.canary,
        };
        side.requests += 1;
        if side.units.len() >= UNITS_MAX && !side.units.contains_key(&unit) {
            return;
        }
        let given = side.units.entry(unit).or_default();
        for fact in Fact::ALL {
            let bit = 1_u8 << fact as u8;
            let Some(yes) = answers.get(fact).filter(|_| *given & bit == 0) else { continue };
            *given |= bit;
            let pair = self.tallies.get_mut(fact);
            match arm {
                Arm::Baseline => pair.baseline.count(yes),
                Arm::Canary => pair.canary.count(yes),
            }
        }
    }

    /// The whole block; the next begins.
    pub(super) fn take_full(&mut self) -> Option<PerFact<Pair>> {
        let full = self.baseline.is_full() && self.canary.is_full();
        full.then(|| std::mem::take(self).tallies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::canary::evidence::Tally;

    fn failed(yes: bool) -> PerFact<Option<bool>> {
        PerFact { failed: Some(yes), ..PerFact::default() }
    }

    #[test]
    fn one_user_counts_once_a_block_and_fact() {
        let mut block = Block::default();
        for _ in 0..10 {
            block.note(Arm::Canary, 7, &failed(true));
        }
        let late = PerFact { late: Some(false), ..failed(true) };
        block.note(Arm::Canary, 7, &late);
        for unit in 0..4 {
            assert!(block.take_full().is_none());
            block.note(Arm::Canary, unit, &failed(false));
            block.note(Arm::Baseline, unit, &failed(false));
        }
        let tallies = block.take_full().unwrap();
        assert_eq!(tallies.failed.canary, Tally { yes: 1, of: 5 });
        assert_eq!(tallies.failed.baseline, Tally { yes: 0, of: 4 });
        assert_eq!(tallies.late.canary, Tally { yes: 0, of: 1 });
        assert!(block.take_full().is_none(), "a new one has begun");
    }

    #[test]
    fn few_users_fill_a_block_by_many_requests() {
        let mut block = Block::default();
        for _ in 0..REQUESTS {
            assert!(block.take_full().is_none());
            block.note(Arm::Canary, 1, &failed(true));
            block.note(Arm::Baseline, 2, &failed(false));
        }
        assert_eq!(block.take_full().unwrap().failed.canary, Tally { yes: 1, of: 1 });
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut block = Block::default();
        for unit in 0..100_000 {
            block.note(Arm::Baseline, unit, &failed(false));
        }
        assert_eq!(block.baseline.units.len(), UNITS_MAX);
    }
}

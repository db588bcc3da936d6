//! Requests are compared in blocks: short stretches of the traffic of one epoch, in which each user counts once for each
//! fact, so that one bad user is not a crowd.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use super::evidence::Pair;
use super::facts::{Arm, Fact, PerFact};

/// A block is whole when the smaller side may be expected to have this many users ...
const UNITS: u64 = 4;

/// ... or this many requests, of however few users.
const REQUESTS: u64 = 32;

/// The block being filled. What closes it is the number of all its users or requests: neither what was answered nor which
/// side answered, for the bets rest on that.
#[derive(Debug)]
pub(super) struct Block {
    size: Size,
    requests: u64,
    baseline: Side,
    canary: Side,
    tallies: PerFact<Pair>,
}

/// How much makes a block whole.
#[derive(Debug, Clone, Copy)]
struct Size {
    units: u64,
    requests: u64,
}

/// How far a block is filled. It is whole, and its requests are counted, as soon as either number is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    /// Users of both sides so far, each counted once, and how many make the block whole.
    pub users: u64,
    pub users_needed: u64,
    /// Requests of both sides so far, and how many make the block whole.
    pub requests: u64,
    pub requests_needed: u64,
}

/// The facts that each user of one side has given already, a bit each. At most as many as make a block whole.
type Side = HashMap<u64, u8, BuildHasherDefault<Unmixed>>;

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

impl Block {
    /// An empty block of an epoch in which the canary has `share` percent.
    pub(super) fn new(share: u8) -> Self {
        let smaller = u64::from(share.min(100_u8.saturating_sub(share)).max(1));
        let size = Size { units: UNITS * 100 / smaller, requests: REQUESTS * 100 / smaller };
        Self { size, requests: 0, baseline: Side::default(), canary: Side::default(), tallies: PerFact::default() }
    }

    /// Whether nothing was seen of this user in the baseline yet.
    pub(super) fn is_new(&self, unit: u64) -> bool {
        !self.baseline.contains_key(&unit)
    }

    pub(super) fn filling(&self) -> Filling {
        Filling {
            users: self.units(),
            users_needed: self.size.units,
            requests: self.requests,
            requests_needed: self.size.requests,
        }
    }

    /// Counts the answers of one request, those that its user has not given yet: they are left in `answers`. The tallies of the
    /// whole block, if that was what it lacked; it is empty again then.
    pub(super) fn note(&mut self, arm: Arm, unit: u64, answers: &mut PerFact<Option<bool>>) -> Option<PerFact<Pair>> {
        self.requests += 1;
        let side = match arm {
            Arm::Baseline => &mut self.baseline,
            Arm::Canary => &mut self.canary,
        };
        let given = side.entry(unit).or_default();
        for fact in Fact::ALL {
            let bit = 1_u8 << fact as u8;
            let answer = answers.get_mut(fact);
            *answer = answer.filter(|_| *given & bit == 0);
            let Some(yes) = *answer else { continue };
            *given |= bit;
            self.tallies.get_mut(fact).count(arm, yes);
        }
        let is_whole = self.units() >= self.size.units || self.requests >= self.size.requests;
        is_whole.then(|| self.take())
    }

    fn units(&self) -> u64 {
        (self.baseline.len() + self.canary.len()) as u64
    }

    /// The next begins, in the room of the last.
    fn take(&mut self) -> PerFact<Pair> {
        self.requests = 0;
        self.baseline.clear();
        self.canary.clear();
        std::mem::take(&mut self.tallies)
    }
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, users_needed, requests, requests_needed } = self;
        write!(
            f,
            "Not counted yet: {requests} requests of {users} users in the open block; all at once when it has {users_needed} \
             users or {requests_needed} requests."
        )
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
        let mut block = Block::new(50);
        for _ in 0..10 {
            assert_eq!(block.note(Arm::Canary, 7, &mut failed(true)), None);
        }
        let mut late = PerFact { late: Some(false), ..failed(true) };
        assert_eq!(block.note(Arm::Canary, 7, &mut late), None);
        assert_eq!(late, PerFact { late: Some(false), ..PerFact::default() }, "what counted");
        for unit in 0..6 {
            assert_eq!(block.note(Arm::Baseline, unit, &mut failed(false)), None);
        }
        assert_eq!(block.filling(), Filling { users: 7, users_needed: 8, requests: 17, requests_needed: 64 });
        let tallies = block.note(Arm::Canary, 8, &mut failed(false)).unwrap();
        assert_eq!(tallies.failed.canary, Tally { yes: 1, of: 2 });
        assert_eq!(tallies.failed.baseline, Tally { yes: 0, of: 6 });
        assert_eq!(tallies.late.canary, Tally { yes: 0, of: 1 });
        assert_eq!((block.filling().users, block.filling().requests), (0, 0), "the next has begun");
    }

    #[test]
    fn few_users_fill_a_block_by_many_requests() {
        let mut block = Block::new(50);
        for _ in 1..2 * REQUESTS {
            assert_eq!(block.note(Arm::Canary, 1, &mut failed(true)), None);
        }
        assert_eq!(block.note(Arm::Baseline, 2, &mut failed(false)).unwrap().failed.canary, Tally { yes: 1, of: 1 });
    }

    #[test]
    fn the_smaller_a_side_the_larger_the_block() {
        let users = |share| Block::new(share).filling().users_needed;
        assert_eq!([0, 1, 5, 25, 50, 75, 99, 100].map(users), [400, 400, 80, 16, 8, 16, 400, 400]);
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut block = Block::new(1);
        let whole = (0..10_000).filter(|unit| block.note(Arm::Baseline, *unit, &mut failed(false)).is_some());
        assert_eq!(whole.count(), 25);
        assert!(block.baseline.capacity() < 1_000);
    }
}

//! Who was drawn for the canary, so far as their bad answers have told: for each the chance that it would be the canary's.
//!
//! A user is drawn once, by the share, and stays. So the first bad answer of a user tells on which side the user is, which was
//! the canary with the probability of the share, and another one of the same user tells nothing new: it is no evidence, however
//! many there are. Let a user's place be uniform in [0, 100), the canary having those below its share. What a bad answer tells is
//! an interval in which that place is: below the share, or not below it. With another share, of a user in [from, to), the canary's
//! chance is (share - from) / (to - from): 1 for who was the canary's already, and for all others the part of them that moved.
//!
//! That is remembered for as long as a user goes on with bad answers, and for [`CLEAN`] after the last one. Then the user counts
//! anew, so that a canary which turns bad after weeks is found by users who had a bad answer before. A user who always has
//! some is counted once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use super::block::Unmixed;
use super::facts::Arm;

/// After so long without a bad answer a user counts anew.
const CLEAN: Duration = Duration::from_secs(3_600);

/// Users that are remembered. Where more have bad answers each of them has little weight.
const REMEMBERED: usize = 8_192;

/// Between two looks for those who may be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Parts in which the users are told to whoever goes on: most commits change few of them.
pub(super) const SHARDS: usize = 16;

/// What one user takes in a shard.
const USER_BYTES: usize = 18;

fn shard_of(unit: u64) -> usize {
    (unit >> 60) as usize
}

/// The users of whom a fact was true, of both sides.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    users: HashMap<u64, Known, BuildHasherDefault<Unmixed>>,
    swept: Duration,
    /// The shards that changed since they were last told, a bit each.
    changed: u16,
}

/// Where a user's place is: at `from` or above, and below `to`.
#[derive(Debug, Clone, Copy)]
struct Known {
    from: u8,
    to: u8,
    /// The user's last bad answer, since 1970.
    last: Duration,
}

/// What a bad answer has told about who was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Told {
    /// That it would be the canary's, by what was known before; between 0 and 1, and neither.
    pub(super) chance: f64,
    /// The user has counted before, and then had no bad answer for long.
    pub(super) again: bool,
}

impl Drawn {
    /// One more bad answer, to a request that was drawn while the canary had `share` percent; `None`: it was known already whose
    /// it would be.
    pub(super) fn note(&mut self, arm: Arm, unit: u64, share: u8, now: Duration) -> Option<Told> {
        let before = self.users.get(&unit).copied();
        let known = before.filter(|known| now.saturating_sub(known.last) <= CLEAN && known.allows(arm, share));
        let (from, to) = known.map_or((0, 100), |known| (known.from, known.to));
        let within = share.clamp(from, to);
        let after = match arm {
            Arm::Baseline => Known { from: within, to, last: now },
            Arm::Canary => Known { from, to: within, last: now },
        };
        if before.is_some() || self.has_room(now) {
            self.users.insert(unit, after);
            self.changed |= 1 << shard_of(unit);
        }
        let chance = f64::from(within - from) / f64::from(to - from);
        (chance > 0.0 && chance < 1.0).then_some(Told { chance, again: before.is_some() && known.is_none() })
    }

    /// When those who may be forgotten were last looked for.
    pub(super) fn swept(&self) -> Duration {
        self.swept
    }

    /// Goes on where another stood.
    pub(super) fn set_swept(&mut self, swept: Duration) {
        self.swept = swept;
    }

    /// The shards that changed since the last call, each with what it holds now.
    pub(super) fn take_changed(&mut self) -> Vec<(usize, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        (0..SHARDS).filter(|shard| changed & (1 << shard) != 0).map(|shard| (shard, self.shard(shard))).collect()
    }

    /// All shards are told with the next call of [`Drawn::take_changed`]: whoever kept them has lost them.
    pub(super) fn tell_all(&mut self) {
        self.changed = u16::MAX;
    }

    /// A part of the users, in order: 8 bytes the user, 1 and 1 the interval, 8 the last bad answer in ms since 1970; big-endian.
    fn shard(&self, shard: usize) -> Vec<u8> {
        let mut users: Vec<(&u64, &Known)> = self.users.iter().filter(|(unit, _)| shard_of(**unit) == shard).collect();
        users.sort_unstable_by_key(|(unit, _)| **unit);
        let mut bytes = Vec::with_capacity(users.len() * USER_BYTES);
        for (unit, known) in users {
            bytes.extend(unit.to_be_bytes());
            bytes.extend([known.from, known.to]);
            bytes.extend(u64::try_from(known.last.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        }
        bytes
    }

    /// Takes in users that another told. `None`: these are none.
    pub(super) fn take_in(&mut self, shard: &[u8]) -> Option<()> {
        let (users, rest) = shard.as_chunks::<USER_BYTES>();
        if !rest.is_empty() || self.users.len() + users.len() > REMEMBERED {
            return None;
        }
        for user in users {
            let (unit, user) = user.split_first_chunk::<8>()?;
            let ([from, to], last) = user.split_first_chunk::<2>()?;
            let (from, to, last) = (*from, *to, u64::from_be_bytes(*last.first_chunk::<8>()?));
            if from >= to || to > 100 {
                return None;
            }
            self.users.insert(u64::from_be_bytes(*unit), Known { from, to, last: Duration::from_millis(last) });
        }
        Some(())
    }

    fn has_room(&mut self, now: Duration) -> bool {
        if self.users.len() >= REMEMBERED && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.users.retain(|_, known| now.saturating_sub(known.last) <= CLEAN);
            self.changed = u16::MAX;
        }
        self.users.len() < REMEMBERED
    }
}

impl Known {
    /// Whether such a user can be on that side. It is not if users are shared out in another way since.
    fn allows(self, arm: Arm, share: u8) -> bool {
        match arm {
            Arm::Baseline => share < self.to,
            Arm::Canary => share > self.from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn chances(drawn: &mut Drawn, unit: u64, answers: &[(Arm, u8)]) -> Vec<Option<f64>> {
        answers.iter().map(|(arm, share)| drawn.note(*arm, unit, *share, s(10)).map(|told| told.chance)).collect()
    }

    #[test]
    fn a_user_counts_once_a_share() {
        let mut drawn = Drawn::default();
        let baseline =
            chances(&mut drawn, 1, &[(Arm::Baseline, 20), (Arm::Baseline, 20), (Arm::Baseline, 60), (Arm::Canary, 80)]);
        assert_eq!(baseline, [Some(0.2), None, Some(0.5), Some(0.5)], "40 of the 80 others have moved, then 20 of 40");
        let canary = chances(&mut drawn, 2, &[(Arm::Canary, 20), (Arm::Canary, 20), (Arm::Canary, 60)]);
        assert_eq!(canary, [Some(0.2), None, None], "who is the canary's stays");
        // An answer to what was asked before a step may come after it.
        let late = chances(&mut drawn, 3, &[(Arm::Canary, 40), (Arm::Baseline, 10)]);
        assert_eq!(late, [Some(0.4), Some(0.25)]);
    }

    #[test]
    fn only_who_had_no_bad_answer_for_long_counts_anew() {
        let mut drawn = Drawn::default();
        for second in 0..100_000 {
            assert_eq!(drawn.note(Arm::Canary, 1, 5, s(second)).is_some(), second == 0, "one who always has some");
        }
        let told = drawn.note(Arm::Canary, 1, 5, s(104_000));
        assert_eq!(told, Some(Told { chance: 0.05, again: true }));
    }

    #[test]
    fn another_way_to_share_out_begins_anew() {
        let mut drawn = Drawn::default();
        assert_eq!(
            chances(&mut drawn, 1, &[(Arm::Canary, 5), (Arm::Baseline, 5), (Arm::Baseline, 5)]),
            [Some(0.05), Some(0.05), None]
        );
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut drawn = Drawn::default();
        (0..100_000).for_each(|unit| assert!(drawn.note(Arm::Baseline, unit, 5, s(1)).is_some()));
        assert_eq!(drawn.users.len(), REMEMBERED);
        assert_eq!(drawn.note(Arm::Baseline, 5, 5, s(3_000)), None, "the first are remembered");
        assert!(drawn.note(Arm::Baseline, 1_000_000, 5, s(4_000)).is_some());
        assert_eq!(drawn.users.len(), 2, "the others had none for long");
    }
}

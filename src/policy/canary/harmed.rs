//! How many users a fact affected: evidence from one or two users may come from the users and not from the canary.

use serde::{Deserialize, Serialize};

/// Different users from which on a rollback is about the canary.
const ENOUGH: usize = 3;

/// Different users from which on evidence holds the next step: one user alone never does.
const SUSPICIOUS: usize = 2;

/// Users that are told apart. Where more are harmed, none of them is the reason.
const REMEMBERED: usize = 16;

/// The canary's users of whom a fact was true, and how often in this step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Harmed {
    /// The user, and in how many blocks of the step.
    users: Vec<(u64, u64)>,
    before: Kept,
}

/// What is known after a restart: numbers, and nobody's name.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Different users, counted up to [`ENOUGH`].
    users: usize,
    /// The most that one user has in this step.
    most: u64,
}

impl Harmed {
    /// It was true of one more request of the user's; `counts`: one that is in the step's numbers.
    pub(super) fn note(&mut self, unit: u64, counts: bool) {
        let counted = u64::from(counts);
        if let Some((_, times)) = self.users.iter_mut().find(|(known, _)| *known == unit) {
            *times += counted;
        } else if self.users.len() < REMEMBERED {
            self.users.push((unit, counted));
        } else if let Some(least) = self.users.iter_mut().min_by_key(|(_, times)| *times) {
            *least = (unit, counted);
        }
    }

    /// Another step: its numbers begin at nothing.
    pub(super) fn begin_step(&mut self) {
        self.users.iter_mut().for_each(|(_, times)| *times = 0);
        self.before.most = 0;
    }

    /// Enough different users for a rollback.
    pub(super) fn are_several(&self) -> bool {
        self.different() >= ENOUGH
    }

    /// Enough different users for evidence to hold the next step.
    pub(super) fn are_more_than_one(&self) -> bool {
        self.different() >= SUSPICIOUS
    }

    /// How often the step's numbers have the user that they have most often. After a restart it may be another than
    /// before: then both are left out.
    pub(super) fn most(&self) -> u64 {
        let now = self.users.iter().map(|(_, times)| *times).max().unwrap_or(0);
        self.before.most.saturating_add(now)
    }

    /// What is taken to be known where an older version stored nothing: enough to hold, too little to roll back.
    pub(super) fn unknown() -> Self {
        Self { users: Vec::new(), before: Kept { users: SUSPICIOUS, most: 0 } }
    }

    /// Those before a restart and those after it may be the same.
    fn different(&self) -> usize {
        self.users.len().max(self.before.users)
    }
}

/// All that is known, for whoever goes on without a gap.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WholeHarmed {
    users: Vec<(u64, u64)>,
    before: Kept,
}

impl From<&Harmed> for WholeHarmed {
    fn from(harmed: &Harmed) -> Self {
        Self { users: harmed.users.clone(), before: harmed.before }
    }
}

impl From<WholeHarmed> for Harmed {
    fn from(mut whole: WholeHarmed) -> Self {
        whole.users.truncate(REMEMBERED);
        Self { users: whole.users, before: whole.before }
    }
}

impl From<Harmed> for Kept {
    fn from(harmed: Harmed) -> Self {
        Self { users: harmed.different().min(ENOUGH), most: harmed.most() }
    }
}

impl From<Kept> for Harmed {
    fn from(kept: Kept) -> Self {
        Self { users: Vec::new(), before: Kept { users: kept.users.min(ENOUGH), ..kept } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_counts_once() {
        let mut harmed = Harmed::default();
        harmed.note(1, true);
        assert!(!harmed.are_more_than_one());
        for unit in [1, 1, 2, 1, 2] {
            harmed.note(unit, true);
            assert!(!harmed.are_several());
        }
        assert!(harmed.are_more_than_one());
        harmed.note(3, true);
        harmed.note(4, true);
        assert!(harmed.are_several());
    }

    #[test]
    fn the_most_harmed_user_is_known_in_a_crowd() {
        let mut harmed = Harmed::default();
        (0..10_000).for_each(|unit| harmed.note(unit, true));
        assert_eq!((harmed.most(), harmed.users.len()), (1, REMEMBERED));
        for unit in 20_000..20_100 {
            harmed.note(7, true);
            harmed.note(unit, true);
        }
        assert!(harmed.most() >= 99, "{}", harmed.most());
        harmed.begin_step();
        assert_eq!((harmed.most(), harmed.are_several()), (0, true));
        harmed.note(7, false);
        assert_eq!(harmed.most(), 0, "a user counts once a block");
    }

    #[test]
    fn a_restart_forgets_names_and_keeps_numbers() {
        let mut harmed = Harmed::default();
        (0..5).for_each(|_| harmed.note(1, true));
        harmed.note(2, true);
        let stored = serde_json::to_string(&harmed).unwrap();
        assert_eq!(stored, r#"{"users":2,"most":5}"#);
        let mut again: Harmed = serde_json::from_str(&stored).unwrap();
        again.note(1, true);
        again.note(2, true);
        assert!(!again.are_several(), "they may be the two of before");
        assert_eq!(again.most(), 6);
        assert!(Harmed::unknown().are_more_than_one() && !Harmed::unknown().are_several());
    }
}

//! The last requests that ended. Failed, refused and other requests have separate shares, so that a flood of one kind
//! does not push out the others. Bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::telemetry::record::{Outcome, Record};

/// Ended requests that are kept.
pub(super) const KEPT_MAX: usize = 1_000;

/// Of each kind so many stay, however many of another come; the rest of the room is for the newest.
pub(super) const SHARE: usize = 250;

/// How a request is sorted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Failed,
    /// By us: a limit, a missing key, no route.
    Refused,
    /// All is well, or the client had enough.
    Other,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Failed, Self::Refused, Self::Other];

    pub(super) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed | Outcome::ClientCancelled => Self::Other,
            Outcome::Rejected => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// The last requests of each kind.
#[derive(Default)]
pub(super) struct Recent {
    /// How many ended so far.
    ended: u64,
    /// By kind, with their numbers, the newest last.
    kinds: [VecDeque<(u64, Arc<Record>)>; Kind::ALL.len()],
}

impl Recent {
    /// Keeps one more; what has to go for it is returned.
    pub(super) fn push(&mut self, record: &Arc<Record>) -> Option<Arc<Record>> {
        let number = self.ended;
        self.ended += 1;
        if let Some(kind) = self.kinds.get_mut(Kind::of(record.outcome) as usize) {
            kind.push_back((number, Arc::clone(record)));
        }
        if self.kinds.iter().map(VecDeque::len).sum::<usize>() <= KEPT_MAX {
            return None;
        }
        // Of those that have more than their share: there is one, for all shares together are less than all the room.
        let ample = self.kinds.iter_mut().filter(|kind| kind.len() > SHARE);
        let oldest = ample.min_by_key(|kind| kind.front().map(|(number, _)| *number));
        oldest.and_then(VecDeque::pop_front).map(|(_, record)| record)
    }

    /// How many ended so far.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Those that are kept of the ones that ended after the first `seen`, the oldest first.
    pub(super) fn since(&self, seen: u64) -> Vec<Arc<Record>> {
        let new = |kind: &VecDeque<(u64, Arc<Record>)>| kind.len() - kind.partition_point(|(number, _)| *number < seen);
        let new = self.kinds.iter().flat_map(|kind| kind.iter().rev().take(new(kind)));
        let mut new: Vec<(u64, &Arc<Record>)> = new.map(|(number, record)| (*number, record)).collect();
        new.sort_unstable_by_key(|(number, _)| *number);
        new.into_iter().map(|(_, record)| Arc::clone(record)).collect()
    }

    /// The last `most` of a kind, the newest first.
    pub(super) fn last(&self, kind: Kind, most: usize) -> Vec<Arc<Record>> {
        let kept = self.kinds.get(kind as usize).into_iter().flatten().rev();
        kept.take(most).map(|(_, record)| Arc::clone(record)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::records_for_tests::plain;

    fn push(recent: &mut Recent, outcome: Outcome, times: usize) {
        for _ in 0..times {
            let mut record = plain();
            (record.outcome, record.bytes_out) = (outcome, recent.ended());
            recent.push(&Arc::new(record));
        }
    }

    fn count(recent: &Recent, outcome: Outcome) -> usize {
        recent.since(0).iter().filter(|record| record.outcome == outcome).count()
    }

    #[test]
    fn a_flood_of_one_kind_pushes_no_other_out() {
        let mut recent = Recent::default();
        push(&mut recent, Outcome::Truncated, 3);
        push(&mut recent, Outcome::Completed, 5);
        push(&mut recent, Outcome::Rejected, 10_000);
        assert_eq!(
            [Outcome::Truncated, Outcome::Completed, Outcome::Rejected].map(|outcome| count(&recent, outcome)),
            [3, 5, KEPT_MAX - 8]
        );
        push(&mut recent, Outcome::Completed, 10_000);
        push(&mut recent, Outcome::UpstreamError, 10_000);
        assert_eq!(count(&recent, Outcome::Rejected), SHARE);
        assert_eq!(count(&recent, Outcome::Completed), SHARE);
        assert_eq!(count(&recent, Outcome::UpstreamError), KEPT_MAX - 2 * SHARE);
        assert_eq!(count(&recent, Outcome::Truncated), 0, "older failures go for newer ones");
    }

    #[test]
    fn they_are_told_in_their_order() {
        let mut recent = Recent::default();
        for outcome in [Outcome::Rejected, Outcome::Completed, Outcome::Stalled].into_iter().cycle().take(1_200) {
            push(&mut recent, outcome, 1);
        }
        let all = recent.since(0);
        assert_eq!((all.len(), recent.ended()), (KEPT_MAX, 1_200));
        assert!(all.is_sorted_by_key(|record| record.bytes_out));
        let new: Vec<u64> = recent.since(1_197).iter().map(|record| record.bytes_out).collect();
        assert_eq!(new, [1_197, 1_198, 1_199]);
        let refused: Vec<u64> = recent.last(Kind::Refused, 2).iter().map(|record| record.bytes_out).collect();
        assert_eq!(refused, [1_197, 1_194], "the newest first");
        assert!(recent.since(9_999).is_empty());
    }
}

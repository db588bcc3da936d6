//! Responses in the background: which of them run, for whom, and whose usage was counted already.
//!
//! Such a response runs on after the request that asked for it, and its end may be seen several times: fetched, polled
//! for, or at the end of a resumed stream. Its usage is counted once, for the caller who asked for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::recent_map::RecentMap;

/// Responses that may run at a time. Of more than that the oldest is given up.
const RUNNING_MAX: usize = 4_096;

/// Half of how many responses are remembered as booked.
const BOOKED: usize = 50_000;

/// For how long what a response holds of its limits waits for its end to be seen.
pub const HOLD: Duration = Duration::from_secs(600);

/// For how long it is remembered who asked for it.
pub const KNOWN: Duration = Duration::from_secs(24 * 3_600);

/// A response at one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// All responses in the background. `A` is who asked for one, `H` what it holds. Times are on one clock, whichever.
#[derive(Debug)]
pub struct Background<A, H> {
    running: HashMap<Key, Running<A, H>>,
    booked: RecentMap<Key, ()>,
    /// Randomly keyed: ids are the upstreams' texts.
    hasher: RandomState,
}

#[derive(Debug)]
struct Running<A, H> {
    asked: A,
    /// Absent: given up.
    hold: Option<H>,
    since: Duration,
}

/// What the end of a response is that was seen.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is held is to be settled"]
pub enum Seen<A, H> {
    /// The first time, of one that was asked for here; and what it still holds.
    First(A, Option<H>),
    /// Not the first time.
    Again,
    /// Nobody asked for it here, as far as is remembered.
    Unknown,
}

/// What is left of holds when a response is kept.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is held is to be settled"]
pub enum Left<H> {
    Nothing,
    /// Its own: the end was seen before its request was over.
    Over(H),
    /// Of one that had to give way.
    GivenUp(H),
}

impl<A, H> Default for Background<A, H> {
    fn default() -> Self {
        Self { running: HashMap::new(), booked: RecentMap::new(BOOKED), hasher: RandomState::new() }
    }
}

impl<A, H> Background<A, H> {
    /// The key of the response that `upstream` calls `id`.
    pub fn key(&self, upstream: &str, id: &str) -> Key {
        Key(self.hasher.hash_one((upstream, id)))
    }

    /// A response runs on at `now`.
    pub fn runs(&mut self, key: Key, asked: A, hold: Option<H>, now: Duration) -> Left<H> {
        if self.booked.get(&key).is_some() {
            return hold.map_or(Left::Nothing, Left::Over);
        }
        let mut lost = None;
        if self.running.len() >= RUNNING_MAX && !self.running.contains_key(&key) {
            let oldest = self.running.iter().min_by_key(|(_, running)| running.since).map(|(key, _)| *key);
            lost = oldest.and_then(|oldest| self.running.remove(&oldest)).and_then(|running| running.hold);
        }
        let before = self.running.insert(key, Running { asked, hold, since: now });
        lost.or(before.and_then(|before| before.hold)).map_or(Left::Nothing, Left::GivenUp)
    }

    /// The end of a response was seen; its usage is booked from now on.
    pub fn ended(&mut self, key: Key) -> Seen<A, H> {
        if self.booked.get(&key).is_some() {
            // Asked for again: remembered for longer.
            self.book(key);
            return Seen::Again;
        }
        match self.running.remove(&key) {
            Some(running) => {
                self.book(key);
                Seen::First(running.asked, running.hold)
            }
            None => Seen::Unknown,
        }
    }

    /// The usage of a response is booked.
    pub fn book(&mut self, key: Key) {
        self.booked.entry(key, || ());
    }

    /// Gives up what was held for too long by `now`, and forgets who asked too long ago. To be called now and then.
    #[must_use = "what is held is to be settled"]
    pub fn give_up(&mut self, now: Duration) -> Vec<H> {
        let is_late = |running: &Running<A, H>, time| now.saturating_sub(running.since) >= time;
        let late = self.running.values_mut().filter(|running| is_late(running, HOLD));
        let lost = late.filter_map(|running| running.hold.take()).collect();
        self.running.retain(|_, running| !is_late(running, KNOWN));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_end_counts_once_and_for_who_asked() {
        let mut background = Background::default();
        let key = background.key("openai", "resp_1");
        assert_eq!(background.runs(key, "alice", Some(7), s(1)), Left::Nothing);
        assert_eq!(background.ended(background.key("azure", "resp_1")), Seen::Unknown, "of another upstream");
        assert_eq!(background.ended(key), Seen::First("alice", Some(7)));
        assert_eq!(background.ended(key), Seen::Again);
        assert_eq!(background.runs(key, "alice", Some(8), s(2)), Left::Over(8), "it has ended meanwhile");
        assert_eq!(background.ended(key), Seen::Again);
        let other = background.key("openai", "resp_2");
        assert_eq!(background.ended(other), Seen::Unknown);
        background.book(other);
        assert_eq!(background.ended(other), Seen::Again);
    }

    #[test]
    fn what_is_held_is_given_up_before_who_asked_is_forgotten() {
        let mut background = Background::default();
        let key = background.key("u", "r");
        assert_eq!(background.runs(key, (), Some(7), s(5)), Left::Nothing);
        assert!(background.give_up(s(5) + HOLD - Duration::from_nanos(1)).is_empty());
        assert_eq!(background.give_up(s(5) + HOLD), [7]);
        assert!(background.give_up(s(5) + HOLD).is_empty());
        assert_eq!(background.ended(key), Seen::First((), None));
        let late = background.key("u", "late");
        assert_eq!(background.runs(late, (), None, s(5)), Left::Nothing);
        assert!(background.give_up(s(5) + KNOWN).is_empty());
        assert_eq!(background.ended(late), Seen::Unknown);
    }

    #[test]
    fn responses_without_end_take_bounded_memory_and_lose_no_hold() {
        let mut background = Background::default();
        let keys: Vec<Key> = (0..=RUNNING_MAX).map(|number| background.key("u", &number.to_string())).collect();
        let mut lost = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            if let Left::GivenUp(hold) = background.runs(*key, number, Some(number), s(number as u64)) {
                lost.push(hold);
            }
        }
        assert_eq!((lost, background.running.len()), (vec![0], RUNNING_MAX), "the oldest gives way");
        assert_eq!(background.runs(keys[1], 1, Some(9), s(0)), Left::GivenUp(1), "asked for twice, it holds once");
        for number in 0..3 * BOOKED {
            background.book(Key(number as u64));
        }
        assert_eq!(background.ended(Key(0)), Seen::Unknown);
        assert_eq!(background.ended(Key(3 * BOOKED as u64 - 1)), Seen::Again);
    }
}

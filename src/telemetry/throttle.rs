//! Warnings with a rate limit: of each thing that can be warned about, a warning is due once it came up often enough, and then
//! again only after a pause. What did not come up for long is forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// When a warning is due.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// So often it must have come up within `memory`: less may be chance.
    pub after: u64,
    /// The pause between two warnings about the same thing.
    pub every: Duration,
    /// What did not come up for so long is forgotten, and begins anew.
    pub memory: Duration,
    /// Things that are followed at once; more are not warned about.
    pub things_max: usize,
}

/// The things of one kind of warning, by what tells them apart.
#[derive(Debug)]
pub struct Throttle<K> {
    rule: Rule,
    things: Mutex<BTreeMap<K, Seen>>,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    /// What it came up with, where only different ones count; as many as make a warning due.
    marks: Vec<u64>,
    last: SystemTime,
    warned: Option<SystemTime>,
}

/// A thing that there is reason to warn about.
#[derive(Debug, Clone)]
pub(super) struct Standing<K> {
    pub(super) thing: K,
    pub(super) count: u64,
    pub(super) last: SystemTime,
}

impl<K: Ord + Clone> Throttle<K> {
    pub const fn new(rule: Rule) -> Self {
        Self { rule, things: Mutex::new(BTreeMap::new()) }
    }

    /// `thing` came up: how often by now, if a warning is due.
    pub fn came_up(&self, thing: K, now: SystemTime) -> Option<u64> {
        self.book(thing, now, |seen| seen.count += 1)
    }

    /// `thing` came up with `mark`, a hash: only different marks count, and no more of them than make a warning due.
    pub fn came_up_with(&self, thing: K, mark: u64, now: SystemTime) -> Option<u64> {
        self.book(thing, now, |seen| {
            if seen.count < self.rule.after && !seen.marks.contains(&mark) {
                seen.marks.push(mark);
                seen.count += 1;
            }
        })
    }

    /// Forgets all but these.
    pub fn retain(&self, is_kept: impl Fn(&K) -> bool) {
        self.things.lock().retain(|thing, _| is_kept(thing));
    }

    /// What there is reason to warn about at `now`, whether or not it was said.
    pub(super) fn standing(&self, now: SystemTime) -> Vec<Standing<K>> {
        let things = self.things.lock();
        let stands = things.iter().filter(|(_, seen)| seen.count >= self.rule.after && seen.is_fresh(&self.rule, now));
        stands.map(|(thing, seen)| Standing { thing: thing.clone(), count: seen.count, last: seen.last }).collect()
    }

    fn book(&self, thing: K, now: SystemTime, count: impl FnOnce(&mut Seen)) -> Option<u64> {
        let rule = &self.rule;
        let mut things = self.things.lock();
        if !things.contains_key(&thing) && things.len() >= rule.things_max {
            things.retain(|_, seen| seen.is_fresh(rule, now));
            if things.len() >= rule.things_max {
                return None;
            }
        }
        let seen = things.entry(thing).or_insert_with(|| Seen::new(now));
        if !seen.is_fresh(rule, now) {
            *seen = Seen { warned: seen.warned, ..Seen::new(now) };
        }
        count(seen);
        seen.last = seen.last.max(now);
        let paused = seen.warned.is_none_or(|at| now.duration_since(at).is_ok_and(|ago| ago >= rule.every));
        let is_due = seen.count >= rule.after && paused;
        if is_due {
            seen.warned = Some(now);
        }
        is_due.then_some(seen.count)
    }
}

impl Seen {
    fn new(now: SystemTime) -> Self {
        Self { count: 0, marks: Vec::new(), last: now, warned: None }
    }

    fn is_fresh(&self, rule: &Rule, now: SystemTime) -> bool {
        now.duration_since(self.last).is_ok_and(|age| age < rule.memory) || self.last > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule =
        Rule { after: 3, every: Duration::from_secs(600), memory: Duration::from_secs(3_600), things_max: 64 };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn counts(throttle: &Throttle<&'static str>, now: u64) -> Vec<(&'static str, u64)> {
        throttle.standing(at(now)).iter().map(|standing| (standing.thing, standing.count)).collect()
    }

    #[test]
    fn a_warning_is_due_after_so_many_times_and_then_after_each_pause() {
        let throttle = Throttle::new(RULE);
        let due: Vec<_> = (0..1_300).filter(|second| throttle.came_up("a", at(*second)).is_some()).collect();
        assert_eq!(due, [2, 602, 1_202]);
        assert_eq!(counts(&throttle, 1_300), [("a", 1_300)]);
        assert_eq!(throttle.came_up("a", at(1_802)), Some(1_301));
        let at_once = Throttle::new(Rule { after: 1, ..RULE });
        assert_eq!((at_once.came_up("a", at(0)), at_once.came_up("a", at(1))), (Some(1), None));
        assert_eq!(at_once.came_up("b", at(1)), Some(1), "another thing has a pause of its own");
    }

    #[test]
    fn what_did_not_come_up_for_long_is_forgotten() {
        let throttle = Throttle::new(RULE);
        (0..3).for_each(|second| {
            let _ = throttle.came_up("a", at(second));
        });
        assert_eq!(counts(&throttle, 3_601), [("a", 3)]);
        assert_eq!(counts(&throttle, 3_602), []);
        assert_eq!((throttle.came_up("a", at(4_000)), counts(&throttle, 4_000)), (None, Vec::new()), "it begins anew");
        throttle.came_up("a", at(4_001));
        assert_eq!(throttle.came_up("a", at(4_002)), Some(3));
        throttle.retain(|thing| *thing != "a");
        assert_eq!(counts(&throttle, 4_003), []);
    }

    #[test]
    fn of_marks_only_different_ones_count_and_few_are_kept() {
        let throttle = Throttle::new(RULE);
        assert!((0..9).all(|second| throttle.came_up_with("a", 7, at(second)).is_none()));
        assert_eq!(throttle.came_up_with("a", 8, at(10)), None);
        assert_eq!(throttle.came_up_with("a", 9, at(11)), Some(3));
        (0..1_000).for_each(|mark| {
            let _ = throttle.came_up_with("a", mark, at(12));
        });
        assert_eq!(counts(&throttle, 12), [("a", 3)]);
        assert_eq!(throttle.things.lock()["a"].marks.len(), 3);
    }

    #[test]
    fn things_in_masses_are_not_followed_and_old_ones_make_room() {
        let throttle = Throttle::new(RULE);
        (0..200).for_each(|thing| {
            let _ = throttle.came_up(thing, at(0));
        });
        assert_eq!(throttle.things.lock().len(), 64);
        throttle.came_up(201, at(4_000));
        assert_eq!(throttle.things.lock().len(), 1);
    }
}

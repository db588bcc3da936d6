//! What a holder's requests cost in the last 24 hours and the last 30 days.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Slots of a window; one more is under way. A window so reaches back for its length and at most a 48th more.
const SLOTS: u64 = 48;

/// One rolling window over money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 24 hours.
    Day,
    /// 30 days.
    Month,
}

/// Nano-dollars by slot of wall-clock time, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spend {
    day: Vec<(u64, u64)>,
    month: Vec<(u64, u64)>,
}

impl Window {
    pub(super) const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Seconds of one slot.
    pub(super) fn slot_s(self) -> u64 {
        match self {
            Self::Day => 24 * 3600 / SLOTS,
            Self::Month => 30 * 24 * 3600 / SLOTS,
        }
    }

    /// The oldest slot that still counts at `now`.
    pub(super) fn first_slot(self, now: Duration) -> u64 {
        self.slot(now).saturating_sub(SLOTS)
    }

    pub(super) fn slot(self, now: Duration) -> u64 {
        now.as_secs() / self.slot_s()
    }

    fn words(self) -> &'static str {
        match self {
            Self::Day => "24 hours",
            Self::Month => "30 days",
        }
    }
}

/// Where a holder's budget stands when it is asked for more. All in nano-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// What the request may cost.
    pub asked: u64,
    /// What requests that ended, and what came of those that run, has cost.
    pub spent: u64,
    /// What requests that run may cost beyond that: most of it is given back.
    pub held: u64,
    /// The budget.
    pub most: u64,
}

/// Why a budget has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Lack {
    /// Too much is spent, by so much.
    Spent(u64),
    /// There would be room but for what is held.
    Held,
}

impl Money {
    /// What is missing, if anything is. As for tokens: what is dearer than the whole budget needs it unused.
    pub(super) fn lack(&self) -> Option<Lack> {
        let over = |taken: u64| {
            let needed = taken.saturating_add(self.asked.min(self.most));
            (needed > self.most || taken >= self.most).then(|| needed.saturating_sub(self.most).max(1))
        };
        match over(self.spent) {
            Some(excess) => Some(Lack::Spent(excess)),
            None => over(self.spent.saturating_add(self.held)).map(|_| Lack::Held),
        }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

impl Spend {
    /// Books what a request cost more (or, at its end, less) than was booked before. `now` is wall-clock time.
    pub(super) fn book(&mut self, before: u64, cost: u64, now: Duration) {
        for window in Window::ALL {
            let (slot, first) = (window.slot(now), window.first_slot(now));
            let slots = self.slots_mut(window);
            slots.retain(|(at, _)| *at >= first);
            match slots.last_mut() {
                Some((at, sum)) if *at >= slot => *sum = sum.saturating_add(cost).saturating_sub(before),
                _ => slots.push((slot, cost.saturating_sub(before))),
            }
        }
    }

    /// Nano-dollars in the window that ends now.
    pub(super) fn sum(&self, window: Window, now: Duration) -> u64 {
        let first = window.first_slot(now);
        self.slots(window).iter().filter(|(at, _)| *at >= first).fold(0, |sum, (_, cost)| sum.saturating_add(*cost))
    }

    /// Until so much has left the window; the whole window's length where even that would not do.
    pub(super) fn wait(&self, window: Window, excess: u64, now: Duration) -> Duration {
        let first = window.first_slot(now);
        let mut left = 0_u64;
        for (at, cost) in self.slots(window).iter().filter(|(at, _)| *at >= first) {
            left = left.saturating_add(*cost);
            if left >= excess {
                let leaves_at = Duration::from_secs((at + SLOTS + 1) * window.slot_s());
                return leaves_at.saturating_sub(now);
            }
        }
        Duration::from_secs(SLOTS * window.slot_s())
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        Window::ALL.into_iter().all(|window| self.sum(window, now) == 0)
    }

    fn slots(&self, window: Window) -> &[(u64, u64)] {
        match window {
            Window::Day => &self.day,
            Window::Month => &self.month,
        }
    }

    fn slots_mut(&mut self, window: Window) -> &mut Vec<(u64, u64)> {
        match window {
            Window::Day => &mut self.day,
            Window::Month => &mut self.month,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(hours: u64) -> Duration {
        Duration::from_secs(1_800_000_000 + hours * HOUR)
    }

    #[test]
    fn what_is_held_is_not_spent() {
        let money = |asked, spent, held| Money { asked, spent, held, most: 100 };
        assert_eq!(money(40, 30, 30).lack(), None);
        assert_eq!(money(40, 30, 31).lack(), Some(Lack::Held));
        assert_eq!(money(40, 61, 0).lack(), Some(Lack::Spent(1)));
        assert_eq!(money(40, 61, 500).lack(), Some(Lack::Spent(1)), "waiting for what is held would not help");
        assert_eq!(money(0, 100, 0).lack(), Some(Lack::Spent(1)));
        assert_eq!(money(0, 99, 1).lack(), Some(Lack::Held));
        assert_eq!(money(500, 0, 0).lack(), None, "what is dearer than all needs it unused");
        assert_eq!(money(500, 0, 1).lack(), Some(Lack::Held));
        assert_eq!(money(500, 1, 0).lack(), Some(Lack::Spent(1)));
    }

    #[test]
    fn windows_roll() {
        let mut spend = Spend::default();
        spend.book(0, 100, at(0));
        spend.book(0, 20, at(10));
        assert_eq!((spend.sum(Window::Day, at(10)), spend.sum(Window::Month, at(10))), (120, 120));
        assert_eq!(spend.sum(Window::Day, at(26)), 20);
        assert_eq!(spend.sum(Window::Day, at(36)), 0);
        assert_eq!(spend.sum(Window::Month, at(29 * 24)), 120);
        assert!(!spend.is_over(at(29 * 24)));
        assert!(spend.is_over(at(32 * 24)));
    }

    #[test]
    fn waiting_is_until_the_oldest_leave() {
        let mut spend = Spend::default();
        spend.book(0, 100, at(0));
        spend.book(0, 20, at(10));
        let wait = spend.wait(Window::Day, 50, at(12)).as_secs();
        assert!((12 * HOUR..=13 * HOUR).contains(&wait), "{wait}");
        assert_eq!(spend.sum(Window::Day, at(12) + Duration::from_secs(wait)), 20);
        assert_eq!(spend.wait(Window::Day, 500, at(12)), Duration::from_secs(24 * HOUR));
    }

    #[test]
    fn a_stream_is_booked_as_it_flows_and_memory_is_bounded() {
        let mut spend = Spend::default();
        spend.book(0, 10, at(0));
        spend.book(10, 30, at(0));
        spend.book(30, 25, at(0));
        assert_eq!(spend.sum(Window::Day, at(0)), 25);
        for hour in 0..5_000 {
            spend.book(0, 1, at(hour));
        }
        assert!(spend.day.len() <= 49 && spend.month.len() <= 49);
        assert_eq!(spend.sum(Window::Day, at(4_999)), 25, "24 hours, and the half hour under way");
    }
}

//! The usage of the calls of models that one answer is made of: a framework makes several, and tells the usage of each, of
//! some more than once.

use std::collections::VecDeque;

use super::Usage;

/// Calls whose usage may still change; of more the oldest is booked as it is.
const OPEN_MAX: usize = 64;

/// Calls that are remembered as booked: what tells of one again adds nothing.
const BOOKED_MAX: usize = 512;

/// How the usage that an event tells is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is all that its call took so far: the last counts.
    #[default]
    Whole,
    /// It is a piece of what its call took: pieces add up.
    Piece,
    /// Its call was made for an answer before this one.
    Earlier,
}

/// The calls of one answer, each by the hash of its id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calls {
    booked: Usage,
    /// The oldest first.
    open: VecDeque<(u64, Usage)>,
    booked_ids: VecDeque<u64>,
    count: u64,
    pub(super) taken: Taken,
}

impl Calls {
    /// The id of a call that has none: all of them are one, until it ends.
    pub(super) const NAMELESS: u64 = 0;

    /// How many calls told of their usage.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What they took together, as far as they told.
    pub(super) fn total(&self) -> Usage {
        self.open.iter().fold(self.booked, |total, (_, usage)| total.plus(usage))
    }

    /// What a call told so far.
    pub(super) fn of(&self, id: u64) -> Usage {
        self.open.iter().find(|(open, _)| *open == id).map(|(_, usage)| *usage).unwrap_or_default()
    }

    /// Takes what a call tells: `tell` notes it over what the call told before.
    pub(super) fn note(&mut self, id: u64, tell: impl FnOnce(&mut Usage)) {
        if self.booked_ids.contains(&id) {
            return;
        }
        let known = self.open.iter_mut().find(|(open, _)| *open == id).map(|(_, usage)| usage);
        match (self.taken, known) {
            (Taken::Whole, Some(usage)) => tell(usage),
            (Taken::Piece, Some(usage)) => {
                let mut piece = Usage::default();
                tell(&mut piece);
                *usage = usage.plus(&piece);
            }
            // What this answer told itself is its own.
            (Taken::Earlier, Some(_)) => {}
            (Taken::Earlier, None) => self.remember(id),
            (Taken::Whole | Taken::Piece, None) => {
                let mut usage = Usage::default();
                tell(&mut usage);
                if usage != Usage::default() {
                    self.open(id, usage);
                }
            }
        }
    }

    /// A call is over: the next one of the same id is another.
    pub(super) fn end(&mut self, id: u64) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == id) else { return };
        if let Some((_, usage)) = self.open.remove(at) {
            self.booked = self.booked.plus(&usage);
        }
    }

    fn open(&mut self, id: u64, usage: Usage) {
        if self.open.len() >= OPEN_MAX
            && let Some((oldest, usage)) = self.open.pop_front()
        {
            self.booked = self.booked.plus(&usage);
            self.remember(oldest);
        }
        self.count = self.count.saturating_add(1);
        self.open.push_back((id, usage));
    }

    fn remember(&mut self, id: u64) {
        if id == Self::NAMELESS {
            return;
        }
        if self.booked_ids.len() >= BOOKED_MAX {
            self.booked_ids.pop_front();
        }
        self.booked_ids.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(tokens: u64) -> impl FnOnce(&mut Usage) {
        move |usage| usage.output = Some(tokens)
    }

    #[test]
    fn each_call_counts_once_and_all_add_up() {
        let mut calls = Calls::default();
        for (id, tokens) in [(1, 3), (2, 4), (1, 5), (2, 4)] {
            calls.note(id, output(tokens));
        }
        calls.note(3, |_| {});
        assert_eq!((calls.total().output, calls.total().input, calls.count()), (Some(9), None, 2));
        calls.note(1, |usage| usage.input = Some(7));
        assert_eq!(calls.of(1), Usage { input: Some(7), output: Some(5), ..Usage::default() }, "the output stays");
        assert_eq!(calls.of(9), Usage::default());
    }

    #[test]
    fn pieces_of_a_call_add_up_until_its_whole_is_told() {
        let mut calls = Calls { taken: Taken::Piece, ..Calls::default() };
        calls.note(1, output(3));
        calls.note(1, output(4));
        assert_eq!(calls.total().output, Some(7));
        calls.taken = Taken::Whole;
        calls.note(1, output(8));
        assert_eq!((calls.total().output, calls.count()), (Some(8), 1));
    }

    #[test]
    fn a_call_that_ended_makes_room_for_another_of_its_name() {
        let mut calls = Calls::default();
        for tokens in [1, 2] {
            calls.note(Calls::NAMELESS, output(9));
            calls.note(Calls::NAMELESS, output(tokens));
            calls.end(Calls::NAMELESS);
        }
        calls.end(Calls::NAMELESS);
        assert_eq!((calls.total().output, calls.count()), (Some(3), 2));
    }

    #[test]
    fn calls_of_answers_before_are_not_this_ones() {
        let mut calls = Calls::default();
        calls.note(1, output(3));
        calls.taken = Taken::Earlier;
        calls.note(1, output(100));
        calls.note(2, output(100));
        calls.note(Calls::NAMELESS, output(100));
        calls.taken = Taken::Whole;
        calls.note(2, output(100));
        calls.note(Calls::NAMELESS, output(1));
        assert_eq!((calls.total().output, calls.count()), (Some(4), 2));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_counts_twice() {
        let mut calls = Calls::default();
        for _ in 0..2 {
            for id in 1..=500 {
                calls.note(id, output(1));
            }
        }
        assert_eq!((calls.total().output, calls.count()), (Some(500), 500));
        for id in 1..=100_000 {
            calls.note(id, output(u64::MAX));
        }
        assert_eq!(calls.total().output, Some(u64::MAX), "it does not wrap");
        assert_eq!((calls.open.len(), calls.booked_ids.len()), (OPEN_MAX, BOOKED_MAX));
    }
}

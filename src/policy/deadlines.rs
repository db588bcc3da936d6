//! Timeouts of an answer: which of them apply, and when each has passed.
//!
//! A stream of tokens is ended when it is silent too long, an answer in one piece when it takes too long in total. Any
//! other stream may be silent for hours: only the timeouts that its route sets for such streams end it.

use std::time::Duration;

use crate::config::defaults;
use crate::config::settings::Timeouts;

/// After its dialect's end an answer that brings nothing more for so long is ended for the client.
pub const SILENCE_AFTER_END: Duration = Duration::from_secs(5);

/// What an answer is, as far as is known by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In one piece.
    Whole {
        /// Of an LLM.
        llm: bool,
    },
    /// A stream of an LLM.
    Tokens,
    /// A stream of anything else.
    Other {
        /// The route says that its times bind such streams.
        bound: bool,
    },
}

/// The sign of work in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Token,
    /// Work goes on that has brought no token.
    Work,
    /// Bytes alone.
    Bytes,
}

/// Which timeout has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    FirstToken,
    /// The head of an answer in one piece, which another place could bring.
    Attempt,
    Stall,
    Total,
    /// Nothing more came after the dialect's end: the answer is whole.
    AfterEnd,
}

/// The timeouts of one answer. All times count from "request head complete".
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    times: Timeouts,
    kind: Kind,
    /// As expected before the head came: what was to come in one piece has no time for its first token.
    expected: Kind,
    /// Another place could be asked in this one's stead.
    another: bool,
    has_head: bool,
    /// Nothing has come yet of what is waited for first: a token, or of other streams a byte.
    waits: bool,
    asked: Duration,
    /// The last sign of life.
    alive: Duration,
    ended: bool,
}

impl Deadlines {
    /// The timeouts of an answer that was requested at `asked`; its kind is guessed from its request.
    pub fn new(times: Timeouts, expected: Kind, another: bool, asked: Duration) -> Self {
        Self {
            times,
            kind: expected,
            expected,
            another,
            has_head: false,
            waits: true,
            asked,
            alive: asked,
            ended: false,
        }
    }

    /// The answer's head came, and with it the answer's kind.
    pub fn head_came(&mut self, kind: Kind, now: Duration) {
        self.has_head = true;
        if kind != Kind::Tokens {
            self.alive = now;
        }
        self.kind = kind;
    }

    /// The answer is passed on: no retry is possible any more.
    pub fn commit(&mut self) {
        self.another = false;
    }

    /// A chunk came, after which the answer is of this kind.
    pub fn came(&mut self, kind: Kind, sign: Sign, now: Duration) {
        if kind != self.kind {
            self.kind = kind;
            self.waits = true;
            self.alive = now;
        }
        match (kind, sign) {
            (Kind::Tokens, Sign::Bytes) => {}
            (Kind::Tokens, Sign::Work) => self.alive = now,
            _ => {
                self.waits = false;
                self.alive = now;
            }
        }
    }

    /// The upstream was not read for so long, because the client took nothing: its silence then was not its own.
    pub fn pause(&mut self, time: Duration) {
        self.alive += time;
    }

    /// The dialect's own end came: no clock runs but the one that ends the client's answer in order.
    pub fn end(&mut self, now: Duration) {
        if !self.ended {
            self.ended = true;
            self.alive = now;
        }
    }

    /// Whether the dialect's own end came.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the first token of an LLM's stream has still to come.
    pub fn waits_for_token(&self) -> bool {
        self.waits && self.kind == Kind::Tokens
    }

    /// What the answer is, as far as it was told.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The clock that is over first, and when; `None`: nothing ends the answer.
    pub fn next(&self) -> Option<(Duration, Late)> {
        if self.ended {
            return Some((self.alive + SILENCE_AFTER_END, Late::AfterEnd));
        }
        let silence = self.silence();
        match self.total() {
            Some(total) if silence.is_none_or(|(at, _)| total <= at) => Some((total, Late::Total)),
            _ => silence,
        }
    }

    fn silence(&self) -> Option<(Duration, Late)> {
        let stall = self.times.stall.unwrap_or(defaults::STALL_TIMEOUT);
        let (time, late) = match self.kind {
            Kind::Tokens if self.waits && self.expected == Kind::Tokens => (self.first_token(), Late::FirstToken),
            Kind::Tokens => (stall, Late::Stall),
            Kind::Whole { .. } if !self.has_head => {
                return self.another.then_some((self.asked + defaults::WHOLE_ATTEMPT_TIMEOUT, Late::Attempt));
            }
            Kind::Whole { llm: true } | Kind::Other { bound: false } => return None,
            Kind::Whole { llm: false } => (self.times.stall?, Late::Stall),
            Kind::Other { bound: true } if self.waits && self.times.first_token.is_some() => {
                (self.times.first_token?, Late::FirstToken)
            }
            Kind::Other { bound: true } => (self.times.stall?, Late::Stall),
        };
        Some((self.alive.saturating_add(time), late))
    }

    fn first_token(&self) -> Duration {
        let default = if self.another { defaults::FIRST_TOKEN_TIMEOUT } else { defaults::FIRST_TOKEN_ALONE };
        self.times.first_token.unwrap_or(default)
    }

    fn total(&self) -> Option<Duration> {
        match self.kind {
            Kind::Tokens | Kind::Whole { llm: true } => Some(self.times.total.unwrap_or(defaults::TOTAL_TIMEOUT)),
            // A download that flows is ended by nobody who did not write so.
            Kind::Whole { llm: false } if self.has_head => self.times.total,
            Kind::Whole { llm: false } => Some(self.times.total.unwrap_or(self.asked + defaults::TOTAL_TIMEOUT)),
            Kind::Other { bound: true } => self.times.total,
            Kind::Other { bound: false } => None,
        }
    }
}

#[cfg(test)]
#[path = "deadlines_tests.rs"]
mod tests;

//! The facts of a first attempt that the canary judge compares: five questions, each answered with yes, no or unknown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::band::Band;

/// Which side of the comparison a request was assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arm {
    Baseline,
    Canary,
}

/// What is known of a request when it is assigned, and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub arm: Arm,
    /// What was assigned: the user, the address, or the request.
    pub unit: u64,
    /// The epoch in which it was: what [`super::Judge::epoch`] said then.
    pub epoch: u64,
    /// The canary's share of requests by which it was, in percent.
    pub share: u8,
    /// When it was, since 1970.
    pub at: Duration,
    /// How many of the baseline's requests were assigned before it.
    pub number: u64,
    /// The replica that assigned it; the same for all where one judges for itself.
    pub origin: u64,
}

/// One of the questions. "Yes" is always the bad answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// No answer, a status of 400 or above, or an error inside the stream.
    Failed,
    /// A silence inside the stream that was longer than it may be.
    Stalled,
    /// The answer broke off, or lacks its end.
    Truncated,
    /// The first token came after the objective.
    Late,
    /// An answer shorter or longer than nearly all of the baseline's.
    OddLength,
}

impl Fact {
    pub const ALL: [Self; 5] = [Self::Failed, Self::Stalled, Self::Truncated, Self::Late, Self::OddLength];

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stalled => "stalled",
            Self::Truncated => "truncated",
            Self::Late => "late",
            Self::OddLength => "odd_length",
        }
    }

    /// Whether no is known no later than yes. A failure is known long before it is known that a request does not fail.
    pub(super) fn is_known_at_the_end(self) -> bool {
        !matches!(self, Self::Failed)
    }

    /// What people read after "12 of 200 requests".
    pub fn words(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stalled => "stalled",
            Self::Truncated => "were truncated",
            Self::Late => "had a late first token",
            Self::OddLength => "had an answer of unusual length",
        }
    }
}

/// Something of each fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerFact<T> {
    pub failed: T,
    pub stalled: T,
    pub truncated: T,
    pub late: T,
    pub odd_length: T,
}

impl<T> PerFact<T> {
    pub fn get(&self, fact: Fact) -> &T {
        match fact {
            Fact::Failed => &self.failed,
            Fact::Stalled => &self.stalled,
            Fact::Truncated => &self.truncated,
            Fact::Late => &self.late,
            Fact::OddLength => &self.odd_length,
        }
    }

    pub fn get_mut(&mut self, fact: Fact) -> &mut T {
        match fact {
            Fact::Failed => &mut self.failed,
            Fact::Stalled => &mut self.stalled,
            Fact::Truncated => &mut self.truncated,
            Fact::Late => &mut self.late,
            Fact::OddLength => &mut self.odd_length,
        }
    }
}

/// How long the first attempt's first token took, from the attempt's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstToken {
    Came(Duration),
    /// It had not come after so long, when the attempt ended or the client went.
    NotWithin(Duration),
}

/// What is known of a request's first attempt: of the variant that it was assigned to, whoever answered in the end.
/// `None`: it had not come so far, or does not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FirstAttempt {
    pub failed: Option<bool>,
    pub stalled: Option<bool>,
    pub truncated: Option<bool>,
    /// `None` also where the answer comes in one piece.
    pub first_token: Option<FirstToken>,
    /// Output tokens as reported, else token frames; of whole answers alone.
    pub output: Option<u64>,
}

impl FirstAttempt {
    /// An attempt that brought no answer, or one that was not passed on.
    pub const FAILED: Self =
        Self { failed: Some(true), stalled: None, truncated: None, first_token: None, output: None };

    /// The answers to the questions, so far as they can be given. `None` too while the baseline's band is not known.
    pub(super) fn answers(&self, objective: Option<Duration>, lengths: &Band) -> PerFact<Option<bool>> {
        let late = match (self.first_token, objective) {
            (Some(FirstToken::Came(after)), Some(objective)) => Some(after > objective),
            (Some(FirstToken::NotWithin(waited)), Some(objective)) if waited > objective => Some(true),
            _ => None,
        };
        PerFact {
            failed: self.failed,
            stalled: self.stalled,
            truncated: self.truncated,
            late,
            odd_length: self.output.and_then(|output| lengths.is_outside(output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn lateness_is_told_as_soon_as_it_is_certain() {
        let late = |first_token, objective| {
            FirstAttempt { first_token, ..FirstAttempt::default() }.answers(objective, &Band::default()).late
        };
        assert_eq!(late(Some(FirstToken::Came(ms(100))), Some(ms(100))), Some(false));
        assert_eq!(late(Some(FirstToken::Came(ms(101))), Some(ms(100))), Some(true));
        assert_eq!(late(Some(FirstToken::NotWithin(ms(101))), Some(ms(100))), Some(true), "the client went too late");
        assert_eq!(late(Some(FirstToken::NotWithin(ms(99))), Some(ms(100))), None, "it might have come in time");
        assert_eq!(late(Some(FirstToken::Came(ms(101))), None), None, "there is no objective yet");
        assert_eq!(late(None, Some(ms(1))), None, "an answer in one piece has no first token");
    }

    #[test]
    fn every_fact_has_its_own_place_and_word() {
        let mut places = PerFact::<usize>::default();
        for (number, fact) in Fact::ALL.into_iter().enumerate() {
            *places.get_mut(fact) = number;
        }
        let words: std::collections::HashSet<_> = Fact::ALL.iter().map(|fact| fact.as_str()).collect();
        assert!(Fact::ALL.into_iter().enumerate().all(|(number, fact)| *places.get(fact) == number));
        assert_eq!(words.len(), Fact::ALL.len());
    }
}

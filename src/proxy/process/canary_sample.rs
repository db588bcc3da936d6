//! What a request tells the canary judge: how the first attempt at the target went that it was assigned to. Who answered
//! in the end does not count: failover would hide a bad canary.

use std::sync::Arc;
use std::time::Duration;

use super::rollout::Rollout;
use crate::llm::{Reading, RequestFacts};
use crate::policy::canary::{FirstAttempt, FirstToken, Sample};
use crate::telemetry::event::{Attempted, Event, PassedOver};
use crate::telemetry::record::{Attempt, ErrorType, Outcome};

/// The side of a comparison that a request was assigned to.
#[derive(Clone)]
pub(crate) struct Assigned {
    pub(crate) rollout: Arc<Rollout>,
    pub(crate) sample: Sample,
    /// Its arms can be compared: nobody took one out of service by hand.
    pub(crate) counts: bool,
}

/// Watches the first attempt of one request.
pub(crate) struct CanarySample {
    assigned: Assigned,
    /// The answer will be a stream of events, as far as the request tells.
    streams: bool,
    first: First,
    /// What was read of the answer that is passed on.
    read: Option<Read>,
    end: Option<(Outcome, Option<ErrorType>)>,
}

/// How far the first attempt has come.
enum First {
    NotAsked,
    /// Under way since.
    Asked(Duration),
    /// A kept connection ended under the request. If the same upstream is asked again at once, it was a race with an idle
    /// connection's end, and no fault.
    Lost {
        upstream: Arc<str>,
    },
    /// Its answer is the one that is passed on, so far.
    Answering {
        since: Duration,
        status: u16,
    },
    Over(FirstAttempt),
}

/// What counts of a reading.
struct Read {
    first_token: Option<Duration>,
    had_slow_gap: bool,
    tokens: u64,
    frames: u64,
}

impl CanarySample {
    pub(crate) fn new(assigned: Assigned, facts: &RequestFacts) -> Self {
        let streams = facts.is_llm() && !facts.answers_whole();
        Self { assigned, streams, first: First::NotAsked, read: None, end: None }
    }

    /// Keeps what `event` tells of the first attempt. Inlined, with one arm left of it: each stage tells an event that it names.
    #[inline(always)]
    pub(crate) fn apply(&mut self, event: &Event<'_>) {
        match event {
            Event::Read(llm) => self.read(&llm.reading),
            Event::Ended(outcome, error) => self.end = Some((*outcome, *error)),
            Event::Attempted(tried) => self.tried(tried),
            _ => {}
        }
    }

    /// What the attempts came to. How the one went whose answer was passed on is told by its end.
    fn tried(&mut self, tried: &Attempted) {
        match tried.passed_over {
            // What was taken out by hand may have been stopped as well: nobody failed.
            Some(PassedOver::TakenOut) => return,
            // Whatever another answered in its place, the assigned target could not.
            Some(PassedOver::Down) => return self.first = First::Over(FirstAttempt::FAILED),
            None => {}
        }
        for (number, attempt) in tried.attempts.iter().enumerate() {
            if tried.passed_on == Some(number) {
                self.attempted(&Attempt { error: None, ..attempt.clone() });
            } else if attempt.status.is_none() && attempt.error.is_none() {
                // Broken off with the request.
                self.asked(attempt.started);
            } else {
                self.attempted(attempt);
            }
        }
    }

    fn asked(&mut self, since: Duration) {
        if matches!(self.first, First::NotAsked) {
            self.first = First::Asked(since);
        }
    }

    /// An attempt has brought a head, or failed.
    fn attempted(&mut self, attempt: &Attempt) {
        let is_first = match &self.first {
            First::NotAsked | First::Asked(_) => true,
            First::Lost { upstream } => *upstream == attempt.upstream,
            First::Answering { .. } => false,
            First::Over(_) => return,
        };
        let raced = attempt.reused_connection && attempt.error == Some(ErrorType::UpstreamReset);
        self.first = match (attempt.status, attempt.error) {
            // What was answering is replaced, or the lost one is: it was no answer.
            _ if !is_first => First::Over(FirstAttempt::FAILED),
            (Some(status), None) => First::Answering { since: attempt.started, status },
            _ if raced && !matches!(self.first, First::Lost { .. }) => {
                First::Lost { upstream: Arc::clone(&attempt.upstream) }
            }
            (_, Some(ErrorType::FirstTokenTimeout)) => {
                let waited = attempt.ended.saturating_sub(attempt.started);
                First::Over(FirstAttempt { first_token: self.not_within(waited), ..FirstAttempt::FAILED })
            }
            // Another was faster: it was slow, and no failure.
            (_, Some(ErrorType::HedgeLost)) => {
                let waited = attempt.ended.saturating_sub(attempt.started);
                First::Over(FirstAttempt { first_token: self.not_within(waited), ..FirstAttempt::default() })
            }
            _ => First::Over(FirstAttempt::FAILED),
        };
    }

    fn read(&mut self, reading: &Reading) {
        self.read = Some(Read {
            first_token: reading.first_token,
            had_slow_gap: reading.slow_gap_count > 0,
            tokens: reading.usage.output.unwrap_or(0),
            frames: reading.token_frames,
        });
    }

    /// The request is over: what it tells, if anything.
    pub(crate) fn conclude(self, now: Duration) -> Option<(Assigned, FirstAttempt)> {
        let (outcome, error) = self.end?;
        // What we refused, cut or broke ourselves says nothing of any upstream.
        let ours = matches!(outcome, Outcome::InternalError | Outcome::Rejected | Outcome::Stopped);
        let attempt = match self.first {
            First::Over(attempt) => attempt,
            First::NotAsked => return None,
            _ if ours => return None,
            First::Lost { .. } => FirstAttempt::FAILED,
            First::Asked(since) if outcome == Outcome::ClientCancelled => {
                FirstAttempt { first_token: self.not_within(now.saturating_sub(since)), ..FirstAttempt::default() }
            }
            First::Asked(_) => FirstAttempt::FAILED,
            First::Answering { status, .. } if status >= 400 => FirstAttempt::FAILED,
            First::Answering { since, .. } => self.answered(since, outcome, error, now),
        };
        Some((self.assigned, attempt))
    }

    /// The first attempt's answer was passed on, as far as it came.
    fn answered(&self, since: Duration, outcome: Outcome, error: Option<ErrorType>, now: Duration) -> FirstAttempt {
        let read = self.read.as_ref();
        let came = read.and_then(|read| read.first_token).map(|at| FirstToken::Came(at.saturating_sub(since)));
        let had_slow_gap = read.is_some_and(|read| read.had_slow_gap);
        let first_token = came.or_else(|| self.not_within(now.saturating_sub(since)));
        let whole = outcome == Outcome::Completed;
        FirstAttempt {
            failed: match outcome {
                Outcome::ErrorInStream | Outcome::Timeout | Outcome::UpstreamError => Some(true),
                // The client went before there was anything to judge by.
                Outcome::ClientCancelled if came.is_none() => None,
                _ => Some(false),
            },
            stalled: match outcome {
                Outcome::Stalled => Some(true),
                Outcome::Completed => Some(had_slow_gap),
                _ => had_slow_gap.then_some(true),
            },
            truncated: match error {
                Some(ErrorType::UpstreamBodyReset | ErrorType::MissingEnd) => Some(true),
                _ => whole.then_some(false),
            },
            // An answer that ended without any token is not late.
            first_token: if whole { came } else { first_token },
            output: read.filter(|_| whole).map(|read| if read.tokens > 0 { read.tokens } else { read.frames }),
        }
    }

    fn not_within(&self, waited: Duration) -> Option<FirstToken> {
        self.streams.then_some(FirstToken::NotWithin(waited))
    }
}

#[cfg(test)]
#[path = "canary_sample_tests.rs"]
mod tests;

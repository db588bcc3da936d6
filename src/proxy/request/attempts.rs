//! What was tried for one request: each attempt with its times, whether it won, failed, was outrun or broke off with the
//! request. Attempts tell of themselves, several at once where a request is hedged; two folds listen: this log, which is read at
//! the end, and the live view.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use crate::proxy::clock::Clock;
use crate::telemetry::event::{AttemptEvent, Attempted, PassedOver};
use crate::telemetry::live::Follower;
use crate::telemetry::record::{Attempt, ErrorType, Phase, Stopwatch};

/// The attempts of one request, in the order of their beginning.
pub(crate) struct Attempts {
    clock: Clock,
    log: Mutex<Vec<Try>>,
    /// Another target was asked in place of the one that the request was assigned to.
    passed_over: OnceLock<PassedOver>,
    /// For those who watch; nobody sees a copy for a shadow.
    live: Option<Follower>,
}

struct Try {
    attempt: Attempt,
    /// When the phases after [`Phase::Connect`] began.
    waiting: Option<Duration>,
    preamble: Option<Duration>,
    over: bool,
}

/// Tells of one attempt. Dropped without a word, the attempt broke off.
pub(crate) struct AttemptLog<'a> {
    attempts: &'a Attempts,
    pub(crate) number: usize,
}

impl Attempts {
    pub(crate) fn new(clock: Clock, live: Option<Follower>) -> Self {
        Self { clock, log: Mutex::new(Vec::with_capacity(1)), passed_over: OnceLock::new(), live }
    }

    pub(crate) fn begin(&self, attempt: Attempt) -> AttemptLog<'_> {
        let mut log = self.log.lock();
        if let Some(live) = &self.live {
            live.attempt(&attempt.place, attempt.started);
        }
        log.push(Try { attempt, waiting: None, preamble: None, over: false });
        AttemptLog { attempts: self, number: log.len() - 1 }
    }

    /// Something happened to the attempt `number`. Under the lock: hedged attempts take turns.
    pub(crate) fn tell(&self, number: usize, event: &AttemptEvent<'_>) {
        let now = self.clock.now();
        let mut log = self.log.lock();
        if let Some(live) = &self.live {
            live.apply(event, now);
        }
        if let Some(entry) = log.get_mut(number) {
            entry.apply(event, now);
        }
    }

    /// Books where the time went: what came before the attempt `number`, and between its failure and the end, was lost.
    pub(crate) fn book(&self, number: usize, stopwatch: &mut Stopwatch) {
        let log = self.log.lock();
        let (Some(first), Some(passed_on)) = (log.first(), log.get(number)) else { return };
        if number > 0 {
            stopwatch.enter(Phase::FailedAttempts, first.attempt.started);
        }
        stopwatch.enter(Phase::Connect, passed_on.attempt.started);
        for (phase, at) in [(Phase::UpstreamWait, passed_on.waiting), (Phase::Preamble, passed_on.preamble)] {
            if let Some(at) = at {
                stopwatch.enter(phase, at);
            }
        }
        if let Some(next) = log.get(number + 1) {
            stopwatch.enter(Phase::FailedAttempts, next.attempt.started.max(passed_on.attempt.started));
        }
    }

    /// Another is asked in place of the assigned target. The first reason counts.
    pub(crate) fn pass_over(&self, why: PassedOver) {
        self.passed_over.get_or_init(|| why);
    }

    /// The number of the last one begun.
    pub(crate) fn last(&self) -> Option<usize> {
        self.log.lock().len().checked_sub(1)
    }

    /// All that was tried, now that it is over; `passed_on`: whose answer was passed on.
    pub(crate) fn take(&self, passed_on: Option<usize>) -> Attempted {
        let log = std::mem::take(&mut *self.log.lock());
        Attempted {
            sent: log.iter().any(|entry| entry.waiting.is_some()),
            attempts: log.into_iter().map(|entry| entry.attempt).collect(),
            passed_on,
            passed_over: self.passed_over.get().copied(),
        }
    }
}

impl Try {
    fn apply(&mut self, event: &AttemptEvent<'_>, now: Duration) {
        let attempt = &mut self.attempt;
        match event {
            AttemptEvent::Moved(place) => attempt.place = (*place).clone(),
            AttemptEvent::Connected { reused } => {
                self.waiting = Some(now);
                attempt.reused_connection = *reused;
            }
            AttemptEvent::Answered(status) => {
                self.preamble = Some(now);
                attempt.status = Some(*status);
            }
            AttemptEvent::Failed(error) => (self.over, attempt.ended, attempt.error) = (true, now, Some(*error)),
            AttemptEvent::Opened => (self.over, attempt.ended) = (true, now),
            AttemptEvent::Outrun => attempt.error = Some(ErrorType::HedgeLost),
            AttemptEvent::Ended(error) => {
                attempt.ended = now;
                attempt.error = attempt.error.or(*error);
            }
            AttemptEvent::Dropped if self.over => {}
            AttemptEvent::Dropped => attempt.ended = now,
        }
    }
}

impl AttemptLog<'_> {
    pub(crate) fn tell(&self, event: &AttemptEvent<'_>) {
        self.attempts.tell(self.number, event);
    }
}

impl Drop for AttemptLog<'_> {
    fn drop(&mut self) {
        self.tell(&AttemptEvent::Dropped);
    }
}

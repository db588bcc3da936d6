//! What was tried for one request: each attempt with its times, whether it won, failed, was outrun or broke off with the
//! request. Attempts write it, several at once where a request is hedged; the flight reads it at the end.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::proxy::clock::Clock;
use crate::telemetry::live::Follower;
use crate::telemetry::record::{Attempt, ErrorType, Phase, Place, Stopwatch};

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

/// Why the target that a request was assigned to was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOver {
    Down,
    /// By hand, after the request was assigned.
    TakenOut,
}

/// Writes one attempt's part. Dropped without a word, the attempt broke off.
pub(crate) struct AttemptLog {
    tries: Arc<Attempts>,
    pub(crate) number: usize,
}

impl Attempts {
    pub(crate) fn new(clock: Clock, live: Option<Follower>) -> Arc<Self> {
        Arc::new(Self { clock, log: Mutex::default(), passed_over: OnceLock::new(), live })
    }

    pub(crate) fn begin(self: &Arc<Self>, attempt: Attempt) -> AttemptLog {
        let mut log = self.log();
        if let Some(live) = &self.live {
            live.attempt(&attempt.place, attempt.started);
        }
        log.push(Try { attempt, waiting: None, preamble: None, over: false });
        AttemptLog { tries: Arc::clone(self), number: log.len() - 1 }
    }

    /// The attempt that broke off lost against another.
    pub(crate) fn outrun(&self, number: usize) {
        if let Some(entry) = self.log().get_mut(number) {
            entry.attempt.error = Some(ErrorType::HedgeLost);
        }
    }

    /// The attempt whose answer is passed on ended now; `error` is what went wrong with it, if anything did.
    pub(crate) fn ended(&self, number: usize, error: Option<ErrorType>) {
        let now = self.clock.now();
        if let Some(entry) = self.log().get_mut(number) {
            entry.attempt.ended = now;
            entry.attempt.error = entry.attempt.error.or(error);
        }
    }

    /// Books where the time went: what came before the attempt `number`, and between its failure and the end, was lost.
    pub(crate) fn book(&self, number: usize, stopwatch: &mut Stopwatch) {
        let log = self.log();
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

    pub(crate) fn passed_over(&self) -> Option<PassedOver> {
        self.passed_over.get().copied()
    }

    /// The number of the last one begun.
    pub(crate) fn last(&self) -> Option<usize> {
        self.log().len().checked_sub(1)
    }

    /// Whether any upstream got a byte of the request.
    pub(crate) fn any_sent(&self) -> bool {
        self.log().iter().any(|entry| entry.waiting.is_some())
    }

    pub(crate) fn take(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.log()).into_iter().map(|entry| entry.attempt).collect()
    }

    fn log(&self) -> MutexGuard<'_, Vec<Try>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AttemptLog {
    /// The connection stands.
    pub(crate) fn connected(&self, reused: bool) {
        let now = self.tries.clock.now();
        self.passes_to(Phase::UpstreamWait, now);
        self.note(|entry| {
            entry.waiting = Some(now);
            entry.attempt.reused_connection = reused;
        });
    }

    /// Another address of the same name is asked.
    pub(crate) fn moved(&self, place: &Place) {
        if let Some(live) = &self.tries.live {
            live.moved(place);
        }
        self.note(|entry| entry.attempt.place = place.clone());
    }

    /// The answer's head came.
    pub(crate) fn answered(&self, status: u16) {
        let now = self.tries.clock.now();
        self.passes_to(Phase::Preamble, now);
        self.note(|entry| {
            entry.preamble = Some(now);
            entry.attempt.status = Some(status);
        });
    }

    pub(crate) fn failed(&self, error: ErrorType) {
        let now = self.tries.clock.now();
        self.passes_to(Phase::FailedAttempts, now);
        self.note(|entry| {
            entry.over = true;
            entry.attempt.ended = now;
            entry.attempt.error = Some(error);
        });
    }

    /// The attempt's answer may be passed on: its end is told by [`Attempts::ended`].
    pub(crate) fn opened(&self) {
        let now = self.tries.clock.now();
        self.note(|entry| {
            entry.over = true;
            entry.attempt.ended = now;
        });
    }

    fn passes_to(&self, phase: Phase, now: Duration) {
        // Under the lock: hedged attempts take turns.
        let _turn = self.tries.log();
        if let Some(live) = &self.tries.live {
            live.phase(phase, now);
        }
    }

    fn note(&self, write: impl FnOnce(&mut Try)) {
        if let Some(entry) = self.tries.log().get_mut(self.number) {
            write(entry);
        }
    }
}

impl Drop for AttemptLog {
    fn drop(&mut self) {
        let now = self.tries.clock.now();
        self.note(|entry| {
            if !entry.over {
                entry.attempt.ended = now;
            }
        });
    }
}

//! The one reader of an upstream's answer: it brings the next chunk, the end, or the deadline that has passed, whoever waits
//! for it: an attempt for the first token, the relay, or a copy.

use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::client::HttpSession;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use super::tap::Tap;
use crate::llm::Progress;
use crate::policy::deadlines::{Deadlines, Late, Sign};
use crate::proxy::clock::Clock;

/// Where nothing else is to be waited for.
const IDLE: Duration = Duration::from_secs(3600);

/// What an answer brings.
pub(crate) enum Next {
    Chunk(Bytes),
    /// Its framing ended in order.
    End,
    /// The connection broke.
    Died,
    /// One of its deadlines has passed.
    Late(Late),
    /// The time that the caller gave is over.
    Idle,
}

/// An answer's body, what looks at it, and the deadlines that bind it.
pub(crate) struct ResponseReader {
    pub(crate) session: HttpSession,
    pub(crate) tap: Tap,
    pub(crate) deadlines: Deadlines,
    clock: Clock,
    /// What came right behind the chunks that were at hand: the end of the answer, or what broke it.
    ahead: Option<Next>,
    /// The task was told that nothing is at hand, and has not waited since: more wakes it.
    nothing_at_hand: bool,
    alarm: Alarm,
}

/// Wakes whoever waits for an answer when a deadline has passed.
#[derive(Default)]
struct Alarm {
    /// Made when it is first waited for. It may ring too early, and is set again then: a deadline moves with every token.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes: it is not to be set again for every event.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Sees to it that the task is woken at `at`, or before; ready once that is over.
    fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        let is_elapsed = sleep.is_elapsed();
        if sleep.deadline() > at || is_elapsed {
            sleep.as_mut().reset(at);
        } else if self.wakes.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.wakes = Some(context.waker().clone());
        // A task whose turns are used up would be told to come again, and the alarm would not be set.
        pin!(unconstrained(sleep.as_mut())).poll(context)
    }

    /// Whether it has not been set for a time after `at`.
    fn rings(&self, at: impl FnOnce() -> Instant) -> bool {
        self.sleep.as_ref().is_none_or(|sleep| at() >= sleep.deadline())
    }
}

impl ResponseReader {
    /// In a box: it is handed on several times, and is some KiB.
    pub(crate) fn new(session: HttpSession, tap: Tap, deadlines: Deadlines, clock: Clock) -> Box<Self> {
        Box::new(Self { session, tap, deadlines, clock, ahead: None, nothing_at_hand: false, alarm: Alarm::default() })
    }

    /// What comes next. Nothing is lost where the future is dropped before its end.
    ///
    /// `idle`: when to come back though nothing came; on the request's clock.
    pub(crate) async fn next(&mut self, idle: Option<Duration>) -> Next {
        if let Some(ahead) = self.ahead.take() {
            return ahead;
        }
        let mut is_known_pending = mem::take(&mut self.nothing_at_hand);
        let Self { session, deadlines, clock, alarm, .. } = self;
        let mut read = pin!(session.read_response_body());
        poll_fn(|context| {
            if !mem::take(&mut is_known_pending)
                && let Poll::Ready(read) = read.as_mut().poll(context)
            {
                return Poll::Ready(brought(read));
            }
            loop {
                let first = [deadlines.next().map(|(at, _)| at), idle].into_iter().flatten().min();
                let at = clock.instant(first.unwrap_or_else(|| clock.now() + IDLE));
                ready!(alarm.poll(at, context));
                let now = clock.now();
                if let Some((_, late)) = deadlines.next().filter(|(at, _)| now >= *at) {
                    return Poll::Ready(Next::Late(late));
                }
                if idle.is_some_and(|idle| now >= idle) {
                    return Poll::Ready(Next::Idle);
                }
            }
        })
        .await
    }

    /// The next chunk, if it is at hand; what else is at hand is kept for [`ResponseReader::next`]. It does not wait.
    ///
    /// Where nothing is, the next call of [`ResponseReader::next`] does not look again; whoever waits for something else before
    /// that call has to say so, see [`ResponseReader::may_have_come`].
    pub(crate) async fn at_hand(&mut self) -> Option<Bytes> {
        if self.ahead.is_some() {
            return None;
        }
        let mut read = pin!(self.session.read_response_body());
        let read = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
        let Poll::Ready(read) = read else {
            self.nothing_at_hand = true;
            return None;
        };
        match brought(read) {
            Next::Chunk(chunk) => Some(chunk),
            next => {
                self.ahead = Some(next);
                None
            }
        }
    }

    /// The task has waited for something else since [`ResponseReader::at_hand`]: what woke it may be the answer.
    pub(crate) fn may_have_come(&mut self) {
        self.nothing_at_hand = false;
    }

    /// The deadline that has passed, if one has. Whoever gets chunk after chunk has to ask.
    pub(crate) fn overdue(&self, now: Duration) -> Option<Late> {
        // What was set by the deadlines as they were rings first, but for the end of an answer that is whole.
        if !self.deadlines.has_ended() && !self.alarm.rings(|| self.clock.instant(now)) {
            return None;
        }
        self.deadlines.next().filter(|(at, _)| now >= *at).map(|(_, late)| late)
    }

    /// The tap looks at a chunk that came at `now`, and the deadlines move by what it shows.
    pub(crate) fn look_at(&mut self, chunk: &Bytes, now: Duration) -> Progress {
        let progress = self.tap.feed(chunk, now);
        self.deadlines.came(self.tap.kind(), sign(progress), now);
        progress
    }
}

fn brought(read: pingora::Result<Option<Bytes>>) -> Next {
    match read {
        Ok(Some(chunk)) => Next::Chunk(chunk),
        Ok(None) => Next::End,
        Err(_) => Next::Died,
    }
}

/// What a chunk shows of its answer's life.
pub(crate) fn sign(progress: Progress) -> Sign {
    match progress {
        Progress { token: true, .. } => Sign::Token,
        progress if progress.tells_of_work() => Sign::Work,
        _ => Sign::Bytes,
    }
}

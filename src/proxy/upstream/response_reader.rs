//! The one reader of an upstream's answer: it brings the next chunk, the end, or the deadline that has passed, whoever waits
//! for it: an attempt for the first token, the relay, or a copy.

use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use pingora::protocols::http::client::HttpSession;
use tokio::time::Sleep;

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
    /// Made when it is first waited for. It may ring too early, and is set again then: a deadline moves with every token.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ResponseReader {
    /// In a box: it is handed on several times, and is some KiB.
    pub(crate) fn new(session: HttpSession, tap: Tap, deadlines: Deadlines, clock: Clock) -> Box<Self> {
        Box::new(Self { session, tap, deadlines, clock, ahead: None, alarm: None })
    }

    /// What comes next. Nothing is lost where the future is dropped before its end.
    ///
    /// `idle`: when to come back though nothing came; on the request's clock.
    pub(crate) async fn next(&mut self, idle: Option<Duration>) -> Next {
        if let Some(ahead) = self.ahead.take() {
            return ahead;
        }
        let Self { session, deadlines, clock, alarm, .. } = self;
        let read = session.read_response_body();
        tokio::pin!(read);
        std::future::poll_fn(|context| {
            if let Poll::Ready(read) = read.as_mut().poll(context) {
                return Poll::Ready(brought(read));
            }
            loop {
                let first = [deadlines.next().map(|(at, _)| at), idle].into_iter().flatten().min();
                let at = clock.instant(first.unwrap_or_else(|| clock.now() + IDLE));
                let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                if alarm.deadline() > at || alarm.is_elapsed() {
                    alarm.as_mut().reset(at);
                }
                ready!(alarm.as_mut().poll(context));
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

    /// The next chunk, if it is at hand; what else is at hand is kept for [`ResponseReader::next`].
    pub(crate) fn at_hand(&mut self) -> Option<Bytes> {
        if self.ahead.is_some() {
            return None;
        }
        match brought(self.session.read_response_body().now_or_never()?) {
            Next::Chunk(chunk) => Some(chunk),
            next => {
                self.ahead = Some(next);
                None
            }
        }
    }

    /// The deadline that has passed, if one has. Whoever gets chunk after chunk has to ask.
    pub(crate) fn overdue(&self, now: Duration) -> Option<Late> {
        // What was set by the deadlines as they were rings first, but for the end of an answer that is whole.
        let rings = self.alarm.as_ref().is_none_or(|alarm| self.clock.instant(now) >= alarm.deadline());
        let may_be = rings || self.deadlines.has_ended();
        if !may_be {
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

//! Passes an answer on: head, then one loop that reads, taps and writes, with every timer that may end it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use super::commit::commit;
use super::termination::{self, After, End};
use super::upload::Rest;
use crate::llm::{Dialect, Framing, Progress};
use crate::policy::deadlines::{Deadlines, Kind, Late};
use crate::proxy::client::client_side::{ClientSide, KEEP_ALIVE};
use crate::proxy::client::headers::AnswerFraming;
use crate::proxy::client::pace::BodyPace;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::upstream::attempt;
use crate::proxy::upstream::tap::Tap;
use crate::proxy::upstream::upstream_response::{Held, Source, UpstreamResponse};
use crate::telemetry::record::Phase;

/// What came at once goes at once, up to so many bytes: a write costs more than to copy them.
const AT_ONCE_MAX: usize = 16 << 10;
/// And so many chunks: there may be no bytes in them.
const CHUNKS_MAX: usize = 64;

/// Passes `opened` on to the client, and settles how it ended.
pub(crate) async fn pass(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    opened: Box<UpstreamResponse>,
    side: &ClientSide<'_>,
) -> Ending {
    flight.bytes(side.line.received(), 0);
    flight.passes_on(opened.number);
    flight.served_by(&opened.upstream, &opened.variant);
    let came = flight.now();
    let times = Times { started: opened.started, deadlines: opened.deadlines };
    let (mut source, head, held) = opened.take_apart();
    let committed = commit(session, flight, head, &source, side).await;
    source.tap.wrote(came, flight.now());
    let (framing, end) = match committed {
        Ok(framing) => {
            let mut relay = Relay::new(flight, &mut source, times, side);
            (framing, relay.run(session, &mut source, flight, held).await)
        }
        Err(end) => (AnswerFraming::Delimited, end),
    };
    Box::pin(termination::conclude(session, flight, source, end, framing, side)).await
}

/// The client has an early head already, but no attempt brought an answer.
pub(crate) async fn fail(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    rejection: &Rejection,
    side: &ClientSide<'_>,
) -> Ending {
    flight.status_sent(200);
    termination::fail_early(session, flight, rejection, side).await
}

/// Times of the attempt whose answer is passed on, on the request's clock.
struct Times {
    started: Duration,
    deadlines: Deadlines,
}

/// The state of the loop.
struct Relay<'a> {
    side: &'a ClientSide<'a>,
    upload: Rest,
    pace: BodyPace,
    /// Zero: no comments.
    keepalive: Duration,
    deadlines: Deadlines,
    last_write: Duration,
    /// When the attempt began.
    started: Duration,
    /// What those who watch were told that the answer speaks.
    spoken: Option<(Dialect, Framing)>,
    /// A limit is used up, and wants the stream cut.
    exhausted: bool,
    /// What the client gets of the chunks at hand; empty between two writes.
    pieces: Vec<Bytes>,
    /// The end of the answer, or what broke it, where that came with its last bytes.
    ahead: Option<pingora::Result<Option<Bytes>>>,
}

/// What the loop woke up for.
enum Woke {
    Read(pingora::Result<Option<Bytes>>),
    Client(Result<Option<Bytes>, Stop>),
    Timer,
    Cut,
}

impl<'a> Relay<'a> {
    fn new(flight: &Flight<'_>, source: &mut Source, times: Times, side: &'a ClientSide<'a>) -> Self {
        let now = flight.now();
        let upload = Rest::of(source.upload.take(), side.line.is_body_done(), source.early);
        let tap = &source.tap;
        if let Some(at) = tap.first_token() {
            flight.first_token(at);
        }
        if matches!(tap.kind(), Kind::Other { .. }) {
            flight.is_other_stream(true);
        }
        let spoken = tap.speaks();
        if spoken.is_some() {
            flight.speaks(spoken);
        }
        let mut deadlines = times.deadlines;
        deadlines.commit();
        Self {
            side,
            upload,
            pace: BodyPace::new(&side.visit.settings().server),
            started: times.started,
            keepalive: if tap.at_sse_boundary() { side.routed.route.keepalive } else { Duration::ZERO },
            deadlines,
            last_write: now,
            spoken,
            exhausted: false,
            pieces: Vec::new(),
            ahead: None,
        }
    }

    async fn run(
        &mut self,
        client: &mut ServerSession,
        source: &mut Source,
        flight: &mut Flight<'_>,
        mut held: Held,
    ) -> End {
        self.exhausted |= flight.generated(source.tap.tokens());
        let came = flight.now();
        if let Err(end) = self.write_held(client, flight, joined(&mut held.chunks)).await {
            return end;
        }
        source.tap.wrote(came, flight.now());
        self.note_end(&source.tap);
        if held.whole {
            return self.write_rest(client, flight, &mut source.tap, End::Complete).await;
        }
        flight.enter(self.waiting());
        let timer = tokio::time::sleep_until(self.next_timer(flight));
        tokio::pin!(timer);
        let cut = self.side.visit.shared.drain.reached(DrainStage::Cut);
        tokio::pin!(cut);
        let patience = self.side.visit.settings().server.body_timeout;
        let has_length = self.side.line.has_length();
        self.upload.forward_waiting(&mut source.session, patience).await;
        loop {
            // What came is passed on before anything is concluded from the client's going or from the time.
            let woke = match self.ahead.take() {
                Some(read) => Woke::Read(read),
                None => tokio::select! {
                    biased;
                    () = &mut cut => Woke::Cut,
                    read = source.session.read_response_body() => Woke::Read(read),
                    sent = self.upload.read(client, &mut self.pace, has_length, patience) => Woke::Client(sent),
                    () = &mut timer => Woke::Timer,
                },
            };
            let before = self.deadlines.state();
            let end = match woke {
                Woke::Read(Ok(Some(chunk))) => match self.write(client, source, flight, chunk).await {
                    Err(end) => Some(end),
                    // An upstream that always has something must not keep the timers from being looked at; and from the first
                    // token on another time counts, which may be up before the one that was set.
                    Ok(())
                        if self.deadlines.state() != before
                            || flight.clock.instant(self.last_write) >= timer.deadline() =>
                    {
                        let end = self.ring(client, flight, &mut source.tap).await.err();
                        timer.as_mut().reset(self.next_timer(flight));
                        end
                    }
                    Ok(()) => None,
                },
                Woke::Read(Ok(None)) => Some(End::Complete),
                Woke::Read(Err(_)) => Some(self.over_or(End::UpstreamDied, &source.tap)),
                Woke::Client(Ok(chunk)) => {
                    self.upload.forward(&mut source.session, chunk, patience).await;
                    None
                }
                Woke::Client(Err(_)) => Some(self.over_or(End::ClientGone, &source.tap)),
                Woke::Timer => {
                    let end = self.ring(client, flight, &mut source.tap).await.err();
                    timer.as_mut().reset(self.next_timer(flight));
                    end
                }
                Woke::Cut => Some(self.over_or(End::Cut, &source.tap)),
            };
            if let Some(end) = end {
                return self.write_rest(client, flight, &mut source.tap, end).await;
            }
        }
    }

    /// What the time is spent on while nothing comes.
    fn waiting(&self) -> Phase {
        if self.deadlines.waits_for_token() { Phase::Preamble } else { Phase::Generation }
    }

    /// What an end is once the answer is whole: no fault of anybody's.
    fn over_or(&self, end: End, tap: &Tap) -> End {
        if !self.deadlines.has_ended() && !tap.is_whole() {
            return end;
        }
        match end {
            End::ClientGone | End::ClientStuck => End::Over(After::ClientGone),
            End::Cut => End::Over(After::Cut),
            _ => End::Over(After::Died),
        }
    }

    /// The dialect's own end has gone to the client.
    fn note_end(&mut self, tap: &Tap) {
        if !self.deadlines.has_ended() && tap.has_ended() {
            self.deadlines.end(self.last_write);
        }
    }

    /// What the tap has seen already.
    async fn write_held(
        &mut self,
        client: &mut ServerSession,
        flight: &mut Flight<'_>,
        held: Option<Bytes>,
    ) -> Result<(), End> {
        if let Some(held) = held {
            flight.enter(Phase::ClientBlocked);
            client.write_response_body(held, false).await.map_err(|error| write_error(&error))?;
        }
        self.last_write = flight.now();
        Ok(())
    }

    /// One chunk on its way, and what came with it: the tap looks at each, the client gets them.
    async fn write(
        &mut self,
        client: &mut ServerSession,
        source: &mut Source,
        flight: &mut Flight<'_>,
        chunk: Bytes,
    ) -> Result<(), End> {
        #[cfg(test)]
        super::panic_switch::panic_if_asked(client, "after the head");
        let came = flight.now();
        flight.enter_at(Phase::Proxy, came);
        let mut bytes = chunk.len();
        let mut progress = self.look_at(chunk, flight, source, came);
        for _ in 1..CHUNKS_MAX {
            if bytes >= AT_ONCE_MAX || self.exhausted {
                break;
            }
            match source.session.read_response_body().now_or_never() {
                Some(Ok(Some(chunk))) => {
                    bytes += chunk.len();
                    progress |= self.look_at(chunk, flight, source, came);
                }
                read => {
                    self.ahead = read;
                    break;
                }
            }
        }
        let ready = flight.now();
        flight.enter_at(Phase::ClientBlocked, ready);
        if let Some(bytes) = joined(&mut self.pieces) {
            client.write_response_body(bytes, false).await.map_err(|error| write_error(&error))?;
        }
        let written = flight.now();
        source.tap.wrote(came, written);
        self.last_write = written;
        // While the client did not take bytes, the upstream was not read: its silence then is not its own.
        self.deadlines.pause(written - came);
        let (kind, before) = (source.tap.kind(), self.deadlines.state().0);
        self.deadlines.came(kind, attempt::sign(progress), written);
        // Only now is known whether a token is waited for still.
        flight.enter_at(self.waiting(), written);
        if kind != before {
            flight.is_other_stream(matches!(kind, Kind::Other { .. }));
        }
        self.note_end(&source.tap);
        if self.exhausted { self.close(client, flight, &mut source.tap).await } else { Ok(()) }
    }

    /// Reads a chunk that came at `came`, and takes what the client gets of it. Tells what it brought.
    fn look_at(&mut self, chunk: Bytes, flight: &mut Flight<'_>, source: &mut Source, came: Duration) -> Progress {
        let tap = &mut source.tap;
        let progress = tap.feed(&chunk, came);
        if tap.speaks() != self.spoken {
            self.spoken = tap.speaks();
            flight.speaks(self.spoken);
        }
        if progress.token && tap.first_token() == Some(came) {
            flight.first_token(came);
            source.ticket.answered(came.saturating_sub(self.started), true);
        }
        flight.progress(tap.frames(), tap.bytes, progress.token.then_some(came));
        self.exhausted |= flight.generated(tap.tokens());
        tap.let_through(chunk, &mut self.pieces);
        progress
    }

    /// A limit wants the stream cut: it ends in order where it stands, or after the event that is under way.
    async fn close(&self, client: &mut ServerSession, flight: &mut Flight<'_>, tap: &mut Tap) -> Result<(), End> {
        let Some(closing) = tap.closing() else { return Ok(()) };
        let now = flight.now();
        flight.enter_at(Phase::ClientBlocked, now);
        tap.feed(&closing, now);
        if !closing.is_empty() {
            client.write_response_body(closing, false).await.map_err(|error| write_error(&error))?;
        }
        Err(End::Exhausted)
    }

    /// What was held of a begun event goes to a client that is still there.
    async fn write_rest(&self, client: &mut ServerSession, flight: &mut Flight<'_>, tap: &mut Tap, end: End) -> End {
        if matches!(end, End::ClientGone | End::ClientStuck | End::Over(After::ClientGone)) {
            return end;
        }
        for piece in tap.let_rest_through() {
            flight.enter(Phase::ClientBlocked);
            if let Err(error) = client.write_response_body(piece, false).await {
                return write_error(&error);
            }
        }
        end
    }

    /// The earliest timer that may have to act.
    fn next_timer(&self, flight: &Flight<'_>) -> Instant {
        let idle = Duration::from_secs(3600);
        let comment = if self.keepalive.is_zero() { None } else { Some(self.last_write + self.keepalive) };
        let first = [self.deadlines.next().map(|(at, _)| at), comment].into_iter().flatten().min();
        flight.clock.instant(first.unwrap_or(flight.now() + idle))
    }

    /// A timer rang: ends what is over its time, or sends a comment.
    async fn ring(&mut self, client: &mut ServerSession, flight: &mut Flight<'_>, tap: &mut Tap) -> Result<(), End> {
        let now = flight.now();
        if let Some((_, late)) = self.deadlines.next().filter(|(at, _)| now >= *at) {
            return Err(match late {
                Late::AfterEnd => End::Over(After::Silence),
                late => self.over_or(End::Late(attempt::late_error(late)), tap),
            });
        }
        if !self.keepalive.is_zero() && now >= self.last_write + self.keepalive {
            if tap.at_sse_boundary() {
                client.write_response_body(KEEP_ALIVE, false).await.map_err(|error| write_error(&error))?;
            }
            self.last_write = flight.now();
            tap.wrote(now, self.last_write);
        }
        Ok(())
    }
}

/// All pieces as one, if there is anything in them; as it came where it is one. Leaves none.
fn joined(pieces: &mut Vec<Bytes>) -> Option<Bytes> {
    if pieces.len() > 1 {
        let joined = pieces.concat().into();
        pieces.clear();
        pieces.push(joined);
    }
    pieces.pop().filter(|bytes| !bytes.is_empty())
}

fn write_error(error: &pingora::Error) -> End {
    match error.etype() {
        pingora::ErrorType::WriteTimedout => End::ClientStuck,
        _ => End::ClientGone,
    }
}

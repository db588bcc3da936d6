//! Passes an answer on: head, then one loop that reads, taps and writes, with every timer that may end it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;

use super::seldom::Seldom;
use super::send_response_head::commit;
use super::termination::{self, After, End};
use super::upload::{Rest, Turn};
use crate::llm::{Dialect, Framing, Progress};
use crate::policy::deadlines::{Kind, Late};
use crate::proxy::client::body_pace::BodyPace;
use crate::proxy::client::client_side::KEEP_ALIVE;
use crate::proxy::client::headers::AnswerFraming;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::upstream::response_reader::{Next, ResponseReader, sign};
use crate::proxy::upstream::tap::Tap;
use crate::proxy::upstream::upstream_error::late_error;
use crate::proxy::upstream::upstream_response::{Held, Source, UpstreamResponse};
use crate::telemetry::event::Event;
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
    request: &RoutedRequest<'_>,
) -> Ending {
    flight.tell(Event::Received(request.client.received()));
    let UpstreamResponse { number, upstream, variant, .. } = &*opened;
    flight.tell(Event::PassedOn { number: *number, upstream, variant });
    let came = flight.now();
    let started = opened.started;
    let (mut source, head, held) = opened.take_apart();
    let committed = commit(session, flight, head, &source, request).await;
    source.reader.tap.wrote(came, flight.now());
    let (framing, end) = match committed {
        Ok(framing) => {
            let mut relay = Relay::new(flight, &mut source, started, request);
            let end = tokio::select! {
                biased;
                end = relay.run(session, &mut source, flight, held) => end,
                () = request.revoked_for_long() => End::RevokedUnread,
            };
            // On a connection whose request is not whole, the next one would be read as the rest of its body.
            source.early |= !relay.upload.is_done();
            (framing, end)
        }
        Err(end) => (AnswerFraming::Delimited, end),
    };
    Box::pin(termination::conclude(session, flight, source, end, framing, request)).await
}

/// The client has an early head already, but no attempt brought an answer.
pub(crate) async fn fail(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    rejection: &Rejection,
    request: &RoutedRequest<'_>,
) -> Ending {
    flight.tell(Event::StatusSent(200));
    termination::fail_early(session, flight, rejection, request).await
}

/// The state of the loop.
struct Relay<'a> {
    request: &'a RoutedRequest<'a>,
    upload: Rest,
    pace: BodyPace,
    /// Zero: no comments.
    keepalive: Duration,
    last_write: Duration,
    /// When the attempt began.
    started: Duration,
    /// What those who watch were told that the answer speaks.
    spoken: Option<(Dialect, Framing)>,
    /// A limit is used up, and wants the stream cut.
    exhausted: bool,
    /// What the client gets of the chunks at hand; empty between two writes.
    pieces: Vec<Bytes>,
}

/// What the loop woke up for.
enum Woke {
    Upstream(Next),
    Client(Result<Turn, Stop>),
    /// Whoever runs this has it end.
    Stop(End),
}

impl<'a> Relay<'a> {
    fn new(flight: &mut Flight<'_>, source: &mut Source, started: Duration, request: &'a RoutedRequest<'a>) -> Self {
        let now = flight.now();
        let upload = Rest::of(source.upload.take(), source.outlet.take(), request.client.is_body_done(), source.early);
        let tap = &source.reader.tap;
        if let Some(at) = tap.first_token() {
            flight.tell(Event::FirstToken(at));
        }
        if matches!(tap.kind(), Kind::Other { .. }) {
            flight.tell(Event::OtherStream(true));
        }
        let spoken = tap.speaks();
        if spoken.is_some() {
            flight.tell(Event::Recognised(spoken));
        }
        source.reader.deadlines.commit();
        Self {
            request,
            upload,
            pace: BodyPace::new(&request.settings().server),
            started,
            keepalive: request.routed.route.keepalive,
            last_write: now,
            spoken,
            exhausted: false,
            pieces: Vec::new(),
        }
    }

    async fn run(
        &mut self,
        client: &mut ServerSession,
        source: &mut Source,
        flight: &mut Flight<'_>,
        mut held: Held,
    ) -> End {
        self.exhausted |= flight.generated(source.reader.tap.tokens());
        let came = flight.now();
        if let Err(end) = self.write_held(client, flight, joined(&mut held.chunks)).await {
            return end;
        }
        source.reader.tap.wrote(came, flight.now());
        self.note_end(&mut source.reader);
        if held.whole {
            return self.write_rest(client, flight, &mut source.reader.tap, End::Complete).await;
        }
        flight.enter(waiting(&source.reader));
        let context = self.request.context;
        let mut stops = Seldom::new(async {
            tokio::select! {
                () = context.shared.drain.reached(DrainStage::Cut) => End::Cut,
                () = context.revoked() => End::Revoked,
            }
        });
        let patience = self.request.settings().server.body_timeout;
        let has_length = self.request.client.has_length();
        loop {
            // What came is passed on before anything is concluded from the client's going or from the time.
            let comment_due = self.next_comment(&source.reader.tap);
            let had_ended = source.reader.deadlines.has_ended();
            let woke = tokio::select! {
                biased;
                end = &mut stops => Woke::Stop(end),
                next = source.reader.next(comment_due) => Woke::Upstream(next),
                turn = self.upload.next(client, &mut self.pace, has_length) => Woke::Client(turn),
            };
            let end = match woke {
                Woke::Upstream(Next::Chunk(chunk)) => match self.write(client, source, flight, chunk).await {
                    Err(end) => Some(end),
                    // An upstream that always has something must not keep its deadlines from being looked at.
                    Ok(()) => source.reader.overdue(self.last_write).map(|late| late_end(late, &source.reader)),
                },
                Woke::Upstream(Next::End) => Some(End::Complete),
                Woke::Upstream(Next::Died) => Some(over_or(End::UpstreamDied, &source.reader)),
                Woke::Upstream(Next::Late(late)) => Some(late_end(late, &source.reader)),
                Woke::Upstream(Next::Idle) => self.comment(client, flight, &mut source.reader.tap).await.err(),
                Woke::Client(Ok(turn)) => {
                    self.upload.take(&mut source.reader.session, turn, patience).await;
                    None
                }
                Woke::Client(Err(_)) => Some(over_or(End::ClientGone, &source.reader)),
                Woke::Stop(end) => Some(over_or(end, &source.reader)),
            };
            if let Some(end) = end {
                // What a client does not take after the end, it does not miss.
                let end = if had_ended { over_or(end, &source.reader) } else { end };
                return self.write_rest(client, flight, &mut source.reader.tap, end).await;
            }
        }
    }

    /// The dialect's own end has gone to the client.
    fn note_end(&mut self, reader: &mut ResponseReader) {
        if !reader.deadlines.has_ended() && reader.tap.has_ended() {
            reader.deadlines.end(self.last_write);
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
        self.upload.answered(&mut self.pace, self.request.client.has_length());
        let mut bytes = chunk.len();
        let mut progress = self.look_at(chunk, flight, source, came);
        for _ in 1..CHUNKS_MAX {
            if bytes >= AT_ONCE_MAX || self.exhausted {
                break;
            }
            let Some(chunk) = source.reader.at_hand().await else { break };
            bytes += chunk.len();
            progress |= self.look_at(chunk, flight, source, came);
        }
        let ready = flight.now();
        flight.enter_at(Phase::ClientBlocked, ready);
        let reader = &mut source.reader;
        if let Some(bytes) = joined(&mut self.pieces) {
            let mut write = pin!(client.write_response_body(bytes, false));
            let written = poll_fn(|context| {
                let written = write.as_mut().poll(context);
                if written.is_pending() {
                    reader.may_have_come();
                }
                written
            })
            .await;
            written.map_err(|error| write_error(&error))?;
        }
        let written = flight.now();
        reader.tap.wrote(came, written);
        self.last_write = written;
        // While the client did not take bytes, the upstream was not read: its silence then is not its own.
        reader.deadlines.pause(written - came);
        let (kind, before) = (reader.tap.kind(), reader.deadlines.kind());
        reader.deadlines.came(kind, sign(progress), written);
        // Only now is known whether a token is waited for still.
        flight.enter_at(waiting(reader), written);
        if kind != before {
            flight.tell(Event::OtherStream(matches!(kind, Kind::Other { .. })));
        }
        self.note_end(reader);
        if self.exhausted { self.close(client, flight, &mut source.reader.tap).await } else { Ok(()) }
    }

    /// Reads a chunk that came at `came`, and takes what the client gets of it. Tells what it brought.
    fn look_at(&mut self, chunk: Bytes, flight: &mut Flight<'_>, source: &mut Source, came: Duration) -> Progress {
        let tap = &mut source.reader.tap;
        let progress = tap.feed(&chunk, came);
        if tap.speaks() != self.spoken {
            self.spoken = tap.speaks();
            flight.tell(Event::Recognised(self.spoken));
        }
        if progress.token && tap.first_token() == Some(came) {
            flight.tell(Event::FirstToken(came));
            source.ticket.answered(came.saturating_sub(self.started), true, self.request.facts().is_delivery());
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

    /// When the client has waited long enough for a comment; `None`: it gets none. Where the bytes so far end does not matter: that
    /// is for the moment of each.
    fn next_comment(&self, tap: &Tap) -> Option<Duration> {
        (!self.keepalive.is_zero() && tap.takes_comments()).then(|| self.last_write + self.keepalive)
    }

    /// Keeps the client's patience, where nothing is under way that a comment would break.
    async fn comment(&mut self, client: &mut ServerSession, flight: &Flight<'_>, tap: &mut Tap) -> Result<(), End> {
        let now = flight.now();
        if tap.at_sse_boundary() {
            client.write_response_body(KEEP_ALIVE, false).await.map_err(|error| write_error(&error))?;
        }
        self.last_write = flight.now();
        tap.wrote(now, self.last_write);
        Ok(())
    }
}

/// What the time is spent on while nothing comes.
fn waiting(reader: &ResponseReader) -> Phase {
    if reader.deadlines.waits_for_token() { Phase::Preamble } else { Phase::Generation }
}

/// What an end is once the answer is whole: no fault of anybody's.
fn over_or(end: End, reader: &ResponseReader) -> End {
    if !reader.deadlines.has_ended() && !reader.tap.is_whole() {
        return end;
    }
    match end {
        End::ClientGone | End::ClientStuck => End::Over(After::ClientGone),
        End::Cut | End::Revoked => End::Over(After::Cut),
        End::Complete | End::Exhausted | End::Over(_) => end,
        _ => End::Over(After::Died),
    }
}

/// What it ends with that a deadline has passed.
fn late_end(late: Late, reader: &ResponseReader) -> End {
    match late {
        Late::AfterEnd => End::Over(After::Silence),
        late => over_or(End::Late(late_error(late)), reader),
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

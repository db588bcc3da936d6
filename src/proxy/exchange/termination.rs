//! How an answer ends: in order, or so that no client takes it for whole; and what that makes of the request.

use std::time::Duration;

use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;

use super::read_after_end;
use crate::llm::error_body::{ErrorBody, error_event};
use crate::llm::{Dialect, Framing, Reading, StreamEnd};
use crate::policy::deadlines::Kind;
use crate::policy::health::Sign;
use crate::proxy::client::headers::AnswerFraming;
use crate::proxy::endpoints::shared_h2;
use crate::proxy::endpoints::socket;
use crate::proxy::process::drain::Drain;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Ending;
use crate::proxy::request::rejection::{KEY_REVOKED, Rejection};
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::upstream::tap::Read;
use crate::proxy::upstream::upstream_response::Source;
use crate::telemetry::event::Event;
use crate::telemetry::record::{ErrorType, Outcome, Phase};

/// How long a reset waits for what was written before it, over HTTP/2: there it would overtake it.
const FLUSH: Duration = Duration::from_millis(20);

/// Why the loop stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The upstream's framing ended in order.
    Complete,
    /// A limit was used up, and the stream was closed with its dialect's own end.
    Exhausted,
    UpstreamDied,
    ClientGone,
    /// The client took no byte for too long.
    ClientStuck,
    /// First token, stall or total.
    Late(ErrorType),
    /// The process goes down.
    Cut,
    /// The client's key was revoked.
    Revoked,
    /// So it was, and the client takes no byte: nothing more can be told it.
    RevokedUnread,
    /// The answer was whole before its connection was: its dialect's own end had passed.
    Over(After),
    /// The answer is none that could follow the head that was sent early.
    Unfit,
    Internal,
}

/// What came after the end of an answer that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The upstream holds its connection open.
    Silence,
    Died,
    ClientGone,
    /// The process goes down.
    Cut,
}

impl End {
    fn verdict(self, drain: &Drain) -> (Outcome, ErrorType, &'static str) {
        match self {
            // Complete answers are judged by what was read of them.
            Self::Complete | Self::Exhausted | Self::Over(_) | Self::Internal => {
                (Outcome::InternalError, ErrorType::Internal, "internal error")
            }
            Self::UpstreamDied => (
                Outcome::Truncated,
                ErrorType::UpstreamBodyReset,
                "The upstream closed the connection before its answer was complete. Try again.",
            ),
            Self::ClientGone => (Outcome::ClientCancelled, ErrorType::ClientGone, ""),
            Self::ClientStuck => (Outcome::ClientCancelled, ErrorType::ClientWriteTimeout, ""),
            Self::Late(ErrorType::Stall) => {
                (Outcome::Stalled, ErrorType::Stall, "The upstream stopped sending tokens. Try again.")
            }
            Self::Late(ErrorType::FirstTokenTimeout) => {
                (Outcome::Timeout, ErrorType::FirstTokenTimeout, "The upstream sent no token in time. Try again.")
            }
            Self::Late(error) => (Outcome::Timeout, error, "The answer took longer than it may."),
            Self::Cut => (Outcome::Stopped, drain.why_cut(), "The proxy is going down. Try again."),
            Self::Revoked => (Outcome::Stopped, ErrorType::KeyRevoked, KEY_REVOKED),
            Self::RevokedUnread => (Outcome::Stopped, ErrorType::KeyRevoked, ""),
            Self::Unfit => (
                Outcome::UpstreamError,
                ErrorType::UpstreamStatus,
                "The upstream answered with an error instead of a stream. Try again.",
            ),
        }
    }

    /// What an answer that ended so showed of its endpoint; `None`: what ended it was not the endpoint's doing. A status
    /// that says that the endpoint failed has been told with the head.
    fn sign(self, outcome: Outcome) -> Option<Sign> {
        match (self, outcome) {
            (Self::Complete, Outcome::Truncated | Outcome::ErrorInStream)
            | (Self::UpstreamDied | Self::Late(ErrorType::Stall | ErrorType::FirstTokenTimeout), _) => {
                Some(Sign::Faulty)
            }
            (Self::Complete | Self::Over(_), _) => Some(Sign::Well),
            _ => None,
        }
    }
}

/// Ends the answer and books what became of the request.
pub(crate) async fn conclude(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    mut source: Source,
    end: End,
    framing: AnswerFraming,
    request: &RoutedRequest<'_>,
) -> Ending {
    let now = flight.now();
    flight.tell(Event::Sent(source.reader.tap.bytes));
    let boundary = source.reader.tap.at_boundary();
    let status = source.status.as_u16();
    if end == End::Exhausted {
        // What the upstream still sends nobody wants.
        source.early = true;
        source.reader.session.shutdown().await;
        flight.tell(Event::Cut);
    }
    if matches!(end, End::Complete | End::Exhausted) {
        let read = source.reader.tap.finish(StreamEnd::Clean, now);
        // What is fetched may tell that it failed, long ago.
        let told = read.reading().filter(|reading| !(request.facts().retrieves() && reading.error.is_some()));
        let (outcome, error) = judge(status, told);
        if let Some(sign) = end.sign(outcome) {
            source.ticket.tell(sign);
        }
        book(flight, read, outcome, error, request);
        // The client has the dialect's own end: what it does not take after that, it does not miss.
        let has_all = end == End::Exhausted || source.reader.deadlines.has_ended();
        return finish(client, flight, source, has_all, request).await;
    }
    if let End::Over(after) = end {
        return over(client, flight, source, after, request).await;
    }
    let (outcome, error, message) = end.verdict(&request.shared.drain);
    // A stream that is no LLM's ends when one of its sides likes: nobody is to blame.
    if let Some(sign) = end.sign(outcome).filter(|_| !matches!(source.reader.tap.kind(), Kind::Other { .. })) {
        source.ticket.tell(sign);
    }
    let promised = (request.facts().dialect.unwrap_or(Dialect::PlainSse), Framing::Sse);
    // What follows an early head can only be an event of the stream that it promised.
    let speaks = if end == End::Unfit { Some(promised) } else { source.reader.tap.speaks() };
    if matches!(end, End::Late(_)) {
        shared_h2::retire(&source.reader.session);
    }
    // The process may be gone before anything that is waited for.
    book(flight, source.reader.tap.finish(StreamEnd::Cut, now), outcome, Some(error), request);
    // First of all: what nobody waits for must not be generated.
    source.reader.session.shutdown().await;
    drop(source.reader);
    if let Some((dialect, style)) = speaks.filter(|_| boundary || end == End::Unfit)
        && !message.is_empty()
    {
        tell(client, flight, request, (dialect, style), error, message).await;
    }
    break_off(client, framing).await;
    Ending::Dirty
}

/// Ends an answer that is whole, though its connection is not over: in order for the client, and no word against anybody.
async fn over(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    mut source: Source,
    after: After,
    request: &RoutedRequest<'_>,
) -> Ending {
    let read = source.reader.tap.finish(StreamEnd::Cut, flight.now());
    book(flight, read, Outcome::Completed, None, request);
    source.ticket.tell(Sign::Well);
    let Source { reader, peer, early, .. } = source;
    let mut session = reader.session;
    let ending = if after == After::ClientGone {
        Ending::Dirty
    } else {
        flight.enter(Phase::ClientBlocked);
        match client.write_response_body(bytes::Bytes::new(), true).await {
            Ok(()) => Ending::Clean,
            Err(_) => Ending::Dirty,
        }
    };
    match after {
        After::Silence | After::ClientGone if !early => read_after_end::read_on(request.shared, session, peer),
        _ => session.shutdown().await,
    }
    ending
}

/// The client was given an early head, and nothing can follow it: an error event, and a dirty end.
pub(crate) async fn fail_early(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    rejection: &Rejection,
    request: &RoutedRequest<'_>,
) -> Ending {
    flight.end(rejection.outcome, Some(rejection.error));
    let dialect = request.facts().dialect.unwrap_or(Dialect::PlainSse);
    tell(client, flight, request, (dialect, Framing::Sse), rejection.error, &rejection.message).await;
    break_off(client, AnswerFraming::ByClose).await;
    Ending::Dirty
}

/// What a complete answer makes of its request.
pub(crate) fn judge(status: u16, reading: Option<&Reading>) -> (Outcome, Option<ErrorType>) {
    if status >= 500 || status == 429 {
        return (Outcome::UpstreamError, Some(ErrorType::UpstreamStatus));
    }
    if status >= 400 {
        return (Outcome::Completed, Some(ErrorType::UpstreamStatus));
    }
    match reading {
        Some(reading) if reading.error.is_some() => (Outcome::ErrorInStream, Some(ErrorType::ErrorEvent)),
        Some(reading) if !reading.normal_end => (Outcome::Truncated, Some(ErrorType::MissingEnd)),
        _ => (Outcome::Completed, None),
    }
}

fn book(flight: &mut Flight<'_>, read: Read, outcome: Outcome, error: Option<ErrorType>, request: &RoutedRequest<'_>) {
    let upstreams_fault = !matches!(outcome, Outcome::ClientCancelled | Outcome::InternalError | Outcome::Stopped);
    flight.tell(Event::AnswerEnded(error.filter(|_| upstreams_fault)));
    flight.end(outcome, error);
    match read {
        Read::Llm(dialect, reading) => flight.read(dialect, request.facts(), *reading),
        Read::Stream(stream) => flight.tell(Event::StreamRead(stream)),
        Read::Nothing => {}
    }
}

/// Ends the client's answer in order, trailers included, and gives the upstream's connection back.
async fn finish(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    source: Source,
    has_all: bool,
    request: &RoutedRequest<'_>,
) -> Ending {
    let Source { reader, peer, early, .. } = source;
    let mut session = reader.session;
    flight.enter(Phase::ClientBlocked);
    let ended = match trailers(&mut session).await {
        Some(trailers) if client.is_http2() => client.write_response_trailers(trailers).await,
        // HTTP/1 recipients may drop trailers (RFC 9110, section 6.5.1), and pingora does.
        _ => client.write_response_body(bytes::Bytes::new(), true).await,
    };
    if !early {
        request.shared.connector.release(session, &peer).await;
    }
    if ended.is_ok() {
        return Ending::Clean;
    }
    if !has_all {
        flight.end(Outcome::ClientCancelled, Some(ErrorType::ClientGone));
    }
    Ending::Dirty
}

async fn trailers(source: &mut HttpSession) -> Option<http::HeaderMap> {
    match source {
        HttpSession::H2(session) => session.read_trailers().await.ok().flatten(),
        HttpSession::H1(_) | HttpSession::Custom(()) => None,
    }
}

/// The dialect's error event, where it has one.
async fn tell(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    request: &RoutedRequest<'_>,
    (dialect, framing): (Dialect, Framing),
    error: ErrorType,
    message: &str,
) {
    let status = if error == ErrorType::KeyRevoked { 401 } else { 502 };
    let reply = ErrorBody { message, code: error.as_str(), status, request_id: &request.caller.request_id };
    let Some(event) = error_event(dialect, framing, &reply) else { return };
    flight.enter(Phase::ClientBlocked);
    let length = event.len() as u64;
    if client.write_response_body(event, false).await.is_ok() {
        flight.tell(Event::Sent(length));
    }
}

/// Makes sure that the end which follows cannot be taken for a normal one.
async fn break_off(client: &mut ServerSession, framing: AnswerFraming) {
    client.set_keepalive(None);
    if framing == AnswerFraming::ByClose
        && let Some(stream) = client.stream()
    {
        socket::reset_on_close(stream.id());
    }
    if client.is_http2() {
        tokio::time::sleep(FLUSH).await;
    }
}

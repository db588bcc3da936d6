//! Reads a request's head, within its time, and sees the request off to the exchange.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType as PingoraError;
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use crate::proxy::client::error_answer;
use crate::proxy::clock::Clock;
use crate::proxy::endpoints::socket;
use crate::proxy::exchange::stages;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::process::state::Shared;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::caller;
use crate::proxy::request::outcome::Ending;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::event::Event;
use crate::telemetry::metrics::Received;
use crate::telemetry::record::{ErrorType, RequestInfo};

/// How long a connection may wait for its next request, in seconds. Longer than what browsers and SDKs keep.
pub(crate) const KEEPALIVE_S: u64 = 75;

/// What a client still sends of a body after its answer is whole may take so long; then the connection is closed.
const DRAIN: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// When the first head of the connection that this task serves must be complete.
    pub(crate) static FIRST_HEAD_DUE: Instant;
}

/// Marks a connection that has served a request.
struct Served;

/// Serves one request of a connection; returns the connection when it can serve another. The session is boxed, or each
/// future around this one would have room for it.
pub(crate) async fn serve(shared: &Arc<Shared>, mut session: Box<ServerSession>) -> Option<ReusedHttpStream> {
    let reused = session.take_connection_user_context().is_some();
    // A next request that comes early waits for its turn; it is no sign that the client gave up on this one.
    session.set_pipelining_enabled(true);
    session.set_total_drain_timeout(Some(DRAIN));
    match read_head(shared, &mut session, reused).await {
        Head::Complete => {}
        Head::Malformed => {
            refuse_malformed(shared, &mut session).await;
            return None;
        }
        Head::Late(waited) => {
            end_late(shared, session, reused, waited).await;
            return None;
        }
        Head::None => return None,
    }
    if session.get_keepalive().is_some() {
        session.set_keepalive((!shared.drain.is_draining()).then_some(KEEPALIVE_S));
    }
    let ending = stages::serve(shared, &mut session).await;
    if ending == Ending::Dirty {
        if session.is_http2() {
            session.shutdown().await;
        }
        // Over HTTP/1 the drop closes, without a last chunk or a TLS close_notify.
        return None;
    }
    if shared.drain.is_draining() {
        session.set_keepalive(None);
    }
    let mut settings = HttpPersistentSettings::for_session(&session);
    settings.set_user_context(Box::new(Served));
    let stream = session.finish().await.ok().flatten()?;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

enum Head {
    Complete,
    Malformed,
    /// It was not complete after so long.
    Late(Duration),
    /// The client left, or we are going down.
    None,
}

async fn read_head(shared: &Shared, session: &mut ServerSession, reused: bool) -> Head {
    let header_timeout = shared.generation.load().settings.server.header_timeout;
    let waits = if reused { Duration::from_secs(KEEPALIVE_S) + header_timeout } else { header_timeout };
    let read = tokio::time::timeout_at(head_due(waits, reused), session.read_request());
    let read = tokio::select! {
        biased;
        read = read => read,
        () = shared.drain.reached(DrainStage::Draining), if reused => return Head::None,
    };
    match read {
        Ok(Ok(true)) => Head::Complete,
        Ok(Err(error)) if *error.etype() == PingoraError::InvalidHTTPHeader => Head::Malformed,
        Ok(Ok(false) | Err(_)) => Head::None,
        Err(_) => Head::Late(waits),
    }
}

/// When the head must be complete. The time of a first head runs from the connection's first byte on, or from its beginning
/// where that was waited for.
fn head_due(waits: Duration, reused: bool) -> Instant {
    let from_now = Instant::now() + waits;
    if reused { from_now } else { FIRST_HEAD_DUE.try_with(|due| *due).unwrap_or(from_now) }
}

/// What could not be parsed still gets an answer and a record.
async fn refuse_malformed(shared: &Shared, session: &mut ServerSession) {
    let refusal = Rejection::bad_request("The request is not valid HTTP: check its request line and headers.");
    refuse_unread(shared, session, &refusal).await;
}

/// Ends a connection on which no head was complete after `waited`. One on which nothing came is closed without a word: no
/// request was begun.
pub(crate) async fn end_late(shared: &Shared, mut session: Box<ServerSession>, reused: bool, waited: Duration) {
    if has_begun(&session, reused, waited) {
        shared.telemetry.metrics().late_head(Received::Part);
        let message =
            "The request's head was not complete in time. Send it at once, or have `server.header_timeout` raised.";
        refuse_unread(shared, &mut session, &Rejection::refused(408, ErrorType::HeadTimeout, message)).await;
    } else if !reused {
        shared.telemetry.metrics().late_head(Received::Nothing);
    }
}

/// Whether anything came within the time `waited` of a head. What pingora has read of one goes with its wait, so the socket is asked.
fn has_begun(session: &ServerSession, reused: bool, waited: Duration) -> bool {
    let Some(socket) = session.stream().map(|stream| stream.id()) else { return false };
    let is_plain = session.digest().is_none_or(|digest| digest.ssl_digest.is_none());
    if is_plain && !reused {
        return socket::received(socket).is_some_and(|bytes| bytes > 0);
    }
    socket::silent_for(socket).is_some_and(|silent| silent < waited)
}

async fn refuse_unread(shared: &Shared, session: &mut ServerSession, refusal: &Rejection) {
    let generation = shared.generation.load_full();
    let request = RequestInfo { method: Arc::from("?"), path: Arc::from(""), http_version: "1.1" };
    let mut flight = Flight::begin(shared, &generation, Clock::start(), request);
    let (request_id, trace, client) = caller::identify_unread(session, &generation.settings);
    flight.tell(Event::Identified { request_id: &request_id, trace, client });
    session.set_write_timeout(Some(generation.settings.server.write_timeout));
    error_answer::answer_unparsed(session, &mut flight, refusal).await;
    session.shutdown().await;
}

//! Reads a request's head, within its time, and sees the request off to the exchange.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType as PingoraError;
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use crate::proxy::client::error_answer;
use crate::proxy::clock::Clock;
use crate::proxy::exchange::stages;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::process::state::Shared;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Ending;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::record::RequestInfo;

/// How long a connection may wait for its next request, in seconds. Longer than what browsers and SDKs keep.
pub(crate) const KEEPALIVE_S: u64 = 75;

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
    match read_head(shared, &mut session, reused).await {
        Head::Complete => {}
        Head::Malformed => {
            refuse_malformed(shared, &mut session).await;
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
    /// The client left, or was too slow, or we are going down.
    None,
}

async fn read_head(shared: &Shared, session: &mut ServerSession, reused: bool) -> Head {
    let header_timeout = shared.generation.load().settings.server.header_timeout;
    let read = tokio::time::timeout_at(head_due(header_timeout, reused), session.read_request());
    let read = tokio::select! {
        biased;
        read = read => read,
        () = shared.drain.reached(DrainStage::Draining), if reused => return Head::None,
    };
    match read {
        Ok(Ok(true)) => Head::Complete,
        Ok(Err(error)) if *error.etype() == PingoraError::InvalidHTTPHeader => Head::Malformed,
        Ok(Ok(false) | Err(_)) | Err(_) => Head::None,
    }
}

/// When the head must be complete. The time of a first head runs from the connection's first byte on, or from its beginning
/// where that was waited for.
fn head_due(patience: Duration, reused: bool) -> Instant {
    let idle = if reused { Duration::from_secs(KEEPALIVE_S) } else { Duration::ZERO };
    let from_now = Instant::now() + idle + patience;
    if reused { from_now } else { FIRST_HEAD_DUE.try_with(|due| *due).unwrap_or(from_now) }
}

/// What could not be parsed still gets an answer and a record.
async fn refuse_malformed(shared: &Shared, session: &mut ServerSession) {
    let generation = shared.generation.load_full();
    let request = RequestInfo { method: Arc::from("?"), path: Arc::from(""), http_version: "1.1" };
    let mut flight = Flight::begin(shared, &generation, Clock::start(), request);
    let refusal = Rejection::bad_request("The request is not valid HTTP: check its request line and headers.");
    error_answer::answer_unparsed(session, &mut flight, &refusal).await;
    session.shutdown().await;
}

//! Where every answer of our own is built: refusals and failures before an upstream's head was passed on.

use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::cors;
use crate::llm::Dialect;
use crate::llm::error_body::{ErrorBody, error_body};
use crate::policy::cors::Decision;
use crate::proxy::limits::ratelimit_headers;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Ending;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::event::Event;
use crate::telemetry::record::{ErrorType, Phase};

/// How long we read on after an early refusal, so that the client reads it before the connection goes.
const LINGER: Duration = Duration::from_secs(2);

/// What an answer of our own needs to know of the request.
pub(crate) struct ReplyTo<'a> {
    pub(crate) dialect: Option<Dialect>,
    pub(crate) request_id: &'a str,
    pub(crate) cors: &'a Decision,
}

/// Answers with `rejection` and ends the flight with it.
pub(crate) async fn answer(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    to: &ReplyTo<'_>,
    rejection: &Rejection,
) -> Ending {
    flight.end(rejection.outcome, Some(rejection.error));
    let reply = ErrorBody {
        message: &rejection.message,
        code: rejection.error.as_str(),
        status: rejection.status,
        request_id: to.request_id,
    };
    let body = error_body(to.dialect, &reply);
    let Ok(mut head) = head_of(rejection, body.len()) else { return Ending::Dirty };
    // Only our own well-formed values stand here.
    let _ = cors::apply(to.cors, &mut head);
    let _ = head.insert_header("x-request-id", to.request_id);

    let unread = !session.is_body_done();
    // After a head that could be read in two ways, nothing on this connection can be trusted.
    if unread || rejection.error == ErrorType::BadRequest {
        session.set_keepalive(None);
    }
    flight.enter(Phase::ClientBlocked);
    if session.write_response_header(Box::new(head)).await.is_err() {
        return Ending::Dirty;
    }
    flight.tell(Event::StatusSent(rejection.status));
    let sent = body.len() as u64;
    if session.write_response_body(body, true).await.is_err() {
        return Ending::Dirty;
    }
    flight.tell(Event::Sent(sent));
    if unread {
        linger(session).await;
    }
    Ending::Clean
}

/// Answers a request that could not even be parsed, or of which no more is known.
pub(crate) async fn answer_unparsed(session: &mut ServerSession, flight: &mut Flight<'_>, rejection: &Rejection) {
    flight.end(rejection.outcome, Some(rejection.error));
    let request_id = flight.request_id();
    let body = plain(rejection, &request_id);
    session.set_keepalive(None);
    if let Ok(mut head) = head_of(rejection, body.len())
        && head.insert_header("x-request-id", &*request_id).is_ok()
        && session.write_error_response(head, body).await.is_ok()
    {
        flight.tell(Event::StatusSent(rejection.status));
    }
}

/// What a connection gets that is closed before anything was read of it, as it goes over the wire.
pub(crate) fn unasked(rejection: &Rejection) -> Bytes {
    let body = plain(rejection, "");
    // Of our own well-formed values: without an answer the connection would be closed in silence.
    let Ok(head) = head_of(rejection, body.len()) else { return Bytes::new() };
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {} {reason}\r\nconnection: close\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend(b"\r\n");
    wire.extend(body);
    wire.into()
}

/// The body for a client whose dialect is not known.
fn plain(rejection: &Rejection, request_id: &str) -> Bytes {
    let (message, code) = (&*rejection.message, rejection.error.as_str());
    error_body(None, &ErrorBody { message, code, status: rejection.status, request_id })
}

fn head_of(rejection: &Rejection, length: usize) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(rejection.status, Some(8))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("content-length", length.to_string())?;
    head.insert_header("cache-control", "no-store")?;
    ratelimit_headers::insert(&mut head, &rejection.standing)?;
    if rejection.status == 401 {
        head.insert_header("www-authenticate", "Bearer")?;
    }
    if let Some(seconds) = rejection.retry_after {
        head.insert_header("retry-after", seconds.to_string())?;
    }
    if rejection.error == ErrorType::BudgetSpent {
        // OpenAI's and Anthropic's clients try a 429 again within seconds, unless they read this.
        head.insert_header("x-should-retry", "false")?;
    }
    Ok(head)
}

/// Reads what the client still sends, for a while: closing at once would reset the connection under our answer.
async fn linger(session: &mut ServerSession) {
    let _ = tokio::time::timeout(LINGER, async { while let Ok(Some(_)) = session.read_request_body().await {} }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_without_a_session_is_a_whole_answer() {
        let answer = unasked(&Rejection::overloaded(ErrorType::Overloaded, "Too many. Try again."));
        let text = std::str::from_utf8(&answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["connection: close", "retry-after: 1", "content-type: application/json"] {
            assert!(head.split("\r\n").any(|one| one == line), "{line}: {head}");
        }
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}: {text}", body.len());
        assert_eq!(body, r#"{"detail":"Too many. Try again.","code":"overloaded"}"#);
    }
}

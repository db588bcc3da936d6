//! Where every answer of our own is built: refusals and failures before an upstream's head was passed on.

use std::time::Duration;

use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::cors;
use crate::llm::Dialect;
use crate::llm::reply::{ErrorReply, error_body};
use crate::policy::cors::Decision;
use crate::proxy::limits::ratelimit_headers;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Ending;
use crate::proxy::request::rejection::Rejection;
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
    let reply = ErrorReply {
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
    flight.status_sent(rejection.status);
    let sent = body.len() as u64;
    if session.write_response_body(body, true).await.is_err() {
        return Ending::Dirty;
    }
    flight.bytes(0, sent);
    if unread {
        linger(session).await;
    }
    Ending::Clean
}

/// Answers a request that could not even be parsed.
pub(crate) async fn answer_unparsed(session: &mut ServerSession, flight: &mut Flight<'_>, rejection: &Rejection) {
    flight.end(rejection.outcome, Some(rejection.error));
    let reply = ErrorReply {
        message: &rejection.message,
        code: rejection.error.as_str(),
        status: rejection.status,
        request_id: "",
    };
    let body = error_body(None, &reply);
    session.set_keepalive(None);
    if let Ok(head) = head_of(rejection, body.len())
        && session.write_error_response(head, body).await.is_ok()
    {
        flight.status_sent(rejection.status);
    }
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

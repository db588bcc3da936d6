//! Cross-origin rules: asks the policy, and answers preflights.

use std::sync::Arc;

use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;

use crate::config::settings::Cors;
use crate::policy::cors::{self as policy, Asked, Decision, Headers};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Ending;
use crate::telemetry::event::Event;
use crate::telemetry::record::{Outcome, Phase};

/// What the cross-origin rules say of one request.
pub(crate) fn decide(rules: Option<&Cors>, head: &RequestHeader) -> Decision {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    policy::decide(
        rules,
        &Asked {
            method: head.method.as_str(),
            origin: header("origin"),
            request_method: header("access-control-request-method"),
            request_headers: header("access-control-request-headers"),
        },
    )
}

/// Gives an answer the headers that the rules say, in place of the backend's.
pub(crate) fn apply(decision: &Decision, head: &mut ResponseHeader) -> pingora::Result<()> {
    let Decision::Actual(headers) = decision else { return Ok(()) };
    for name in policy::REPLACED {
        head.remove_header(name);
    }
    add(headers, head)
}

/// `vary` is added to, the others are set.
fn add(headers: &Headers, head: &mut ResponseHeader) -> pingora::Result<()> {
    for (name, value) in headers {
        if *name == "vary" {
            head.append_header(*name, value.as_str())?;
        } else {
            head.insert_header(*name, value.as_str())?;
        }
    }
    Ok(())
}

pub(crate) async fn answer_preflight(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    headers: &Headers,
    request_id: &Arc<str>,
) -> Ending {
    flight.end(Outcome::Completed, None);
    let Ok(head) = preflight_head(headers, request_id) else { return Ending::Dirty };
    flight.enter(Phase::ClientBlocked);
    if session.write_response_header(Box::new(head)).await.is_err() {
        return Ending::Dirty;
    }
    flight.tell(Event::StatusSent(204));
    Ending::Clean
}

fn preflight_head(headers: &Headers, request_id: &str) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(204, Some(headers.len() + 1))?;
    add(headers, &mut head)?;
    head.insert_header("x-request-id", request_id)?;
    Ok(head)
}
